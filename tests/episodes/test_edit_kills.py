"""SIGKILL at every call by which an edit changes the disk: the episode is there as it was, or as it is to be.

`EPISODE_KILLS=all` visits every point; without it they are thinned out.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embodied_vision.episodes import EpisodeStore, swap
from embodied_vision.episodes.edit import delete, migrate, relabel, tag
from embodied_vision.episodes.merge import merge_one
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.trim import trim
from embodied_vision.episodes.verify import verify

from .faults import How, kill_points, killed_at, trace
from .samples import contents

STEP = 1 if os.environ.get("EPISODE_KILLS") == "all" else 61
LAST = 6
"""Points at the end that are always visited: the swap and what follows."""

Stores = tuple[EpisodeStore, EpisodeStore]
"""The one that is worked on, and another."""


def without_exchange(one: Path, other: Path) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(one))


EDITS: dict[str, Callable[[EpisodeStore, str], object]] = {
    "relabel": lambda store, episode_id: relabel(store, episode_id, {"solved": False, "why": "seen"}),
    "tag": lambda store, episode_id: tag(store, episode_id, ["good"]),
    "trim": lambda store, episode_id: trim(store, episode_id, start_s=0.05, stop_s=0.2),
    "migrate": lambda store, episode_id: migrate(store, episode_id),
    "delete": lambda store, episode_id: delete(store, episode_id),
    "keep": lambda store, episode_id: delete(store, episode_id, keep=True),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """A store with a single episode; of schema 1, so that it can be migrated as well."""
    path = tmp_path_factory.mktemp("original")
    (first, *_) = sorted((Path(__file__).parent / "stored" / "schema-1" / "episodes").iterdir())
    shutil.copytree(first, path / "episodes" / first.name)
    return EpisodeStore(path)


def seen(store: EpisodeStore) -> dict[str, object]:
    """What a reader finds: everything of every episode but the times of its edits."""
    found = {}
    for episode_id in store.ids():
        episode = store.open(episode_id)
        history = [(entry["what"], entry["from"]) for entry in episode.history]
        found[episode_id] = contents(episode), episode.tags, history
    return found


def chosen(calls: list[str]) -> list[tuple[int, How]]:
    points = kill_points(calls)
    return [point for number, point in enumerate(points) if number % STEP == 0 or number >= len(points) - LAST]


@pytest.mark.parametrize(
    ("name", "exchange"),
    [*((name, True) for name in EDITS), ("relabel", False), ("trim", False)],
    ids=[*EDITS, "relabel-without-exchange", "trim-without-exchange"],
)
def test_killed_at_any_step_of_an_edit(
    name: str, exchange: bool, original: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(swap, "exchange", without_exchange)
    (episode_id,) = original.ids()

    def fresh(folder: str) -> EpisodeStore:
        shutil.copytree(original.path, tmp_path / folder)
        return EpisodeStore(tmp_path / folder)

    done = fresh("done")
    calls = trace(lambda: EDITS[name](done, episode_id))
    old, new = seen(original), seen(done)
    assert old != new or name == "migrate"
    for number, how in chosen(calls):
        store = fresh(f"{number}-{how}")
        assert killed_at(lambda store=store: EDITS[name](store, episode_id), number, how)
        if exchange:
            assert seen(store) in (old, new), (number, how)  # at any moment, before anybody repairs
        results = repair(store)
        assert [result.id for result in results] in ([], [episode_id])
        assert {result.state for result in results} <= {"finished", "dropped"}
        assert seen(store) in (old, new), (number, how)
        assert all(report.ok for report in verify(store))
        assert store.edit_ids() == []
        assert repair(store) == []
        EDITS[name](store, episode_id) if seen(store) == old else None  # and it can be done again
        assert seen(store) == new
        if name == "keep":
            assert (store.trash_path / episode_id / "manifest.json").exists()


@pytest.mark.parametrize("move", [False, True])
def test_killed_at_any_step_of_a_merge_goes_on_where_it_was(original: EpisodeStore, tmp_path: Path, move: bool) -> None:
    (episode_id,) = original.ids()
    old = seen(original)

    def fresh(folder: str) -> Stores:
        shutil.copytree(original.path, tmp_path / folder / "source")
        return EpisodeStore(tmp_path / folder / "target"), EpisodeStore(tmp_path / folder / "source")

    def work(stores: Stores) -> None:
        assert merge_one(*stores, episode_id, move=move).state in ("copied", "moved", "there")

    stores = fresh("done")
    for number, how in chosen(trace(lambda: work(stores))):
        target, source = fresh(f"{number}-{how}")
        assert killed_at(lambda stores=(target, source): work(stores), number, how)
        assert seen(target) in ({}, old), (number, how)
        assert seen(target) == old or seen(source) == old, (number, how)
        repair(target)
        repair(source)
        if source.ids():
            work((target, source))
        assert seen(target) == old
        assert seen(source) == ({} if move else old)
        assert all(report.ok for report in verify(target))
        assert (target.edit_ids(), source.edit_ids()) == ([], [])

"""`embodied-vision episodes delete`, `trim`, `tag`, `relabel`, `merge` and `migrate`."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from episodes.samples import PERIOD_NS, START_NS, contents, write_episode

from embodied_vision.cli.episodes import app
from embodied_vision.episodes import EpisodeStore
from embodied_vision.episodes.schema import SCHEMA
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import BadInput, EpisodeError
from tests.command_line import call, figures

STORED = Path(__file__).parents[1] / "episodes" / "stored"
run = partial(call, app)


def run_json(*arguments: object) -> Any:
    return figures(app, *arguments, "--json")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EpisodeStore:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # do not wait for the disk
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    store = EpisodeStore(tmp_path / "store")
    for solved in (True, False, True):
        write_episode(store, solved=solved)
    return store


def test_delete_asks(store: EpisodeStore) -> None:
    first, second, third = store.ids()
    result = run("delete", store.path, first, answer="n\n")
    assert result.exit_code == 1
    assert store.ids() == [first, second, third]
    result = run("delete", store.path, first, answer="y\n")
    assert result.exit_code == 0
    assert first in result.output
    assert store.ids() == [second, third]
    assert run_json("delete", store.path, "latest", "--yes") == {"deleted": [third], "unchanged": [], "failed": []}
    assert store.ids() == [second]


def test_delete_by_what_they_are_and_never_all_by_default(store: EpisodeStore) -> None:
    first, second, third = store.ids()
    assert isinstance(run("delete", store.path, "--yes").exception, BadInput)
    assert store.ids() == [first, second, third]
    assert run_json("delete", store.path, "--failed", "--yes")["deleted"] == [second]
    assert store.ids() == [first, third]


def test_deleted_episodes_can_be_kept(store: EpisodeStore) -> None:
    episode_id = store.ids()[0]
    before = contents(store.open(episode_id))
    run_json("delete", store.path, episode_id, "--keep", "--yes")
    assert episode_id not in store.ids()
    os.rename(store.trash_path / episode_id, store.episodes_path / episode_id)  # as the docs say
    assert contents(store.open(episode_id)) == before


def test_one_that_fails_does_not_keep_the_others(store: EpisodeStore) -> None:
    first, second, third = store.ids()
    (store.trash_path / first).mkdir(parents=True)
    result = run("delete", store.path, first, second, "--keep", "--yes", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["deleted"] == [second]
    assert [row["id"] for row in report["failed"]] == [first]
    assert store.ids() == [first, third]
    assert isinstance(run("delete", store.path, first, "--keep", "--yes").exception, EpisodeError)


def test_damaged_episodes_can_be_deleted_but_not_changed(store: EpisodeStore) -> None:
    episode_id = store.ids()[0]
    (store.episodes_path / episode_id / "data.zarr" / "zarr.json").write_text("{}")
    for verb in (("tag", "--add", "x"), ("relabel", "--set", "a=1"), ("trim", "--start", "0.1")):
        assert isinstance(run(verb[0], store.path, episode_id, *verb[1:]).exception, EpisodeError)
    assert run_json("delete", store.path, episode_id, "--yes")["deleted"] == [episode_id]


def test_tags_come_and_go(store: EpisodeStore) -> None:
    first, second, third = store.ids()
    added = run_json("tag", store.path, first, third, "--add", "good", "--add", "for training")
    assert added == {"changed": [first, third], "unchanged": [], "failed": []}
    assert store.open(first).tags == ("for training", "good")
    assert run_json("tag", store.path, first, second, "--add", "good") == {
        "changed": [second],
        "unchanged": [first],
        "failed": [],
    }
    assert run_json("tag", store.path, "--tag", "for training", "--remove", "good")["changed"] == [first, third]
    assert [store.open(episode_id).tags for episode_id in store.ids()] == [
        ("for training",),
        ("good",),
        ("for training",),
    ]
    assert all(report.ok for report in verify(store))


@pytest.mark.parametrize("name", ["", " x", "a,b", "a\nb", "x" * 65, "../x\0"])
def test_what_cannot_be_a_tag_is_refused(store: EpisodeStore, name: str) -> None:
    assert isinstance(run("tag", store.path, "latest", "--add", name).exception, BadInput)


def test_relabel_keeps_the_former_outcome(store: EpisodeStore) -> None:
    episode_id = store.ids()[1]
    before = contents(store.open(episode_id))
    changed = run_json("relabel", store.path, episode_id, "--set", "solved=true", "--set", "reason=seen on video")
    assert changed["changed"] == [episode_id]
    episode = store.open(episode_id)
    assert episode.outcome == {"reward": 0.0, "solved": True, "reason": "seen on video"}
    (entry,) = episode.history
    assert (entry["what"], entry["from"]) == ("outcome", {"reward": 0.0, "solved": False})
    assert {**contents(episode), "outcome": None} == {**before, "outcome": None}
    assert run_json("relabel", store.path, episode_id, "--set", "solved=true")["unchanged"] == [episode_id]
    run_json("relabel", store.path, episode_id, "--remove", "reason", "--set", "reward=0.5")
    assert store.open(episode_id).outcome == {"reward": 0.5, "solved": True}
    # JSON tells True from 1, Python does not
    assert run_json("relabel", store.path, episode_id, "--set", "solved=1")["changed"] == [episode_id]


@pytest.mark.parametrize("arguments", [(), ("--set", "solved"), ("--set", "=1"), ("--set", "a=1", "--remove", "a")])
def test_relabel_says_what_it_needs(store: EpisodeStore, arguments: tuple[str, ...]) -> None:
    assert isinstance(run("relabel", store.path, "latest", *arguments).exception, BadInput)


def test_trim_in_seconds_and_in_stamps(store: EpisodeStore) -> None:
    first, second, _ = store.ids()
    period = PERIOD_NS / 1e9
    assert run_json("trim", store.path, first, "--start", period, "--stop", 3 * period)["trimmed"] == [first]
    assert store.open(first).frames("camera").stamps_ns.tolist() == [START_NS + n * PERIOD_NS for n in (1, 2)]
    run_json("trim", store.path, second, "--start-ns", START_NS + PERIOD_NS, "--stop-ns", START_NS + 3 * PERIOD_NS)
    assert store.open(second).frames("camera").stamps_ns.tolist() == [START_NS + n * PERIOD_NS for n in (1, 2)]
    assert all(report.ok for report in verify(store))


@pytest.mark.parametrize(
    "window", [(), ("--start", "0", "--stop-ns", "5"), ("--start", "99"), ("--start", "nan"), ("--stop", "-1")]
)
def test_trim_refuses_windows_that_hold_nothing(store: EpisodeStore, window: tuple[str, ...]) -> None:
    before = contents(store.open(store.ids()[-1]))
    assert isinstance(run("trim", store.path, "latest", *window).exception, BadInput)
    assert contents(store.open(store.ids()[-1])) == before


def test_merge_brings_what_is_missing(store: EpisodeStore, tmp_path: Path) -> None:
    target = EpisodeStore(tmp_path / "target")
    own = write_episode(target)
    merged = run_json("merge", target.path, store.path)
    assert [row["state"] for row in merged["episodes"]] == ["copied"] * 3
    assert set(target.ids()) == {own, *store.ids()}
    assert {row["state"] for row in run_json("merge", target.path, store.path)["episodes"]} == {"there"}

    changed, other, _ = store.ids()
    run_json("tag", target.path, changed, "--add", "x")
    result = run("merge", target.path, store.path, "--move", "--json")
    assert result.exit_code == 1
    assert [row["state"] for row in json.loads(result.stdout)["episodes"]] == ["conflict", "moved", "moved"]
    assert store.ids() == [changed]
    assert other in target.ids()
    assert all(report.ok for report in verify(target))


def test_merge_of_named_episodes(store: EpisodeStore, tmp_path: Path) -> None:
    target, other = EpisodeStore(tmp_path / "target"), EpisodeStore(tmp_path / "other")
    theirs = write_episode(other)
    run_json("merge", target.path, store.path, other.path, "--id", store.ids()[1], "--id", theirs)
    assert target.ids() == sorted([store.ids()[1], theirs])
    assert isinstance(run("merge", target.path, store.path, "--id", "nobody").exception, BadInput)
    assert isinstance(run("merge", store.path, store.path).exception, BadInput)
    assert isinstance(run("merge", store.path, tmp_path / "nowhere").exception, BadInput)


def test_merge_leaves_damaged_episodes_out(store: EpisodeStore, tmp_path: Path) -> None:
    episode_id, *others = store.ids()
    (shard,) = (store.episodes_path / episode_id / "data.zarr/cameras/camera/color").glob("c*")
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    target = EpisodeStore(tmp_path / "target")
    result = run("merge", target.path, store.path, "--move")
    assert result.exit_code == 1
    assert "damaged" in result.stdout
    assert target.ids() == others
    assert store.ids() == [episode_id]


def test_migrate_tells_and_writes_only_when_asked(tmp_path: Path) -> None:
    shutil.copytree(STORED / "schema-1", tmp_path / "store")
    store = EpisodeStore(tmp_path / "store")
    told = run_json("migrate", store.path)
    assert [(row["schema"], row["migrated"]) for row in told["episodes"]] == [(1, False)] * 2
    before = [contents(episode) for episode in store.select()]
    assert "--write" in run("migrate", store.path).stdout
    written = run_json("migrate", store.path, "--write")
    assert (written["schema"], [row["migrated"] for row in written["episodes"]]) == (SCHEMA, [True] * 2)
    assert run_json("migrate", store.path)["episodes"] == []
    assert [contents(episode) for episode in store.select()] == before
    assert all(report.ok for report in verify(store))


def test_migrate_tells_damaged_episodes(store: EpisodeStore) -> None:
    (store.episodes_path / store.ids()[0] / "manifest.json").unlink()
    result = run("migrate", store.path, "--json")
    assert result.exit_code == 1
    assert [row["id"] for row in json.loads(result.stdout)["episodes"] if "error" in row] == [store.ids()[0]]

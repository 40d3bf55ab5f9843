"""Corrections are kept with the episode they are about, whole or not at all, and never change what was decided."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes.correction_page import correction_page
from embodied_vision.episodes.corrections import Target, correct, corrections
from embodied_vision.episodes.edit import change_attribute
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.geometry import yaw_of
from tests.block_world import Cell

from .samples import Child


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "store")


def test_a_correction_is_read_as_it_was_given(store: EpisodeStore) -> None:
    episode_id = Cell(store).episode([False, True])
    before = store.open(episode_id)
    digest, action = before.decisions_digest(), before.decisions.action(1)
    correct(store, episode_id, 1, None, Target(0.5, 0.1, 1.0, 0.05), who="Ada", note="the other bowl")
    after = store.open(episode_id)
    ((number, found),) = corrections(after).items()
    assert number == 1
    assert (found.who, found.how, found.note) == ("Ada", "tool", "the other bowl")
    assert np.array_equal(found.pick, action.pick)
    assert np.allclose(found.place[:3, 3], [0.5, 0.1, 0.05])
    assert yaw_of(found.place) == pytest.approx(1.0)
    assert after.decisions_digest() == digest
    assert [edit["what"] for edit in after.history] == ["attribute corrections"]
    assert all(each.ok for each in verify(store))


def test_the_last_correction_counts_and_the_former_ones_stay(store: EpisodeStore) -> None:
    episode_id = Cell(store).episode()
    for y in (0.1, 0.2):
        correct(store, episode_id, 0, Target(0.5, y, 0.0, 0.04), None, who="Ada")
    episode = store.open(episode_id)
    assert corrections(episode)[0].pick[1, 3] == pytest.approx(0.2)
    assert len(episode.attributes["corrections"]) == 2


def test_heights_follow_from_what_is_seen(store: EpisodeStore) -> None:
    """From a pick of the bare table to one on a block of 4 cm: the tip is higher by that, at both poses."""
    cell = Cell(store)
    episode_id = cell.episode([False])
    decision = store.open(episode_id).decisions[0]
    block = decision.action.pick[:3, 3]
    correct(store, episode_id, 0, Target(0.5 if block[0] > 0.6 else 0.68, 0.45, 0.0), None, who="Ada")
    beside = corrections(store.open(episode_id))[0]
    assert beside.pick[2, 3] == pytest.approx(block[2] - 0.04, abs=0.002)
    assert beside.place[2, 3] == pytest.approx(decision.action.place[2, 3] - 0.04, abs=0.002)


@pytest.mark.parametrize(
    ("pick", "place", "who", "named"),
    [
        (None, None, "Ada", "neither"),
        (Target(0.5, 0.0, 0.0), None, " ", "nobody"),
        (Target(5.0, 0.0, 0.0), None, "Ada", "5 m"),
        (Target(float("nan"), 0.0, 0.0), None, "Ada", "nan"),
        (None, Target(0.5, 0.0, float("inf")), "Ada", "yaw"),
        (None, Target(0.5, 0.0, 0.0, 9.0), "Ada", "z is 9"),
    ],
)
def test_nonsense_is_refused_and_nothing_changes(
    store: EpisodeStore, pick: Target | None, place: Target | None, who: str, named: str
) -> None:
    episode_id = Cell(store).episode()
    with pytest.raises(BadInput, match=named):
        correct(store, episode_id, 0, pick, place, who=who)
    with pytest.raises(BadInput, match="no number 2"):
        correct(store, episode_id, 1, Target(0.5, 0.0, 0.0), None, who="Ada")
    assert not store.open(episode_id).history


@pytest.mark.parametrize("text", ["", "1,2", "a,b,c", "nan,0,0", "1,2,3,4,5"])
def test_a_target_that_cannot_be_read(text: str) -> None:
    with pytest.raises(BadInput, match="--pick"):
        Target.parse(text, "--pick")


@pytest.mark.parametrize("damage", ["text", [{"decision_id": "x"}], [{"pick": [[1]]}], {"a": 1}])
def test_damaged_corrections_are_told_of(store: EpisodeStore, damage: object) -> None:
    episode_id = Cell(store).episode()
    change_attribute(store, episode_id, "corrections", lambda _: damage)
    with pytest.raises(EpisodeError, match="damaged corrections"):
        corrections(store.open(episode_id))


def test_killed_while_it_is_kept(store: EpisodeStore) -> None:
    """Killed at the swap, the episode has the correction or it has not, and the next one goes in."""
    episode_id = Cell(store).episode()

    def killed() -> None:
        from embodied_vision.episodes import edit

        edit.swap = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[attr-defined]
        correct(store, episode_id, 0, Target(0.5, 0.0, 0.0, 0.04), None, who="Ada")

    with Child(killed) as child:
        assert child.wait() == -signal.SIGKILL
    assert not corrections(store.open(episode_id))
    correct(store, episode_id, 0, Target(0.5, 0.0, 0.0, 0.04), None, who="Ada")
    assert len(corrections(store.open(episode_id))) == 1
    assert all(each.ok for each in verify(store))


def test_the_page_holds_picture_poses_and_command(store: EpisodeStore) -> None:
    episode_id = Cell(store).episode()
    page = correction_page(store.open(episode_id), 0, store.path)
    assert "@@" not in page
    data = json.loads(page[page.index("const data = ") + 13 : page.index(", now = structuredClone")])
    action = store.open(episode_id).decisions.action(0)
    assert data["poses"]["pick"][:2] == pytest.approx(action.pick[:2, 3].tolist())
    assert data["command"].endswith(f"{episode_id} 1")
    assert "data:image/png;base64,iVBOR" in page

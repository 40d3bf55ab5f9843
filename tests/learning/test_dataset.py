"""Demonstrations become examples once; the cache gives the same ones without encoding again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from policies.stubs import StubEncoder, frame

from embodied_vision import geometry
from embodied_vision.episodes.edit import change_attribute, relabel
from embodied_vision.episodes.schema import DECISIONS_BEGUN
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.trim import trim_stamps
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput
from embodied_vision.learning.dataset import Dataset, load_dataset, load_decisions, teaching_ids
from embodied_vision.types import Features, PickPlace, Workspace

TASK = "block-insertion"


class Counting(StubEncoder):
    """Knows how often it was asked."""

    calls = 0

    def encode(self, color: np.ndarray, stamp_ns: int = 0) -> Features:
        self.calls += 1
        return super().encode(color, stamp_ns)


def log_episode(store: EpisodeStore, seed: int, decisions: int = 2) -> str:
    shot = frame(seed)
    writer = EpisodeWriter(store, task=TASK, robot="panda_suction", cameras=[shot.camera], attributes={"seed": seed})
    for _ in range(decisions):
        action = PickPlace(
            geometry.tool_down(0.5, 0.1, 0.05), geometry.tool_down(0.45, -0.2, 0.06, 0.4), stamp_ns=shot.stamp_ns
        )
        writer.append_decision(action, [shot])
    return writer.close({"reward": 1.0, "solved": True})


def log_refusals(store: EpisodeStore, begun: Sequence[int] | None, spoilt: Sequence[int] = ()) -> str:
    """A solved episode of three decisions, of which the arm began some; None where none was heard."""
    shot = frame(4)
    pick = geometry.tool_down(0.5, 0.1, 0.05)
    actions = [
        PickPlace(
            pick,
            geometry.tool_down(np.nan if number in spoilt else 0.45, -0.2 + 0.1 * number, 0.06),
            stamp_ns=shot.stamp_ns,
        )
        for number in range(3)
    ]
    told = {} if begun is None else {DECISIONS_BEGUN: [actions[number].decision_id for number in begun]}
    writer = EpisodeWriter(store, task=TASK, robot="panda_suction", cameras=[shot.camera], attributes=told)
    for action in actions:
        writer.append_decision(action, [shot])
    return writer.close({"reward": 1.0, "solved": True})


def load(store: EpisodeStore, encoder: StubEncoder) -> Dataset:
    return load_dataset(store, TASK, encoder, Workspace(), episode_ids=teaching_ids(store, TASK))


def test_the_cache_gives_the_same_examples_without_encoding_again(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    ids = [log_episode(store, seed) for seed in (4, 9)]
    encoder = Counting()
    first, second = load(store, encoder), load(store, encoder)
    assert encoder.calls == 4
    assert (list(first.episode_ids), list(first.scene_seeds), len(first)) == (ids, [4, 9], 4)
    for a, b in zip(first.examples, second.examples, strict=True):
        assert a.source == b.source
        for name in ("color", "height", "valid", "features"):
            assert np.array_equal(getattr(a.scene, name), getattr(b.scene, name))
        assert np.array_equal(a.place, b.place)
    assert first.digest() == second.digest()


def test_decisions_that_were_cut_are_not_taken_from_the_cache(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    shot = frame(4)
    pick, place = geometry.tool_down(0.5, 0.1, 0.05), geometry.tool_down(0.45, -0.2, 0.06, 0.4)
    with EpisodeWriter(store, task=TASK, robot="panda_suction", cameras=[shot.camera]) as writer:
        for number in range(3):
            writer.append_decision(PickPlace(pick, place, stamp_ns=shot.stamp_ns + number), [shot])
        episode_id = writer.close({"reward": 1.0, "solved": True})
    encoder = Counting()
    assert len(load(store, encoder)) == 3
    relabel(store, episode_id, {"reward": 0.995})
    assert len(load(store, encoder)) == 3
    assert encoder.calls == 3
    assert trim_stamps(store, episode_id, shot.stamp_ns + 1)
    assert len(load(store, encoder)) == 2


def test_another_encoder_has_a_cache_of_its_own(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    log_episode(store, 4, decisions=1)
    load(store, StubEncoder())
    other = Counting()
    other.encoder_id = "stub-2"
    load(store, other)
    assert other.calls == 1


def test_features_are_normalised_over_seen_cells(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    log_episode(store, 4, decisions=1)
    data = load(store, StubEncoder())
    scene, normal = data.examples[0].scene, data.normalisation()
    assert scene.features is not None
    seen = (scene.features[scene.valid].astype(np.float32) - normal.mean) / normal.std
    assert np.abs(seen.mean(0)).max() < 0.1
    assert np.abs(seen.std(0) - 1).max() < 0.1


def test_held_out_scenes_and_empty_stores_give_nothing_to_learn_from(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    log_episode(store, 2_000_000)
    assert teaching_ids(store, TASK) == []
    with pytest.raises(BadInput, match="embodied-vision collect"):
        load(store, StubEncoder())


def test_what_the_arm_never_began_is_no_demonstration(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    told, silent = log_refusals(store, [0, 2]), log_refusals(store, None)
    data = load(store, StubEncoder())
    assert [e.source for e in data.examples] == [f"{told}/0", f"{told}/2", *(f"{silent}/{n}" for n in range(3))]
    assert data.left_out == 1
    assert list(data.episode_ids) == [told, silent]
    # Where the refused one should have gone is no place of the others.
    assert np.allclose(data.examples[0].elsewhere, [data.examples[1].place])
    every = load_decisions(store, store.open(told), StubEncoder(), Workspace())
    assert {number: example.source for number, example in every.items()} == {n: f"{told}/{n}" for n in range(3)}


def test_what_the_arm_began_is_asked_of_the_episode_and_not_of_the_cache(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = log_refusals(store, None)
    assert load(store, StubEncoder()).left_out == 0
    first = store.open(episode_id).decisions.action(0).decision_id
    change_attribute(store, episode_id, DECISIONS_BEGUN, lambda _: [first])
    assert (len(load(store, StubEncoder())), load(store, StubEncoder()).left_out) == (1, 2)


def test_an_episode_that_the_arm_had_no_part_in_teaches_nothing(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    idle = log_refusals(store, [])
    assert teaching_ids(store, TASK) == []
    with pytest.raises(BadInput, match=r"a decision that the arm began \(3 were never begun\)"):
        load_dataset(store, TASK, None, Workspace(), episode_ids=[idle])


def test_what_the_arm_refused_may_be_no_number(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    log_refusals(store, [0, 2], spoilt=[1])
    data = load(store, StubEncoder())
    assert (len(data), data.left_out) == (2, 1)
    assert all(np.isfinite(example.place).all() for example in data.examples)

"""What the gate judges by is counted as it happened: logged episodes decided again, rules that were broken, cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from policies.stubs import TINY, StubEncoder, frame, random_checkpoint

from embodied_vision import geometry
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.learning.gate_evidence import Reader, broken_rules, cost, held_out_of_both, logged, simulated
from embodied_vision.learning.scene_results import SceneResult
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.types import PickPlace, Workspace

TASK = "block-insertion"


def log(store: EpisodeStore, reader: Reader, seed: int, **outcome: Any) -> str:
    """An episode in which a policy decided once."""
    shot = frame(seed)
    writer = EpisodeWriter(store, task=TASK, robot="panda_suction", cameras=[shot.camera])
    writer.append_decision(reader.policy.decide([shot], []), [shot])
    return writer.close(outcome)


@pytest.fixture
def readers(tmp_path: Path) -> list[Reader]:
    """Two policies that decide differently."""
    for seed in (1, 5):
        checkpoints.save(random_checkpoint("", seed=seed, config=TINY), tmp_path / str(seed))
    return [Reader.load(tmp_path / str(seed), StubEncoder()) for seed in (1, 5)]


def test_who_repeats_a_success_is_right_and_nobody_is_where_it_failed(readers: list[Reader], tmp_path: Path) -> None:
    acting, other = readers
    store = EpisodeStore(tmp_path / "store")
    ids = [log(store, acting, seed, reward=reward, solved=reward > 0.5) for seed, reward in enumerate((1.0, 1.0, 0.0))]
    unknown = log(store, acting, 7)
    broken_off = log(store, acting, 8, reward=1.0, solved=False, aborted=True)
    done: list[str] = []
    pairs, broken = logged(TASK, store, [*ids, unknown, broken_off], other, acting, done.append)
    assert pairs is not None
    assert (list(pairs.names), done, broken) == (ids, ids, [])
    assert list(pairs.baseline) == [True, True, False]
    assert not any(pairs.candidate)
    again, _ = logged(TASK, store, ids, acting, acting)
    assert again is not None
    assert list(again.candidate) == [True, True, False]
    assert logged(TASK, store, [unknown], other, acting) == (None, [])


def test_what_either_learnt_from_is_not_held_out(readers: list[Reader]) -> None:
    learnt = replace(readers[0].policy.checkpoint, training={"episodes": ["b"]})
    readers[0].policy.checkpoint = learnt
    assert held_out_of_both(["a", "b", "c"], *(reader.policy for reader in readers)) == ["a", "c"]


def test_rules_that_a_candidate_broke_in_simulation() -> None:
    inside = geometry.tool_down(0.5, 0.0, 0.0)
    good = PickPlace(inside, inside).to_dict()
    far = PickPlace(inside, geometry.tool_down(0.5, 0.9, 0.0)).to_dict()
    plain = [SceneResult(seed, 1.0, True, 1, actions=[good]) for seed in range(3)]
    assert broken_rules(plain, plain, Workspace()) == []
    refused = [replace(plain[0], refused=["joint_limit"]), *plain[1:]]
    assert broken_rules(refused, refused, Workspace()) == []
    assert broken_rules(refused, plain, Workspace())[0].startswith("the guard refused actions of the candidate in 1")
    wild = [replace(result, actions=[far]) for result in plain]
    (words,) = broken_rules(wild, plain, Workspace())
    assert words == (
        "candidate scene 0: place at y = 0.900 m lies outside the workspace, -0.512 to 0.512 m, and 2 more"
    )


def test_scenes_become_pairs() -> None:
    ours, theirs = ([SceneResult(9, reward, reward == 1, 1)] for reward in (0.5, 1.0))
    pairs = simulated(TASK, ours, theirs, is_new=False)
    assert (pairs.names, pairs.candidate, pairs.baseline) == (["9"], [False], [True])
    assert (pairs.candidate_score, pairs.is_new) == ([0.5], False)


def test_cost_is_measured_in_turns(readers: list[Reader], tmp_path: Path) -> None:
    ours, theirs = cost(tmp_path / "1", tmp_path / "5", None, None)
    assert ours.size_bytes == theirs.size_bytes == (tmp_path / "1" / "model.safetensors").stat().st_size
    assert 0.2 < ours.decision_ms / theirs.decision_ms < 5

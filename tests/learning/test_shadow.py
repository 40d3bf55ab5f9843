"""A candidate in the shadow decides on the same frames, changes nothing, and what differs counts against it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from policies.stubs import TINY, frame, random_checkpoint
from policies.synthetic import insertion

from embodied_vision import geometry
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import CheckpointError
from embodied_vision.learning import shadow
from embodied_vision.learning.gate_evidence import outside, same_action
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.shadow import Shadow
from embodied_vision.policies.policy import Policy
from embodied_vision.types import PickPlace, Workspace

TASK = "block-insertion"


@pytest.fixture
def pointer(tmp_path: Path) -> Pointer:
    """A policy in use; its own candidate decides exactly alike, another one does not."""
    pointer = Pointer(tmp_path / "policies", TASK)
    pointer.promote(pointer.add(random_checkpoint("", seed=1, config=TINY)).name, "start")
    return pointer


def ran(pointer: Pointer, store: EpisodeStore, candidate: Path, *solved: bool) -> list[bool]:
    """Episodes of one decision each, with a candidate in the shadow; whether it would have done the same."""
    assert pointer.current is not None
    acting = Policy.load(pointer.path(pointer.current), None)
    beside, same = Shadow(candidate, None), []
    for seed, outcome in enumerate(solved):
        shot = frame(seed)
        made = acting.explain([shot], [])
        same.append(beside.follow(made, pointer.current, (shot,), ()).same)
        writer = EpisodeWriter(
            store, task=TASK, robot="panda_suction", cameras=[shot.camera], policy_id=pointer.current
        )
        writer.append_decision(made.action, [shot])
        writer.close({"reward": float(outcome), "solved": outcome})
    return same


def test_what_is_the_same_shares_the_outcome(pointer: Pointer, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    assert pointer.current is not None
    assert ran(pointer, store, pointer.path(pointer.current), True, False, True) == [True, True, True]
    pairs = shadow.pairs(pointer, pointer.current, store)
    assert pairs is not None
    assert (pairs.candidate, pairs.baseline) == ([True, False, True], [True, False, True])
    figures = shadow.summary(pointer, pointer.current, store)
    assert (figures.decisions, figures.same, figures.solved, figures.solved_same, figures.failed) == (3, 3, 2, 2, 1)
    assert pointer.current == Pointer(pointer.folder.parent, TASK).current


def test_what_differs_counts_as_a_failure_whatever_came_of_the_other(pointer: Pointer, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    other = pointer.add(random_checkpoint("", seed=5, config=TINY))
    same = ran(pointer, store, other, True, False, True)
    assert not all(same)
    pairs = shadow.pairs(pointer, other.name, store)
    assert pairs is not None
    assert pairs.candidate == [ours and theirs for ours, theirs in zip(same, pairs.baseline, strict=True)]


def test_a_candidate_that_computes_nonsense_is_logged_and_refused_later(pointer: Pointer, tmp_path: Path) -> None:
    good = random_checkpoint("", seed=6, config=TINY)
    weights = {name: value * np.nan for name, value in good.weights.items()}
    bad = pointer.add(replace(good, weights=weights))
    assert ran(pointer, EpisodeStore(tmp_path / "store"), bad, True) == [False]
    assert shadow.problems(pointer, bad.name)[0].startswith("in the shadow of decision")


def test_one_of_another_encoder_is_refused(pointer: Pointer) -> None:
    with pytest.raises(CheckpointError, match="stub-1"):
        Shadow(pointer.add(random_checkpoint("stub-1")), None)


def test_the_log_lies_among_the_policies_or_beside_the_candidate(tmp_path: Path) -> None:
    assert shadow.log_path(tmp_path / "stack/checkpoints/abc") == tmp_path / "stack/shadow/abc.jsonl"
    assert shadow.log_path(tmp_path / "abc") == tmp_path / "abc.shadow.jsonl"


def test_the_same_object_to_the_same_place_is_the_same_action_wherever_it_is_picked() -> None:
    scene, action = insertion(np.random.default_rng(0))
    again = replace(action, scores={"pick": 0.5})
    assert same_action(scene, action, again)
    beside = geometry.tool_down(*(action.place[:2, 3] + [0.05, 0.0]), float(action.place[2, 3]))
    assert not same_action(scene, action, replace(action, place=beside))
    elsewhere = PickPlace(geometry.tool_down(0.3, 0.45, 0.0), action.place)
    assert not same_action(scene, action, elsewhere)
    assert not same_action(scene, action, replace(action, primitive="push"))
    assert same_action(scene, replace(action, primitive="push"), replace(action, primitive="push"))


def test_actions_outside_of_the_workspace_are_told() -> None:
    far = PickPlace(geometry.tool_down(2.0, 0.0, 0.0), geometry.tool_down(0.5, 0.0, 0.0))
    assert outside(far, Workspace()).startswith("pick at x = 2.000 m lies outside")
    assert outside(replace(far, pick=far.place * np.nan), Workspace()) == "an action is not finite"
    assert outside(replace(far, pick=far.place), Workspace()) == ""

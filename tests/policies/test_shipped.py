"""The checkpoints that ship fit the shipped encoder, say what they are, and place right."""

from __future__ import annotations

import pytest

from embodied_vision.encoders.registry import load_encoder
from embodied_vision.learning.evaluate import evaluate, split_seeds
from embodied_vision.learning.grasp_evaluate import TASK, GraspConditions, evaluate_grasps
from embodied_vision.paths import shipped
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies import grasp_checkpoint
from embodied_vision.policies.policy import Policy

TASKS = ["block-insertion", "place-red-in-green"]


@pytest.mark.parametrize("task", TASKS)
def test_it_loads_and_says_where_it_comes_from(task: str) -> None:
    folder = shipped(task)
    policy = Policy.load(folder, load_encoder("default"))
    assert policy.task == task
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    manifest = checkpoints.read_manifest(folder)
    assert 0 < manifest["training"]["demos"] <= 100
    assert manifest["training"]["minutes"] > 0
    measured = manifest["measured"]["test"]
    assert measured["seeds"][0] >= 2_000_000
    assert f"{measured['score']:.1f}" in (folder / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("task", "least"), [("block-insertion", 4), ("place-red-in-green", 3)])
def test_it_places_right_on_validation_scenes(task: str, least: int) -> None:
    results = evaluate(task, shipped(task), split_seeds("validation", 4))
    assert sum(result.solved for result in results) >= least


def test_the_grasp_policy_says_where_it_comes_from() -> None:
    manifest = grasp_checkpoint.read_manifest(shipped(TASK))
    assert 0 < manifest["training"]["attempts"] <= 20_000
    for in_bin in (1, 5):
        assert manifest["measured"][f"test, {in_bin} in the bin"]["seeds"][0] >= 2_000_000


@pytest.mark.parametrize("in_bin", [1, 5])
def test_it_lifts_in_validation_scenes(in_bin: int) -> None:
    results = evaluate_grasps(shipped(TASK), split_seeds("validation", 6), GraspConditions(in_bin))
    assert sum(result.solved for result in results) >= 5

"""One head for many tasks: each task's policy is an ordinary one, and shares its trunk with the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from learning.continual.worlds import TINY, dataset, empty_head

from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning.continual.shared import SharedHead, TaskSettings
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.networks import PolicyNetwork
from embodied_vision.policies.policy import Policy


def head_of(*tasks: str) -> SharedHead:
    head = empty_head()
    for task in tasks:
        head.add(task, TaskSettings.of(dataset(task, 2)))
    return head


def test_a_task_s_policy_is_an_ordinary_checkpoint_that_decides(tmp_path: Path) -> None:
    data = dataset("insert", 2)
    head = head_of("insert", "aside")
    checkpoint = head.checkpoint("insert", {"method": "none"})
    checkpoints.save(checkpoint, tmp_path / "policy")
    policy = Policy(checkpoints.load(tmp_path / "policy"), None)
    assert policy.checkpoint_id == checkpoint.checkpoint_id
    assert policy.explain_scene(data.examples[0].scene).action.primitive == "pick_place"
    fresh = PolicyNetwork.seeded(TINY, 0).state_dict()
    assert checkpoint.weights.keys() == fresh.keys()
    assert all(torch.equal(checkpoint.weights[name], value) for name, value in fresh.items())
    assert list(checkpoint.training["episodes"]) == ["insert-0"]


def test_tasks_share_the_trunk_and_nothing_else() -> None:
    head = head_of("insert", "aside")
    before = head.checkpoint("aside", {}).weights
    for stage in ("coarse", "fine"):
        with torch.no_grad():
            for parameter in head.stage(stage).own["insert"].parameters():
                parameter.add_(1.0)
    own = head.checkpoint("aside", {}).weights
    assert all(torch.equal(own[name], value) for name, value in before.items())
    changed = head.checkpoint("insert", {}).weights
    names = {name for name in before if not torch.equal(changed[name], before[name])}
    assert {"coarse.readout.weight", "coarse.trunk.head.weight", "fine.key_net.head.bias"} <= names
    assert not any(name.endswith(".0.weight") or ".3." in name for name in names)  # convolutions
    with torch.no_grad():
        for parameter in head.stage("coarse").shared_parameters().values():
            parameter.add_(1.0)
    name = "coarse.trunk.down.0.0.weight"
    for task in head.tasks:
        assert torch.equal(head.checkpoint(task, {}).weights[name], before[name] + 1)


def test_a_copy_is_one_of_its_own_and_what_is_saved_comes_back(tmp_path: Path) -> None:
    head = head_of("insert", "aside.2")
    head.memory["coarse.x"] = torch.arange(3)
    copy = head.copy()
    with torch.no_grad():
        next(iter(head.stage("fine").shared_parameters().values())).add_(1.0)
    assert any(not torch.equal(a, b) for a, b in zip(head.weights().values(), copy.weights().values(), strict=True))
    copy.save(tmp_path / "head")
    again = SharedHead.read(tmp_path / "head")
    assert list(again.tasks) == ["insert", "aside.2"]
    assert all(torch.equal(again.weights()[name], value) for name, value in copy.weights().items())
    assert torch.equal(again.memory["coarse.x"], torch.arange(3))
    for task in again.tasks:
        assert again.checkpoint(task, {}).checkpoint_id == copy.checkpoint(task, {}).checkpoint_id
    assert np.array_equal(again.tasks["insert"].normalisation.mean, copy.tasks["insert"].normalisation.mean)


def test_an_unknown_task_and_a_damaged_head_are_told(tmp_path: Path) -> None:
    head = head_of("insert")
    with pytest.raises(BadInput, match="has not learnt 'fold'; it knows insert"):
        head.checkpoint("fold", {})
    head.save(tmp_path / "head")
    weights = tmp_path / "head" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError):
        SharedHead.read(tmp_path / "head")
    head.save(tmp_path / "other")
    path = tmp_path / "other" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tasks": {"insert": {}}}))
    with pytest.raises(CheckpointError, match="incomplete"):
        SharedHead.read(tmp_path / "other")


def test_a_new_task_may_start_from_what_another_has_of_its_own() -> None:
    head = head_of("insert")
    with torch.no_grad():
        for parameter in head.stage("coarse").own["insert"].parameters():
            parameter.add_(0.5)
    head.add("aside", TaskSettings.of(dataset("aside", 2)), like="insert")
    a, b = (head.checkpoint(task, {}).weights for task in ("insert", "aside"))
    assert all(torch.equal(a[name], b[name]) for name in a)

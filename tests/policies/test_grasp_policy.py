"""A grasp policy decides the same wherever its folder lies, and refuses what it cannot read or reach."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import BadInput, CheckpointError, Refused
from embodied_vision.policies import grasp_checkpoint
from embodied_vision.policies.grasp_maps import BIN, BORDER_M
from embodied_vision.policies.grasp_network import GraspConfig
from embodied_vision.policies.grasp_policy import GraspPolicy
from embodied_vision.types import RGBD, Features
from policies import grasp_world
from policies.grasp_world import MIDDLE, TINY, bar, random_checkpoint
from policies.stubs import DIMENSION, StubEncoder, frame

WITHOUT_SIMULATOR = """
import json, sys
sys.modules["pybullet"] = sys.modules["embodied_vision_sim"] = None
import numpy as np
from embodied_vision.policies.grasp_policy import GraspPolicy
from policies.stubs import frame
action = GraspPolicy.load(sys.argv[1], None).decide([frame()], [])
print(json.dumps(action.to_dict()))
"""


def test_a_moved_folder_gives_the_same_grasp_without_the_simulator(tmp_path: Path) -> None:
    checkpoint = random_checkpoint()
    here = GraspPolicy(checkpoint, None).decide([frame()], [])
    grasp_checkpoint.save(checkpoint, tmp_path / "made" / "grasps")
    shutil.move(tmp_path / "made" / "grasps", tmp_path / "elsewhere")
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_SIMULATOR, str(tmp_path / "elsewhere")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    there = json.loads(run.stdout)
    assert there["pick"] == here.pick.tolist()
    assert there["place"] == here.place.tolist()
    assert there["scores"] == here.scores
    assert there["primitive"] == "grasp"
    assert there["stamp_ns"] == 1234


def test_features_reach_the_network_and_must_be_those_of_the_checkpoint() -> None:
    config = GraspConfig(features=DIMENSION, widths=TINY.widths, angles=TINY.angles)
    encoder, shot = StubEncoder(), frame()
    policy = GraspPolicy(random_checkpoint(encoder_id="stub-1", config=config), encoder)
    features = encoder.encode(shot.color, shot.stamp_ns)
    found = policy.judge([shot], [features])
    other = Features(features.grid[::-1].copy(), features.stride, "stub-1", "numpy", shot.stamp_ns)
    possible = np.isfinite(found.logits)
    assert not np.allclose(policy.judge([shot], [other]).logits[possible], found.logits[possible])
    with pytest.raises(BadInput, match=r"stub-2.*stub-1"):
        policy.judge([shot], [Features(features.grid, features.stride, "stub-2", "numpy", shot.stamp_ns)])
    with pytest.raises(BadInput, match="0 feature channels"):
        policy.judge([shot], [])
    features.grid[2, 3, 0] = np.nan
    with pytest.raises(BadInput, match="not finite"):
        policy.judge([shot], [Features(np.full_like(features.grid, np.nan), (8.0, 8.0), "stub-1", "numpy", 1234)])
    with pytest.raises(CheckpointError, match=r"stub-1.*none"):
        GraspPolicy(random_checkpoint(encoder_id="stub-1", config=config), None)


def test_blind_cameras_and_empty_bins_are_refused() -> None:
    policy, shot = GraspPolicy(random_checkpoint(), None), frame()
    with pytest.raises(BadInput, match="no camera sees"):
        policy.decide([RGBD(shot.color, np.zeros_like(shot.depth), shot.camera, 1)], [])
    shot.depth[100:120, 200:220] += 0.05  # the only object that the frame shows
    with pytest.raises(Refused, match="no_grasp"):
        policy.decide([shot], [])


def test_the_tip_keeps_off_the_floor_and_the_walls() -> None:
    policy = GraspPolicy(random_checkpoint(), None)
    found = policy.judge_scene(bar(MIDDLE + np.array([0.11, 0.12]), 0.4, 0.03))
    assert np.isfinite(found.logits).any()
    for action in policy.proposals(found, 30) + policy.samples(found, 30, np.random.default_rng(0)):
        x, y, z = action.pick[:3, 3]
        assert BIN.x[0] + BORDER_M <= x <= BIN.x[1] - BORDER_M
        assert BIN.y[0] + BORDER_M <= y <= BIN.y[1] - BORDER_M
        assert z >= policy.checkpoint.floor_m
        assert z <= 0.03 - 0.004
        assert 0 < action.scores["grasp"] < 1


def test_walls_are_nothing_to_grip() -> None:
    scene, policy = bar(MIDDLE, 0.4, 0.0), GraspPolicy(random_checkpoint(), None)
    scene.height[:5], scene.height[:, :5], scene.height[-5:], scene.height[:, -5:] = 0.06, 0.06, 0.06, 0.06
    assert policy.proposals(policy.judge_scene(scene), 3) == []


def test_proposals_are_ordered_and_lie_apart() -> None:
    policy = GraspPolicy(random_checkpoint(), None)
    actions = policy.proposals(policy.judge_scene(bar(MIDDLE, 0.4)), 12)
    scores = [action.scores["grasp"] for action in actions]
    assert len(actions) == 12
    assert scores == sorted(scores, reverse=True)
    poses = {action.pick.round(6).tobytes() for action in actions}
    assert len(poses) == 12


def test_what_the_arm_does_not_reach_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    robot = RobotModel.load("panda_parallel_jaw")
    policy = GraspPolicy(random_checkpoint(), None, robot)
    scene = bar(MIDDLE, 0.4)
    first, second = policy.proposals(policy.judge_scene(scene), 2)
    monkeypatch.setattr("embodied_vision.policies.grasp_maps.fuse", lambda *_: scene)
    assert policy.decide([], []).pick.tobytes() == first.pick.tobytes()
    refused = Refused("unreachable", "tip", 0, 1, "move it nearer")

    def plan(robot: RobotModel, q: np.ndarray, action: object) -> None:
        if action.pick.tobytes() == first.pick.tobytes():  # type: ignore[attr-defined]
            raise refused

    monkeypatch.setattr("embodied_vision.policies.grasp_policy.plan", plan)
    assert policy.decide([], []).pick.tobytes() == second.pick.tobytes()


def test_the_world_of_these_tests_can_be_learnt_from() -> None:
    scene = grasp_world.labelled(0)
    assert 2 <= scene.success.sum() < len(scene.success)

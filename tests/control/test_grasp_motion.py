"""A grasp opens above, comes straight down, closes, lifts straight up, and gives the fingers their time."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import CLOSED, OPEN, plan
from embodied_vision.control.robot import RobotModel
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace


@pytest.mark.parametrize("name", ["panda_parallel_jaw", "kuka_iiwa_parallel_jaw"])
@pytest.mark.parametrize("yaw", [-1.5, 0.0, 0.7, 2.5])
def test_a_grasp_goes_straight_down_and_up(name: str, yaw: float) -> None:
    model = RobotModel.load(name)
    pick, raised = tool_down(0.5, 0.1, 0.02, yaw), tool_down(0.5, 0.1, 0.24, yaw)
    motion = plan(model, model.home, PickPlace(pick=pick, place=raised, primitive="grasp"))
    Guard(model).check_motion(motion, model.home, 0, 0)
    assert [(s.name, s.gripper) for s in motion.segments] == [
        ("approach", OPEN),
        ("descend_grasp", CLOSED),
        ("lift_grasp", None),
    ]
    approach, descend, lift = motion.segments
    assert min(approach.dwell_s, descend.dwell_s) >= model.gripper_s > 0
    assert lift.dwell_s > 0
    for segment, goal in ((descend, pick), (lift, raised)):
        reached = model.forward(segment.trajectory.positions[-1])
        np.testing.assert_allclose(reached[:3, 3], goal[:3, 3], atol=1e-5)
        # The fingers lie along the decided axis; half a turn changes nothing for a jaw.
        assert abs(reached[:3, 1] @ goal[:3, 1]) == pytest.approx(1, abs=1e-6)
        way = np.array([model.forward(q)[:2, 3] for q in segment.trajectory.positions])
        assert np.abs(way - (0.5, 0.1)).max() < 0.002

"""Inverse kinematics finds what is there, follows its seed, and refuses the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import Refused
from embodied_vision.geometry import tool_down
from tests.control.samples import MODEL

unit = st.floats(0.05, 0.95)


@settings(max_examples=40, deadline=None)
@given(st.lists(unit, min_size=7, max_size=7), st.lists(st.floats(-0.1, 0.1), min_size=7, max_size=7))
def test_a_pose_of_the_arm_is_found_again_from_near(share: list[float], off: list[float]) -> None:
    limits = MODEL.limits
    q = limits.lower + np.array(share) * (limits.upper - limits.lower)
    goal = MODEL.forward(q)
    found = MODEL.inverse(goal, np.clip(q + off, limits.lower, limits.upper))
    np.testing.assert_allclose(MODEL.forward(found), goal, atol=1e-5)
    assert (found >= limits.lower).all()
    assert (found <= limits.upper).all()


def test_solutions_continue_smoothly_from_their_seed(model: RobotModel) -> None:
    q = model.inverse(tool_down(0.5, -0.4, 0.1), model.home)
    for y in np.linspace(-0.4, 0.4, 81):
        following = model.inverse(tool_down(0.5, y, 0.1), q)
        assert np.abs(following - q).max() < 0.06
        q = following


def test_the_same_pose_gives_the_same_elbow_wherever_one_comes_from(model: RobotModel) -> None:
    goal = tool_down(0.5, 0.2, 0.1)
    from_home = model.inverse(goal, model.home)
    around = model.inverse(goal, model.inverse(tool_down(0.4, -0.4, 0.2), model.home))
    np.testing.assert_allclose(from_home, around, atol=1e-3)
    assert abs(from_home[2]) < 1e-3


@pytest.mark.parametrize("pose", [tool_down(0.756, 0.512, 0.05), tool_down(0.5, 0.0, 2.0), tool_down(0.0, 0.0, 0.3)])
def test_out_of_reach_is_refused_with_the_pose(model: RobotModel, pose: np.ndarray) -> None:
    with pytest.raises(Refused, match=str(round(float(pose[2, 3]), 4))) as refusal:
        model.inverse(pose, model.home)
    assert refusal.value.rule == "unreachable"

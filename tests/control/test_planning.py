"""Planned motion is straight where it says so, starts and ends at rest, and respects limits and speed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.control.planning import Pace, plan_joint, plan_line
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import BadInput, Refused
from embodied_vision.geometry import tool_down
from tests.control.samples import MODEL

shares = st.lists(st.floats(0.02, 0.98), min_size=7, max_size=7)


def at(share: list[float]) -> np.ndarray:
    return MODEL.limits.lower + np.array(share) * (MODEL.limits.upper - MODEL.limits.lower)


def assert_within_limits(trajectory: Trajectory) -> None:
    limits = MODEL.limits
    assert (trajectory.positions >= limits.lower).all()
    assert (trajectory.positions <= limits.upper).all()
    fine = np.linspace(0.0, trajectory.duration, 2000)
    _, velocity, acceleration = trajectory.sample_many(fine)
    assert (np.abs(velocity) <= limits.velocity).all()
    assert (np.abs(acceleration) <= limits.acceleration).all()
    jerk = np.diff(trajectory.accelerations, axis=0) / np.diff(trajectory.times_s)[:, None]
    assert (np.abs(jerk) <= limits.jerk).all()


@settings(max_examples=30, deadline=None)
@given(shares, shares, st.floats(0.1, 1.0))
def test_joint_motion_is_a_straight_line_from_rest_to_rest_within_limits(
    first: list[float], last: list[float], speed: float
) -> None:
    q0, q1 = at(first), at(last)
    trajectory = plan_joint(MODEL, q0, q1, Pace(speed=speed))
    np.testing.assert_allclose(trajectory.positions[[0, -1]], [q0, q1], atol=1e-9)
    np.testing.assert_allclose(trajectory.velocities[[0, -1]], 0.0, atol=1e-9)
    assert_within_limits(trajectory)
    way = q1 - q0
    if np.linalg.norm(way) > 1e-6:
        along = (trajectory.positions - q0) @ way / (way @ way)
        np.testing.assert_allclose(trajectory.positions, q0 + along[:, None] * way, atol=1e-9)


@pytest.mark.parametrize(("x", "y", "rise"), [(0.5, 0.2, 0.2), (0.32, 0.0, 0.19), (0.6, 0.45, 0.1), (0.75, 0.1, 0.2)])
def test_the_tip_stays_on_the_straight_line(model: RobotModel, x: float, y: float, rise: float) -> None:
    q0 = model.inverse(tool_down(x, y, 0.01, 0.3), model.home)
    start = model.forward(q0)
    goal = start.copy()
    goal[2, 3] += rise
    trajectory = plan_line(model, q0, goal)
    np.testing.assert_allclose(model.forward(trajectory.positions[-1]), goal, atol=1e-5)
    assert_within_limits(trajectory)
    for q in trajectory.sample_many(np.linspace(0.0, trajectory.duration, 100))[0]:
        pose = model.forward(q)
        np.testing.assert_allclose(pose[:2, 3], start[:2, 3], atol=3e-4)
        np.testing.assert_allclose(pose[:3, :3], start[:3, :3], atol=1e-3)


def test_a_line_turns_the_tool_evenly(model: RobotModel) -> None:
    q0 = model.inverse(tool_down(0.5, 0.0, 0.1, 0.0), model.home)
    trajectory = plan_line(model, q0, tool_down(0.5, 0.1, 0.2, 1.0))
    np.testing.assert_allclose(model.forward(trajectory.positions[-1]), tool_down(0.5, 0.1, 0.2, 1.0), atol=1e-5)
    assert_within_limits(trajectory)


def test_half_the_speed_takes_twice_as_long(model: RobotModel) -> None:
    q1 = model.home + 0.5
    goal = model.forward(model.home)
    goal[2, 3] -= 0.2
    for plan in (
        lambda pace: plan_joint(model, model.home, q1, pace),
        lambda pace: plan_line(model, model.home, goal, pace),
    ):
        assert plan(Pace(speed=0.5)).duration == pytest.approx(2 * plan(Pace()).duration, rel=1e-3)


def test_no_way_to_go_is_a_short_rest(model: RobotModel) -> None:
    for trajectory in (
        plan_joint(model, model.home, model.home),
        plan_line(model, model.home, model.forward(model.home)),
    ):
        np.testing.assert_array_equal(trajectory.positions, [model.home] * 2)
        assert trajectory.duration > 0


def test_goals_outside_are_refused(model: RobotModel) -> None:
    q1 = model.home.copy()
    q1[3] = 0.5
    with pytest.raises(Refused, match="panda_joint4") as refusal:
        plan_joint(model, model.home, q1)
    assert refusal.value.rule == "position_limit"
    with pytest.raises(Refused) as refusal:
        plan_line(model, model.home, tool_down(0.3, 0.0, 1.6))
    assert refusal.value.rule == "unreachable"


@pytest.mark.parametrize("pace", [{"speed": 0.0}, {"speed": 1.5}, {"acceleration": float("nan")}, {"ramp_s": 0.0}])
def test_an_impossible_pace_is_named(pace: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(pace))):
        Pace(**pace)


def test_a_line_through_a_singular_place_is_refused_and_joint_motion_is_not() -> None:
    """The wrist is in line where joint 6 is at zero: joints 5 and 7 turn about one axis."""
    model = RobotModel.load("ur5e_suction")
    inline = np.array([0.3, -1.8, 1.8, -1.5, -0.005, 0.0])
    goal = model.forward(inline)
    goal[:3, 3] += 0.1 * goal[:3, 1]
    with pytest.raises(Refused) as refusal:
        plan_line(model, inline, goal)
    assert refusal.value.rule == "singular"
    assert "smallest singular value" in str(refusal.value.value)
    assert plan_joint(model, model.home, inline).duration > 0


@pytest.mark.parametrize("share", [1.0, 0.1, 0.02])
def test_a_line_keeps_to_low_jerk_limits(share: float) -> None:
    limits = replace(MODEL.limits, jerk=MODEL.limits.jerk * share)
    model = replace(MODEL, limits=limits)
    q0 = model.inverse(tool_down(0.45, -0.2, 0.2), model.home)
    line = plan_line(model, q0, tool_down(0.55, 0.25, 0.1, 0.8))
    jerk = np.abs(np.diff(line.accelerations, axis=0)) / np.diff(line.times_s)[:, None]
    assert (jerk <= limits.jerk * 1.001).all()

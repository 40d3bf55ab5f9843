"""A decision within reach becomes a complete, guarded motion that keeps the object's way exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import CLOSED, OPEN, Motion, MotionSettings, plan_home, plan_pick_place
from embodied_vision.control.planning import Pace
from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import BadInput, Refused
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace
from tests.control.samples import MODEL, WORKSPACE, actions, within_reach


def segment_end(model: RobotModel, motion: Motion, name: str) -> np.ndarray:
    return next(model.forward(s.trajectory.positions[-1]) for s in motion.segments if s.name == name)


def assert_carries_out(model: RobotModel, motion: Motion, action: PickPlace) -> None:
    """Tip at both points, straight down, the object's turn as decided; rest to rest; every sample guarded."""
    pick, place = segment_end(model, motion, "descend_pick"), segment_end(model, motion, "descend_place")
    np.testing.assert_allclose(pick[:3, 2:], action.pick[:3, 2:], atol=1e-5)
    np.testing.assert_allclose(place[:3, 2:], action.place[:3, 2:], atol=1e-5)
    np.testing.assert_allclose(place @ np.linalg.inv(pick), action.place @ np.linalg.inv(action.pick), atol=2e-5)
    for one, following in itertools.pairwise(motion.segments):
        np.testing.assert_allclose(one.trajectory.positions[-1], following.trajectory.positions[0], atol=1e-9)
    np.testing.assert_allclose(motion.segments[-1].trajectory.positions[-1], model.home, atol=1e-9)
    Guard(model, WORKSPACE).check_motion(motion, motion.segments[0].trajectory.positions[0], 0, 0)


@settings(max_examples=40, deadline=None)
@given(actions())
def test_any_decision_within_reach_is_carried_out(action: PickPlace) -> None:
    motion = plan_pick_place(MODEL, MODEL.home, action)
    assert_carries_out(MODEL, motion, action)
    assert motion.duration < 8.0


def test_the_whole_grid_of_the_workspace_within_reach(model: RobotModel) -> None:
    xs, ys = np.linspace(*WORKSPACE.x, 5), np.linspace(*WORKSPACE.y, 9)
    points = [(x, y) for x in xs for y in ys if within_reach(x, y)]
    yaws = itertools.cycle(np.linspace(-np.pi, np.pi, 7))
    heights = itertools.cycle((0.005, 0.1, 0.2))
    for one, other in zip(points, reversed(points), strict=True):
        pick = tool_down(*one, next(heights), next(yaws))
        place = tool_down(*other, next(heights), next(yaws) + 0.5)
        action = PickPlace(pick=pick, place=place)
        assert_carries_out(model, plan_pick_place(model, model.home, action), action)


def test_what_happens_in_which_order(model: RobotModel) -> None:
    action = PickPlace(pick=tool_down(0.5, -0.3, 0.02), place=tool_down(0.5, 0.3, 0.02))
    motion = plan_pick_place(model, model.home, action)
    assert [(s.name, s.gripper) for s in motion.segments] == [
        ("approach", None),
        ("descend_pick", CLOSED),
        ("lift_pick", None),
        ("transfer", None),
        ("descend_place", OPEN),
        ("lift_place", None),
        ("home", None),
    ]
    assert all((s.dwell_s > 0) == (s.gripper is not None) for s in motion.segments)
    assert 4.5 < motion.duration < 6.5


def test_travel_stays_at_its_height(model: RobotModel) -> None:
    settings = MotionSettings()
    action = PickPlace(pick=tool_down(0.3, -0.5, 0.02), place=tool_down(0.7, 0.1, 0.02, 3.0))
    for segment in plan_pick_place(model, model.home, action, settings).segments:
        if segment.name in ("approach", "transfer", "home"):
            heights = model.link_positions(segment.trajectory.positions)[:, -1, 2]
            assert heights.min() > settings.clearance_m - 0.005


def test_the_last_joint_turns_no_more_than_the_object_needs(model: RobotModel) -> None:
    for turn in np.linspace(-np.pi, np.pi, 13):
        action = PickPlace(pick=tool_down(0.5, 0.0, 0.02, 2.9), place=tool_down(0.5, 0.001, 0.02, 2.9 + turn))
        segments = {s.name: s.trajectory for s in plan_pick_place(model, model.home, action).segments}
        travel = np.ptp(segments["transfer"].positions[:, -1])
        assert travel == pytest.approx(abs(turn), abs=0.01)


def test_the_same_decision_gives_the_same_motion(model: RobotModel) -> None:
    action = PickPlace(pick=tool_down(0.4, -0.3, 0.02, 1.0), place=tool_down(0.6, 0.3, 0.05, -2.0))
    first, second = (plan_pick_place(RobotModel.load(), model.home, action) for _ in range(2))
    for one, other in zip(first.segments, second.segments, strict=True):
        np.testing.assert_array_equal(one.trajectory.positions, other.trajectory.positions)


@pytest.mark.parametrize("low", [True, False])
def test_home_goes_up_before_it_goes_sideways(model: RobotModel, low: bool) -> None:
    q_now = model.inverse(tool_down(0.55, 0.25, 0.03 if low else 0.4, 1.0), model.home)
    motion = plan_home(model, q_now)
    assert [s.name for s in motion.segments] == (["retract", "home"] if low else ["home"])
    assert all(s.gripper is None for s in motion.segments)
    np.testing.assert_allclose(motion.segments[-1].trajectory.positions[-1], model.home)
    Guard(model).check_motion(motion, q_now, 0, 0)


def test_speed_scales_the_whole_motion(model: RobotModel) -> None:
    action = PickPlace(pick=tool_down(0.5, -0.3, 0.02), place=tool_down(0.5, 0.3, 0.02))
    fast = plan_pick_place(model, model.home, action)
    slow = plan_pick_place(model, model.home, action, MotionSettings(pace=Pace(speed=0.5)))
    dwell = sum(s.dwell_s for s in fast.segments)
    assert slow.duration - dwell == pytest.approx(2 * (fast.duration - dwell), rel=1e-3)


@pytest.mark.parametrize("which", ["pick", "place"])
def test_out_of_reach_is_refused(model: RobotModel, which: str) -> None:
    poses = {"pick": tool_down(0.5, 0.0, 0.02), "place": tool_down(0.5, 0.1, 0.02)}
    poses[which] = tool_down(0.75, 0.5, 0.02)
    with pytest.raises(Refused) as refusal:
        plan_pick_place(model, model.home, PickPlace(**poses))
    assert refusal.value.rule == "unreachable"


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(BadInput, match="clearance_m"):
        MotionSettings(clearance_m=-0.1)

"""A decision within reach becomes a complete, guarded motion that keeps the object's way exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import CLOSED, OPEN, Motion, MotionSettings, plan, plan_home, plan_pick_place
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


@pytest.mark.parametrize(
    ("pick", "place"),
    [
        ((0.5, 0.0, 0.125), (0.244140625, 0.234375, 0.015625)),
        ((0.26, -0.18, 0.02), (0.5, 0.0, 0.02)),
        ((0.27, 0.16, 0.02), (0.3, -0.09, 0.02)),
    ],
)
def test_a_place_near_the_base_is_served_as_quickly_as_any_other(pick, place) -> None:  # type: ignore[no-untyped-def]
    action = PickPlace(pick=tool_down(*pick), place=tool_down(*place))
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


@pytest.mark.parametrize("name", ["panda_spatula", "kuka_iiwa_spatula"])
def test_a_push_goes_straight_at_one_height(name: str) -> None:
    model = RobotModel.load(name)
    for yaw in (0.0, 0.8, 2.5, -1.6):
        start, end = tool_down(0.52, -0.15, 0.01, yaw), tool_down(0.58, 0.1, 0.01, yaw)
        motion = plan(model, model.home, PickPlace(pick=start, place=end, primitive="push"))
        assert [(s.name, s.gripper) for s in motion.segments] == [
            ("approach", None),
            ("descend_push", None),
            ("push", None),
            ("lift_push", None),
            ("home", None),
        ]
        push = motion.segments[2].trajectory
        tips = [model.forward(q) for q in push.positions]
        np.testing.assert_allclose(tips[0][:3, 3], start[:3, 3], atol=1e-4)
        np.testing.assert_allclose(tips[-1][:3, 3], end[:3, 3], atol=1e-4)
        way = (end - start)[:3, 3] / np.linalg.norm((end - start)[:3, 3])
        for tip in tips:
            offset = tip[:3, 3] - start[:3, 3]
            np.testing.assert_allclose(offset - (offset @ way) * way, 0, atol=5e-4)
            # Front and back of the plate are alike: the angle holds modulo half a turn.
            np.testing.assert_allclose(np.abs(tip[:3, 1] @ start[:3, 1]), 1, atol=1e-4)
        Guard(model, WORKSPACE).check_motion(motion, model.home, 0, 0)


def test_what_is_dragged_stays_low_and_turns_as_decided(model: RobotModel) -> None:
    drag_m = MotionSettings().drag_m
    for turn in (0.0, 0.8, -1.6):
        action = PickPlace(
            pick=tool_down(0.5, -0.2, 0.01, 0.3), place=tool_down(0.6, 0.2, 0.015, 0.3 + turn), primitive="drag"
        )
        motion = plan(model, model.home, action)
        assert [(s.name, s.gripper) for s in motion.segments] == [
            ("approach", None),
            ("descend_pick", CLOSED),
            ("raise", None),
            ("drag", None),
            ("descend_place", OPEN),
            ("lift_place", None),
            ("home", None),
        ]
        assert_carries_out(model, motion, action)
        tips = model.link_positions(motion.segments[3].trajectory.positions)[:, -1]
        np.testing.assert_allclose(tips[:, 2], 0.015 + drag_m, atol=5e-4)
        way = (action.place - action.pick)[:2, 3] / np.linalg.norm((action.place - action.pick)[:2, 3])
        aside = (tips[:, :2] - action.pick[:2, 3]) @ (-way[1], way[0])
        np.testing.assert_allclose(aside, 0, atol=5e-4)


def test_a_jaw_is_turned_as_decided_or_to_the_opposite() -> None:
    model = RobotModel.load("panda_parallel_jaw")
    for pick_yaw, turn in ((0.0, 0.5), (2.9, -1.0), (-2.0, 2.0), (1.2, 3.0)):
        pick, place = tool_down(0.5, -0.2, 0.02, pick_yaw), tool_down(0.55, 0.2, 0.03, pick_yaw + turn)
        motion = plan(model, model.home, PickPlace(pick=pick, place=place))
        reached = {s.name: model.forward(s.trajectory.positions[-1]) for s in motion.segments}
        for name, pose in (("descend_pick", pick), ("descend_place", place)):
            np.testing.assert_allclose(reached[name][:3, 3], pose[:3, 3], atol=1e-4)
            np.testing.assert_allclose(np.abs(reached[name][:3, 1] @ pose[:3, 1]), 1, atol=1e-4)
        one, other = (
            np.sign(reached[n][:3, 1] @ p[:3, 1]) for n, p in (("descend_pick", pick), ("descend_place", place))
        )
        assert one == other


def test_an_unknown_primitive_is_named(model: RobotModel) -> None:
    action = PickPlace(pick=tool_down(0.5, 0, 0.1), place=tool_down(0.5, 0.1, 0.1), primitive="throw")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="'throw'; send pick_place, drag, push or grasp"):
        plan(model, model.home, action)


def test_what_is_carried_passes_over_a_stack_at_either_end(model: RobotModel) -> None:
    low, high = tool_down(0.5, -0.25, 0.05), tool_down(0.5, 0.25, 0.18)
    for pick, place in ((low, high), (high, low)):
        motion = plan_pick_place(model, model.home, PickPlace(pick=pick, place=place))
        transfer = next(s.trajectory for s in motion.segments if s.name == "transfer")
        heights = [model.forward(q)[2, 3] for q in transfer.positions]
        assert min(heights) > 0.18 + MotionSettings().approach_m - 0.005

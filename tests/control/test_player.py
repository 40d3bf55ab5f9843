"""A streamed motion stays on its path and within the limits, however often it is held up, and always arrives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import CLOSED, OPEN, Motion, plan_pick_place
from embodied_vision.control.player import MotionPlayer, PlayerSettings, restart
from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import RunFailed
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace
from tests.control.follower import Follower

MODEL = RobotModel.load()
MOTION = plan_pick_place(
    MODEL, MODEL.home, PickPlace(pick=tool_down(0.5, -0.25, 0.03, 0.4), place=tool_down(0.42, 0.3, 0.03, -1.0))
)
PATH = np.concatenate(
    [segment.trajectory.sample_many(np.linspace(0, segment.trajectory.duration, 300))[0] for segment in MOTION.segments]
)


def play(motion: Motion, ticks_s: Iterator[float], pauses: dict[int, float] | None = None) -> Follower:
    """Play in virtual time with these times between ticks; tick → seconds of pause. Every trajectory is guarded."""
    arm, guard = Follower(MODEL.home), Guard(MODEL)
    player = MotionPlayer(motion, MODEL.limits)

    def send(trajectory) -> None:  # type: ignore[no-untyped-def]
        guard.check_trajectory(trajectory, arm.joints().positions, arm.now_ns, arm.now_ns)
        arm.send(trajectory)

    for tick, wait_s in enumerate(ticks_s):
        if tick in (pauses or {}):
            stop = player.pause(arm.now_s)
            if stop is not None:
                send(stop)
            arm.now_s += (pauses or {})[tick]
            if not player.settled(arm.now_s):
                arm.now_s += 0.5
            assert not arm.moving()
            player.resume(arm.now_s)
        step = player.tick(arm.now_s, arm.joints().positions)
        if step.trajectory is not None:
            send(step.trajectory)
        if step.gripper is not None:
            assert not arm.moving()
            arm.grip(step.gripper)
        if step.done:
            return arm
        arm.now_s += wait_s
    raise AssertionError("the motion did not end")


def steady(period_s: float) -> Iterator[float]:
    return iter([period_s] * round(60 / period_s))


def test_undisturbed_it_takes_little_longer_than_planned() -> None:
    arm = play(MOTION, steady(0.05))
    assert arm.now_s - 100.0 < MOTION.duration + 0.05 * 2 * len(MOTION.segments)
    assert [command for _, command in arm.grips] == [CLOSED, OPEN]
    np.testing.assert_allclose(arm.joints().positions, MODEL.home, atol=1e-3)


@settings(max_examples=6, deadline=None)
@given(
    ticks=st.lists(st.sampled_from([0.01, 0.05, 0.05, 0.12, 0.3, 0.9]), min_size=40, max_size=40),
    pauses=st.dictionaries(st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.4, 2.0]), max_size=3),
)
def test_late_ticks_and_pauses_never_leave_path_or_limits(ticks: list[float], pauses: dict[int, float]) -> None:
    arm = play(MOTION, iter(ticks * 40), pauses)
    np.testing.assert_allclose(arm.joints().positions, MODEL.home, atol=1e-3)
    assert [command for _, command in arm.grips] == [CLOSED, OPEN]
    for now_s in np.arange(100.0, arm.now_s, 0.15):
        q, _ = arm.state(now_s)
        assert np.abs(PATH - q).max(1).min() < 0.02


def test_silence_stops_the_arm_within_horizon_and_brake() -> None:
    for silent_after in range(1, 80, 7):
        arm = Follower(MODEL.home)
        player = MotionPlayer(MOTION, MODEL.limits, PlayerSettings(horizon_s=0.15))
        for _ in range(silent_after):
            step = player.tick(arm.now_s, arm.joints().positions)
            if step.trajectory is not None:
                arm.send(step.trajectory)
            arm.now_s += 0.05
        last_s = arm.sent[-1][0]
        arm.now_s = max(last_s + 0.15 + 0.25, arm.now_s) + 1e-6
        assert not arm.moving()


def test_an_arm_that_does_not_arrive_is_an_error_and_the_gripper_does_nothing() -> None:
    player = MotionPlayer(MOTION, MODEL.limits)
    stuck = MODEL.home + 0.1

    def run(now_s: float) -> None:
        for _ in range(400):
            assert player.tick(now_s, stuck).gripper is None
            now_s += 0.05

    with pytest.raises(RunFailed, match=r"does not follow: joint \d is \d"):
        run(0.0)


def test_a_restart_begins_and_ends_at_rest_within_the_limits() -> None:
    guard = Guard(MODEL)
    for segment in MOTION.segments:
        path = segment.trajectory
        for path_s in np.linspace(0, path.duration, 9):
            rest = restart(path, path_s)
            np.testing.assert_allclose(rest.positions[0], path.sample(path_s)[0], atol=1e-9)
            np.testing.assert_allclose(rest.positions[-1], path.positions[-1], atol=1e-6)
            assert not rest.velocities[0].any()
            guard.check_trajectory(rest, rest.positions[0], 0, 0)

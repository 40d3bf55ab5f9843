"""Every horizon is safe by itself: it passes the guard, ends at rest, and never leaves the planned path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import MotionSettings, plan_pick_place
from embodied_vision.control.planning import BRAKE_S, Pace
from embodied_vision.control.streaming import brake, horizon
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import BadInput
from embodied_vision.types import PickPlace
from tests.control.samples import MODEL, actions, example_motion

MOTION = example_motion()
PATH_TOLERANCE_RAD = 1e-3


def assert_safe(path: Trajectory, t: float, ahead: Trajectory) -> None:
    """Passes the guard; starts where the motion is; ends at rest; on the path, in between the samples too."""
    Guard(MODEL).check_trajectory(ahead, ahead.positions[0], 0, 0)
    np.testing.assert_allclose(ahead.positions[0], path.sample(t)[0], atol=1e-9)
    np.testing.assert_allclose(ahead.velocities[0], path.sample(t)[1], atol=1e-9)
    assert np.abs(ahead.velocities[-1]).max() == 0.0
    passed = path.sample_many(np.arange(t, path.duration + 0.001, 0.0005))[0]
    for q in ahead.sample_many(np.linspace(0.0, ahead.duration, 60))[0]:
        assert np.abs(passed - q).max(axis=1).min() < PATH_TOLERANCE_RAD


@settings(max_examples=12, deadline=None)
@given(actions(), st.floats(0.2, 1.0), st.floats(0.0, 0.3), st.sampled_from([0.01, 0.02, 0.04]), st.data())
def test_every_horizon_of_every_planned_motion_is_safe(
    action: PickPlace, speed: float, horizon_s: float, period_s: float, data: st.DataObject
) -> None:
    motion = plan_pick_place(MODEL, MODEL.home, action, MotionSettings(pace=Pace(speed=speed)))
    for segment in motion.segments:
        path = segment.trajectory
        t = data.draw(st.floats(0.0, path.duration), label=segment.name)
        ahead = horizon(path, t, MODEL.limits, horizon_s, period_s)
        assert_safe(path, t, ahead)
        assert ahead.duration <= horizon_s + BRAKE_S + period_s


@settings(max_examples=10, deadline=None)
@given(actions())
def test_braking_anywhere_takes_a_quarter_of_a_second_at_most(action: PickPlace) -> None:
    for segment in plan_pick_place(MODEL, MODEL.home, action).segments:
        path = segment.trajectory
        for t in np.linspace(0.0, path.duration, 7):
            stop = brake(path, float(t), MODEL.limits)
            assert stop.duration <= 0.25 + 1e-9
            assert_safe(path, float(t), stop)


def test_successive_horizons_are_one_motion() -> None:
    for segment in MOTION.segments:
        path, every = segment.trajectory, 0.05
        for t in np.arange(0.0, path.duration - every, every):
            before = horizon(path, float(t), MODEL.limits)
            after = horizon(path, float(t + every), MODEL.limits)
            for old, new, tolerance in zip(before.sample(every), after.sample(0.0), (1e-5, 1e-3, 0.5), strict=True):
                np.testing.assert_allclose(old, new, atol=tolerance)


def test_a_stop_on_the_way_is_not_run_over() -> None:
    first, second = MOTION.segments[0].trajectory, MOTION.segments[1].trajectory
    path = Trajectory(
        np.concatenate([first.times_s, first.duration + second.times_s[1:]]),
        np.concatenate([first.positions, second.positions[1:]]),
        np.concatenate([first.velocities, second.velocities[1:]]),
        np.concatenate([first.accelerations, second.accelerations[1:]]),
    )
    for t in np.arange(first.duration - 0.6, first.duration + 0.2, 0.013):
        for horizon_s in (0.0, 0.15):
            assert_safe(path, float(t), horizon(path, float(t), MODEL.limits, horizon_s))
    for rest in (0.0, first.duration, path.duration):
        np.testing.assert_allclose(brake(path, rest, MODEL.limits).positions, path.sample(rest)[0][None].repeat(2, 0))


def test_silence_stops_the_arm_within_half_a_second() -> None:
    path = max((s.trajectory for s in MOTION.segments), key=lambda p: p.duration)
    ahead = horizon(path, 0.3, MODEL.limits, horizon_s=0.2)
    assert ahead.duration <= 0.45 + 1e-9
    for late in (0.46, 1.0, 60.0):
        assert not ahead.sample(late)[1].any()


def test_the_end_of_the_motion_is_followed_to_its_goal() -> None:
    path = MOTION.segments[0].trajectory
    ahead = horizon(path, path.duration - 0.1, MODEL.limits)
    np.testing.assert_allclose(ahead.positions[-1], path.positions[-1])
    assert ahead.duration == pytest.approx(0.1)
    after = horizon(path, path.duration + 5.0, MODEL.limits)
    np.testing.assert_allclose(after.positions, path.positions[[-1, -1]])


@pytest.mark.parametrize("times", [(-0.1, 0.2, 0.02), (float("nan"), 0.2, 0.02), (0.1, -1.0, 0.02), (0.1, 0.2, 0.0)])
def test_impossible_times_are_named(times: tuple[float, float, float]) -> None:
    with pytest.raises(BadInput, match="finite times"):
        horizon(MOTION.segments[0].trajectory, times[0], MODEL.limits, times[1], times[2])

"""An arm that somebody else moves is brought to rest within its limits, and through the guard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.control.guard import Guard
from embodied_vision.control.planning import plan_joint
from embodied_vision.control.standstill import hold, to_rest, without_stands
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import RunFailed
from embodied_vision_sim.driver import Driver, DriverLimits
from embodied_vision_sim.joint_trajectory_controller import JointPath
from tests.control.samples import MODEL

SHARES = st.lists(st.floats(-0.9, 0.9), min_size=len(MODEL.joint_names), max_size=len(MODEL.joint_names))


@settings(deadline=None)
@given(SHARES)
def test_every_joint_comes_to_rest_within_its_limits(shares: list[float]) -> None:
    qd = np.array(shares) * MODEL.limits.velocity
    stop = to_rest(MODEL.home, qd, MODEL.limits)
    np.testing.assert_allclose(stop.positions[0], MODEL.home)
    np.testing.assert_allclose(stop.velocities[0], qd, atol=1e-9)
    assert not stop.velocities[-1].any()
    assert (np.abs(stop.accelerations) <= MODEL.limits.acceleration).all()
    times = np.linspace(0, stop.duration, 200)
    assert (np.abs(stop.sample_many(times)[1]) <= np.abs(qd) + 1e-3).all()


def test_the_guard_lets_a_stop_from_moderate_speed_through() -> None:
    qd = 0.2 * MODEL.limits.velocity
    Guard(MODEL).check_trajectory(to_rest(MODEL.home, qd, MODEL.limits), MODEL.home, 1_000_000_000, 1_000_000_000)


def test_a_stop_from_low_speed_is_not_over_when_a_driver_reads_it_late() -> None:
    """Else an arm that somebody began to move went on until the next stop, which comes later and is faster."""
    driver = Driver(DriverLimits.read(MODEL.joint_names), MODEL.home)
    driver.offer(JointPath(np.array([4.0]), MODEL.home[None] + 0.24), 0.0, 0.0)
    stop = to_rest(*driver.desired(1.0)[:2], MODEL.limits)
    sent = without_stands(stop)
    late_s = 0.05
    assert stop.times_s[stop.velocities.any(axis=1)].max() < late_s < sent.times_s[-1]
    driver.offer(JointPath(sent.times_s, sent.positions, sent.velocities), 1.0, 1.0 + late_s)
    q, velocities, _ = driver.desired(1.0 + stop.duration)
    assert not velocities.any()
    np.testing.assert_allclose(q, stop.positions[-1])


def test_of_a_stand_only_the_ends_are_left() -> None:
    still = without_stands(hold(MODEL.home, 1.0))
    np.testing.assert_allclose(still.times_s, [0.0, 1.0])
    stop = to_rest(MODEL.home, 0.2 * MODEL.limits.velocity, MODEL.limits)
    thin = without_stands(stop)
    assert len(thin.times_s) == len(stop.times_s) - 4
    assert_same(thin, stop)
    way = plan_joint(MODEL, MODEL.home, MODEL.home + 0.2)
    parts = (way.positions, way.velocities, way.accelerations)
    late = Trajectory(
        np.append(np.linspace(0.0, 0.9, 10), way.times_s + 1.0),
        *(np.concatenate([part[:1].repeat(10, axis=0), part]) for part in parts),
    )
    thin = without_stands(late)
    assert len(thin.times_s) == len(way.times_s) + 1
    assert_same(thin, late)


def assert_same(one: Trajectory, other: Trajectory) -> None:
    times = np.linspace(0.0, other.duration, 500)
    for mine, yours in zip(one.sample_many(times), other.sample_many(times), strict=True):
        np.testing.assert_allclose(mine, yours, atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_measurement_that_is_none_is_refused(value: float) -> None:
    qd = np.zeros(len(MODEL.joint_names))
    qd[2] = value
    with pytest.raises(RunFailed, match="check the joint states"):
        to_rest(MODEL.home, qd, MODEL.limits)

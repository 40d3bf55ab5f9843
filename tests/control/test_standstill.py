"""An arm that somebody else moves is brought to rest within its limits, and through the guard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.control.guard import Guard
from embodied_vision.control.standstill import to_rest
from embodied_vision.errors import RunFailed
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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_measurement_that_is_none_is_refused(value: float) -> None:
    qd = np.zeros(len(MODEL.joint_names))
    qd[2] = value
    with pytest.raises(RunFailed, match="check the joint states"):
        to_rest(MODEL.home, qd, MODEL.limits)

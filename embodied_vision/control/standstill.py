"""Rest without a path to keep: how an arm comes to it that somebody else has set in motion, and how it stays there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from ruckig import ControlInterface, InputParameter, Result, Ruckig, Synchronization
from ruckig import Trajectory as RuckigTrajectory

from embodied_vision.control.limits import JointLimits
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import RunFailed

SHARE = 0.9
"""Of the limits of acceleration and jerk that a stop may take; the rest is for errors of the measured velocities."""

PERIOD_S = 0.02


def to_rest(q: NDArray[np.float64], qd: NDArray[np.float64], limits: JointLimits) -> Trajectory:
    """The quickest stop of every joint by itself within acceleration and jerk, from q (J,), rad, and qd (J,), rad/s.

    Raises:
        RunFailed: there is none, as when a value is not finite.
    """
    count = len(q)
    request = InputParameter(count)
    request.control_interface = ControlInterface.Velocity
    request.synchronization = Synchronization.No
    request.current_position, request.current_velocity = q.tolist(), qd.tolist()
    request.target_velocity = [0.0] * count
    request.max_acceleration = (SHARE * limits.acceleration).tolist()
    request.max_jerk = (SHARE * limits.jerk).tolist()
    profile = RuckigTrajectory(count)
    result = Ruckig(count).calculate(request, profile) if np.isfinite([q, qd]).all() else Result.ErrorInvalidInput
    if result not in (Result.Working, Result.Finished):
        raise RunFailed(f"no way to rest from {q} rad at {qd} rad/s: {result}; check the joint states and the limits")
    duration = max(profile.duration, PERIOD_S)
    times = np.linspace(0.0, duration, int(np.ceil(duration / PERIOD_S)) + 1)
    samples = np.array([profile.at_time(t) for t in times.tolist()])
    samples[-1, 1:] = 0.0
    return Trajectory(times, *(samples[:, order] for order in range(3)))


def hold(q: NDArray[np.float64], seconds: float) -> Trajectory:
    """Standing at q (J,), rad, for a while."""
    times = np.linspace(0.0, seconds, int(np.ceil(seconds / PERIOD_S)) + 1)
    still = np.zeros((len(times), len(q)))
    return Trajectory(times, still + q, still, still.copy())

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

STAND_S = 0.1
"""A stop stands for so long after its end, as a controller refuses what is over when it comes."""


def to_rest(q: NDArray[np.float64], qd: NDArray[np.float64], limits: JointLimits) -> Trajectory:
    """The quickest stop of every joint by itself within acceleration and jerk, from q (J,), rad, and qd (J,), rad/s.

    It ends with a stand: who reads it late, as the short stop of a slow arm, still comes to rest.

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
    stand = np.arange(PERIOD_S, STAND_S + PERIOD_S / 2, PERIOD_S)
    times = np.append(times, duration + stand)
    samples = np.concatenate([samples, samples[-1:].repeat(len(stand), axis=0)])
    return Trajectory(times, *(samples[:, order] for order in range(3)))


def without_stands(trajectory: Trajectory) -> Trajectory:
    """The same motion, of whose stands only the ends are left: who joins one late does so by its end, gently."""
    moves: NDArray[np.bool_] = np.any(trajectory.velocities, axis=1)
    keep = moves.copy()
    keep[1:] |= moves[:-1]
    keep[:-1] |= moves[1:]
    keep[[0, -1]] = True
    parts = (trajectory.times_s, trajectory.positions, trajectory.velocities, trajectory.accelerations)
    return Trajectory(*(part[keep] for part in parts))


def hold(q: NDArray[np.float64], seconds: float) -> Trajectory:
    """Standing at q (J,), rad, for a while."""
    times = np.linspace(0.0, seconds, int(np.ceil(seconds / PERIOD_S)) + 1)
    still = np.zeros((len(times), len(q)))
    return Trajectory(times, still + q, still, still.copy())

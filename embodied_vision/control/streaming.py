"""Short horizons of a motion, each ending at rest, so that silence stops the arm on its planned path.

A horizon runs along the motion for a while and then brakes on the same path, evenly in path length,
which on a path that is straight in joint space is an even deceleration of every joint. When the next
horizon comes in time it replaces the former one before that brakes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.limits import JointLimits
from embodied_vision.control.planning import BRAKE_S
from embodied_vision.control.trajectory import Matrix, Trajectory
from embodied_vision.errors import BadInput

PATH_STEP_S = 0.002
"""Step at which the path is measured for braking."""

Samples = tuple[NDArray[np.float64], Matrix, Matrix, Matrix]


def horizon(
    trajectory: Trajectory, t: float, limits: JointLimits, horizon_s: float = 0.2, period_s: float = 0.02
) -> Trajectory:
    """What the arm does from time t of a motion on: the motion for `horizon_s`, then a brake to rest on its path.

    Args:
        trajectory: a planned motion.
        t: time in it, s, that the horizon's own time 0 stands for; after its end the arm rests.
        limits: what the joints may do; the brake demands the same share of each joint's acceleration.
        horizon_s: how long the motion is followed before braking.
        period_s: largest step between samples.

    Raises:
        BadInput: a time is negative or not finite.
    """
    if not (0 <= t < np.inf and 0 <= horizon_s < np.inf and 0 < period_s < np.inf):
        raise BadInput(f"time {t}, horizon {horizon_s}, period {period_s} s; give finite times, the period above 0")
    remaining = trajectory.duration - t
    if remaining <= horizon_s + BRAKE_S:  # the motion itself comes to rest as soon as a brake would
        return _follow(trajectory, t, max(remaining, period_s), period_s)
    start = _follow(trajectory, t, horizon_s, period_s) if horizon_s > 0 else None
    times, q, qd, qdd = _brake(trajectory, t + horizon_s, limits, period_s)
    if start is None:
        return Trajectory(times, q, qd, qdd)
    return Trajectory(
        np.concatenate([start.times_s, horizon_s + times[1:]]),
        np.concatenate([start.positions, q[1:]]),
        np.concatenate([start.velocities, qd[1:]]),
        np.concatenate([start.accelerations, qdd[1:]]),
    )


def brake(trajectory: Trajectory, t: float, limits: JointLimits, period_s: float = 0.02) -> Trajectory:
    """From time t of a motion to rest on its path at once, within `BRAKE_S`."""
    return horizon(trajectory, t, limits, horizon_s=0.0, period_s=period_s)


def _follow(trajectory: Trajectory, t: float, duration_s: float, period_s: float) -> Trajectory:
    times = np.linspace(0.0, duration_s, int(np.ceil(duration_s / period_s)) + 1)
    return Trajectory(times, *trajectory.sample_many(t + times))


def _brake(trajectory: Trajectory, t: float, limits: JointLimits, period_s: float) -> Samples:
    """Samples of an even slowing down in path length, from time t of the motion to rest."""
    path = t + np.arange(0.0, min(2 * BRAKE_S, trajectory.duration - t), PATH_STEP_S)
    _, velocity, _ = trajectory.sample_many(path)
    speed = np.linalg.norm(velocity / limits.acceleration, axis=1)
    length = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]) * np.diff(path))])
    count = int(np.ceil(BRAKE_S / period_s))
    at_rest = speed[0] < 1e-9
    duration = BRAKE_S if at_rest else min(BRAKE_S, 2 * float(length[-1] / speed[0]))
    times = np.linspace(0.0, duration, count + 1)
    gone = speed[0] * (times - times**2 / (2 * duration))
    q, qd, qdd = trajectory.sample_many(np.interp(gone, length, path))
    if at_rest:
        return times, q, np.zeros_like(q), np.zeros_like(q)
    own = np.linalg.norm(qd / limits.acceleration, axis=1, keepdims=True)
    own = np.maximum(own, 1e-9)
    direction = qd / own
    along = (direction * qdd / limits.acceleration**2).sum(1, keepdims=True)
    bend = (qdd - direction * along) / own**2
    rate = (speed[0] * (1 - times / duration))[:, None]
    velocities = direction * rate
    accelerations = bend * rate**2 - direction * (speed[0] / duration)
    velocities[-1] = 0.0
    return times, q, velocities, accelerations

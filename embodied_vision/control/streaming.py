"""Short horizons of a motion, each ending at rest, so that silence stops the arm on its planned path.

A horizon runs along the motion for a while and then brakes on the same path, evenly in path length,
which on a path that is straight in joint space is an even deceleration of every joint. When the next
horizon comes in time it replaces the former one before that brakes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.limits import JointLimits
from embodied_vision.control.planning import BRAKE_S
from embodied_vision.control.trajectory import Matrix, Trajectory
from embodied_vision.errors import BadInput

PATH_STEP_S = 0.002
"""Step at which the path is measured for braking."""

REST_S, SLOW_S = 1e-5, 1e-3
"""A motion rests where its acceleration limits would stop it in less than the first, or where it is slowest on its
way and they would stop it in less than the second: a stop on the way may lie between two samples."""

BRAKES_S, BRAKE_SHARE = (0.1, 0.15, 0.2), 0.9
"""A brake shorter than `BRAKE_S` is taken where it demands no more than this share of the acceleration limits."""

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
    if horizon_s < PATH_STEP_S:
        horizon_s = 0.0
    start = min(t + horizon_s, trajectory.duration)
    path = _measure(trajectory, start, limits)
    if path.rests and path.times_s[-1] - start <= BRAKE_S:  # as soon as a brake would bring it to rest
        return _follow_to_rest(trajectory, t, float(path.times_s[-1]), period_s)
    braked = _brake(trajectory, path, limits, period_s)
    if horizon_s == 0:
        return Trajectory(*braked)
    followed = _follow(trajectory, t, horizon_s, period_s)
    braked = (horizon_s + braked[0], *braked[1:])
    return Trajectory(*(np.concatenate([a, b[1:]]) for a, b in zip(followed, braked, strict=True)))


def brake(trajectory: Trajectory, t: float, limits: JointLimits, period_s: float = 0.02) -> Trajectory:
    """From time t of a motion to rest on its path at once, within `BRAKE_S`."""
    return horizon(trajectory, t, limits, horizon_s=0.0, period_s=period_s)


def _follow(trajectory: Trajectory, t: float, duration_s: float, period_s: float) -> Samples:
    """Samples of the motion itself from its time t on."""
    times = np.linspace(0.0, duration_s, int(np.ceil(duration_s / period_s)) + 1)
    return times, *trajectory.sample_many(t + times)


@dataclass(frozen=True, eq=False)
class _Path:
    """The motion from a time on, up to where it rests if that is near: times (N,), s, and speeds (N,), s.

    Speed is the norm of velocities over acceleration limits: roughly how long the joints take to stop.
    """

    times_s: NDArray[np.float64]
    speeds_s: NDArray[np.float64]
    rests: bool


def _measure(trajectory: Trajectory, start: float, limits: JointLimits) -> _Path:
    times = start + np.arange(0.0, 2 * BRAKE_S, PATH_STEP_S)
    if times[-1] >= trajectory.duration:
        times = np.append(times[times < trajectory.duration], trajectory.duration)
    speeds = np.linalg.norm(trajectory.sample_many(times)[1] / limits.acceleration, axis=1)
    padded = np.concatenate([[np.inf], speeds, [np.inf if times[-1] >= trajectory.duration else -np.inf]])
    lowest = (speeds < SLOW_S) & (speeds <= padded[:-2]) & (speeds <= padded[2:])
    lowest[0] = speeds[0] < REST_S
    if not lowest.any():
        return _Path(times, speeds, False)
    count = int(np.argmax(lowest)) + 1
    return _Path(times[:count], speeds[:count], True)


def _follow_to_rest(trajectory: Trajectory, t: float, rest: float, period_s: float) -> Trajectory:
    if rest - t > PATH_STEP_S:
        times, q, qd, qdd = _follow(trajectory, t, rest - t, period_s)
    else:
        times = np.array([0.0, period_s])
        q, qd, qdd = trajectory.sample_many(np.array([t, rest]))
        qdd = np.zeros_like(qdd)
    qd[-1] = 0.0
    return Trajectory(times, q, qd, qdd)


def _brake(trajectory: Trajectory, path: _Path, limits: JointLimits, period_s: float) -> Samples:
    """Samples of an even slowing down in path length, from the start of the path to rest before its end.

    It takes no longer than the limits ask for: who waits for the arm to stand need not wait for the slowest brake.
    """
    for brake_s in BRAKES_S:
        braked = _brake_within(trajectory, path, limits, brake_s, period_s)
        if (np.abs(braked[3]) <= BRAKE_SHARE * limits.acceleration).all():
            return braked
    return _brake_within(trajectory, path, limits, BRAKE_S, period_s)


def _brake_within(trajectory: Trajectory, path: _Path, limits: JointLimits, brake_s: float, period_s: float) -> Samples:
    steps = 0.5 * (path.speeds_s[1:] + path.speeds_s[:-1]) * np.diff(path.times_s)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    speed = float(path.speeds_s[0])
    duration = min(brake_s, 2 * float(length[-1]) / speed)
    times = np.linspace(0.0, duration, int(np.ceil(BRAKE_S / period_s)) + 1)
    gone = speed * (times - times**2 / (2 * duration))
    q, qd, qdd = trajectory.sample_many(np.interp(gone, length, path.times_s))
    own = np.linalg.norm(qd / limits.acceleration, axis=1, keepdims=True)
    own = np.maximum(own, 1e-9)
    direction = qd / own
    along = (direction * qdd / limits.acceleration**2).sum(1, keepdims=True)
    bend = (qdd - direction * along) / own**2
    rate = (speed * (1 - times / duration))[:, None]
    velocities = direction * rate
    accelerations = bend * rate**2 - direction * (speed / duration)
    velocities[-1] = 0.0
    return times, q, velocities, accelerations

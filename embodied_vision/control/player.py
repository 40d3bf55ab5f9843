"""Plays a motion in real time as a stream of short horizons. No ROS: the caller sends what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.limits import JointLimits
from embodied_vision.control.motion import Motion
from embodied_vision.control.planning import BRAKE_S
from embodied_vision.control.streaming import brake, horizon
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import RunFailed

RAMP_S = 4 * BRAKE_S
"""Time in which an interrupted motion comes back to its pace; four brakes long, it stays within the limits."""

_EPSILON_S = 1e-6


@dataclass(frozen=True)
class PlayerSettings:
    """How a motion is streamed.

    Attributes:
        horizon_s: how long the arm goes on without news before it brakes.
        period_s: largest step between the samples of a horizon.
        arrive_rad: how near to the end of its path the arm must be before the gripper works.
        arrive_s: how long it may take to get there.
    """

    horizon_s: float = 0.15
    period_s: float = 0.02
    arrive_rad: float = 0.02
    arrive_s: float = 1.0


@dataclass(frozen=True, eq=False)
class Step:
    """What to send now, if anything.

    Attributes:
        trajectory: its time 0 is now; it replaces what was sent before.
        gripper: command for the gripper.
        done: the motion is complete.
    """

    trajectory: Trajectory | None = None
    gripper: float | None = None
    done: bool = False


@dataclass(frozen=True, eq=False)
class _Leg:
    name: str
    trajectory: Trajectory
    gripper: float | None
    dwell_s: float


@dataclass(frozen=True, eq=False)
class _Sent:
    """The horizon sent last: at `at_s` it stood at `path_s` of its leg; at full pace until `brakes_s`, then to rest."""

    at_s: float
    path_s: float
    brakes_s: float
    rests_s: float
    complete: bool
    goal: NDArray[np.float64]


def join(trajectories: Sequence[Trajectory]) -> Trajectory:
    """One trajectory out of several that each start at rest where the former ended at rest."""
    if len(trajectories) == 1:
        return trajectories[0]
    times, parts, start_s = [], [], 0.0
    for index, trajectory in enumerate(trajectories):
        first = 0 if index == 0 else 1
        times.append(start_s + trajectory.times_s[first:])
        parts.append((trajectory.positions[first:], trajectory.velocities[first:], trajectory.accelerations[first:]))
        start_s += trajectory.duration
    q, qd, qdd = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Trajectory(np.concatenate(times), q, qd, qdd)


def restart(trajectory: Trajectory, path_s: float, ramp_s: float = RAMP_S, period_s: float = 0.01) -> Trajectory:
    """The rest of a motion from rest at its time `path_s`: its pace rises evenly from 0 to 1 over `ramp_s`."""
    left_s = max(0.0, trajectory.duration - path_s)
    duration = left_s + ramp_s / 2 if left_s > ramp_s / 2 else max(period_s, np.sqrt(2 * left_s * ramp_s))
    times = np.linspace(0.0, duration, max(2, int(np.ceil(duration / period_s)) + 1))
    pace = np.minimum(times / ramp_s, 1.0)[:, None]
    along = np.where(times < ramp_s, times**2 / (2 * ramp_s), times - ramp_s / 2)
    q, qd, qdd = trajectory.sample_many(np.minimum(path_s + along, trajectory.duration))
    rising = np.where(times < ramp_s, 1 / ramp_s, 0.0)[:, None]
    velocities, accelerations = qd * pace, qdd * pace**2 + qd * rising
    velocities[-1], accelerations[-1] = 0.0, 0.0
    return Trajectory(times, q, velocities, accelerations)


def path_time(trajectory: Trajectory, q: NDArray[np.float64], first_s: float, last_s: float) -> float:
    """Time in [first_s, last_s] at which the trajectory is nearest to q (J,)."""
    times = np.linspace(first_s, min(last_s, trajectory.duration), 256)
    positions, _, _ = trajectory.sample_many(times)
    return float(times[np.argmin(((positions - q) ** 2).sum(1))])


class MotionPlayer:
    """Where a motion stands, and what to send so that it goes on. Times are of a steady clock.

    Call `tick` every few 10 ms. When ticks come too late the arm has begun to brake by itself; it comes to rest
    on its path and goes on from there, slowly first.

    Args:
        motion: what to play.
        limits: of the joints.
        settings: of the stream.
    """

    def __init__(self, motion: Motion, limits: JointLimits, settings: PlayerSettings | None = None) -> None:
        self._limits = limits
        self._settings = settings or PlayerSettings()
        self._legs = _legs(motion)
        self._sent: _Sent | None = None
        self._path_s = 0.0
        self._reached_s: float | None = None
        self._dwell_until_s: float | None = None
        self._paused = False

    @property
    def name(self) -> str:
        """Of the segment that is played, such as `approach+descend_pick`."""
        return self._legs[0].name if self._legs else "done"

    def tick(self, now_s: float, q: NDArray[np.float64]) -> Step:
        """What to send now, with the arm at q (J,) in rad.

        Raises:
            RunFailed: the arm does not follow: it is not where its path ended.
        """
        if not self._legs:
            return Step(done=True)
        if self._paused:
            return Step()
        if self._dwell_until_s is not None:
            return self._dwell(now_s)
        leg = self._legs[0]
        sent = self._sent
        if sent is None:
            return self._send(now_s, self._path_s)
        if sent.complete:
            return self._arrive(now_s, q) if now_s >= sent.rests_s else Step()
        if now_s < sent.brakes_s:
            return self._send(now_s, min(sent.path_s + now_s - sent.at_s, leg.trajectory.duration))
        if now_s < sent.rests_s:
            return Step()
        self._rest(sent)
        return self._send(now_s, 0.0)

    def pause(self, now_s: float) -> Trajectory | None:
        """Stop on the path. Returns the brake to send, None when the arm is at rest or already braking.

        `settled` tells when it rests; `resume` goes on.
        """
        if self._paused or not self._legs:
            return None
        self._paused = True
        sent = self._sent
        if sent is None or self._dwell_until_s is not None or now_s >= min(sent.brakes_s, sent.rests_s):
            return None
        path = self._legs[0].trajectory
        path_s = min(sent.path_s + now_s - sent.at_s, path.duration)
        stop = brake(path, path_s, self._limits, self._settings.period_s)
        self._sent = _Sent(now_s, path_s, now_s, now_s + stop.duration, False, stop.positions[-1])
        return stop

    def settled(self, now_s: float) -> bool:
        """Whether the arm has come to rest after `pause`."""
        return self._sent is None or now_s >= self._sent.rests_s

    def resume(self, now_s: float) -> None:
        """Go on from where the arm rests; the next `tick` sends."""
        if not self._paused:
            return
        self._paused = False
        if self._dwell_until_s is not None:
            self._dwell_until_s = now_s + self._legs[0].dwell_s
        elif self._sent is not None and self._sent.complete:
            self._reached_s = None
        elif self._sent is not None:
            self._rest(self._sent)

    def _send(self, now_s: float, path_s: float) -> Step:
        path, settings = self._legs[0].trajectory, self._settings
        ahead = horizon(path, path_s, self._limits, settings.horizon_s, settings.period_s)
        complete = path_s + settings.horizon_s >= path.duration - _EPSILON_S
        rests_s = now_s + ahead.duration
        brakes_s = rests_s if complete else now_s + settings.horizon_s
        self._sent = _Sent(now_s, path_s, brakes_s, rests_s, complete, ahead.positions[-1])
        return Step(trajectory=ahead)

    def _rest(self, sent: _Sent) -> None:
        """The arm rests where the horizon sent last ended; what is left of the leg starts there."""
        leg = self._legs[0]
        brakes_at = sent.path_s + max(0.0, sent.brakes_s - sent.at_s)
        stopped_s = path_time(leg.trajectory, sent.goal, min(brakes_at, leg.trajectory.duration), brakes_at + BRAKE_S)
        left = restart(leg.trajectory, stopped_s)
        self._legs[0] = _Leg(leg.name, left, leg.gripper, leg.dwell_s)
        self._sent, self._path_s = None, 0.0

    def _arrive(self, now_s: float, q: NDArray[np.float64]) -> Step:
        leg = self._legs[0]
        off = np.abs(q - leg.trajectory.positions[-1])
        if off.max() > self._settings.arrive_rad:
            self._reached_s = now_s if self._reached_s is None else self._reached_s
            if now_s - self._reached_s > self._settings.arrive_s:
                raise RunFailed(
                    f"the arm does not follow: joint {int(off.argmax())} is {off.max():.3f} rad away from the end of "
                    f"{leg.name!r} after {self._settings.arrive_s} s; look for what blocks it"
                )
            return Step()
        self._reached_s = None
        if leg.gripper is None and leg.dwell_s <= 0:
            return self._next()
        self._dwell_until_s = now_s + leg.dwell_s
        return Step(gripper=leg.gripper)

    def _dwell(self, now_s: float) -> Step:
        assert self._dwell_until_s is not None
        return self._next() if now_s >= self._dwell_until_s else Step()

    def _next(self) -> Step:
        self._legs.pop(0)
        self._sent, self._path_s, self._dwell_until_s = None, 0.0, None
        return Step(done=not self._legs)


def _legs(motion: Motion) -> list[_Leg]:
    """Segments joined up to the next one at whose end something happens."""
    legs: list[_Leg] = []
    names: list[str] = []
    paths: list[Trajectory] = []
    for index, segment in enumerate(motion.segments):
        names.append(segment.name)
        paths.append(segment.trajectory)
        last = index == len(motion.segments) - 1
        if segment.gripper is not None or segment.dwell_s > 0 or last:
            legs.append(_Leg("+".join(names), join(paths), segment.gripper, segment.dwell_s))
            names, paths = [], []
    return legs

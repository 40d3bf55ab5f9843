"""Plays a motion in real time as a stream of short horizons. No ROS: the caller sends what it is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.limits import JointLimits
from embodied_vision.control.motion import CLOSED, Motion, Segment
from embodied_vision.control.planning import BRAKE_S
from embodied_vision.control.streaming import brake, horizon
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import RunFailed

RAMP_S = 4 * BRAKE_S
"""Time in which an interrupted motion comes back to its pace; four brakes long, it stays within the limits."""

START_S = 0.06
"""Every leg begins with so much rest: a controller that gets its beginning late need not catch up with it."""

_EPSILON_S = 1e-6

Load = Literal["none", "lifted", "carried"]
"""What the gripper has to hold by the plan: it was closed and the arm lifts it, then the lift is over."""


@dataclass(frozen=True)
class PlayerSettings:
    """How a motion is streamed.

    Attributes:
        horizon_s: how long the arm goes on without news before it brakes.
        send_s: least time between two horizons; ticks may come more often.
        period_s: largest step between the samples of a horizon.
        arrive_rad: how near to the end of its path the arm must be before the gripper works.
        arrive_s: how long it may take to get there.
    """

    horizon_s: float = 0.15
    send_s: float = 0.045
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
    """A segment in hand.

    Attributes:
        segment: as planned.
        trajectory: what is streamed, from `START_S` on: the planned one, or the rest of it, restarted at its time
            `restarted_s`.
        last: the motion ends with it.
    """

    segment: Segment
    trajectory: Trajectory
    last: bool
    restarted_s: float | None = None

    def planned_s(self, time_s: float) -> float:
        """Time in the plan that a time in `trajectory` stands for."""
        moving_s = max(0.0, time_s - START_S)
        return moving_s if self.restarted_s is None else self.restarted_s + restarted_path_s(moving_s)

    def restart(self, planned_s: float) -> _Leg:
        """The rest of the path from rest. Always made from the plan: ramps upon ramps would exceed the limits."""
        return replace(self, trajectory=_from_rest(restart(self.segment.trajectory, planned_s)), restarted_s=planned_s)


@dataclass(frozen=True, eq=False)
class _Sent:
    """The horizon sent last: at `at_s` it stood at `path_s` of its leg; at full pace until `brakes_s`, then to rest."""

    at_s: float
    path_s: float
    brakes_s: float
    rests_s: float
    complete: bool
    goal: NDArray[np.float64]


def _from_rest(trajectory: Trajectory) -> Trajectory:
    """The motion after a rest of `START_S`, which its acceleration reaches into by 1 ms at most."""
    times = np.concatenate([[0.0, START_S - 1e-3], START_S + trajectory.times_s])
    still = np.zeros((2, trajectory.positions.shape[1]))
    parts = (trajectory.positions, trajectory.velocities, trajectory.accelerations)
    before = (still + trajectory.positions[0], still, still)
    return Trajectory(times, *(np.concatenate([rest, part]) for rest, part in zip(before, parts, strict=True)))


def restart(trajectory: Trajectory, path_s: float, ramp_s: float = RAMP_S, period_s: float = 0.01) -> Trajectory:
    """The rest of a motion from rest at its time `path_s`: its pace rises evenly from 0 to 1 over `ramp_s`."""
    left_s = max(0.0, trajectory.duration - path_s)
    duration = left_s + ramp_s / 2 if left_s > ramp_s / 2 else max(period_s, np.sqrt(2 * left_s * ramp_s))
    times = np.linspace(0.0, duration, max(2, int(np.ceil(duration / period_s)) + 1))
    pace = np.minimum(times / ramp_s, 1.0)[:, None]
    along = np.array([restarted_path_s(time_s, ramp_s) for time_s in times.tolist()])
    q, qd, qdd = trajectory.sample_many(np.minimum(path_s + along, trajectory.duration))
    rising = np.where(times < ramp_s, 1 / ramp_s, 0.0)[:, None]
    velocities, accelerations = qd * pace, qdd * pace**2 + qd * rising
    velocities[-1], accelerations[-1] = 0.0, 0.0
    return Trajectory(times, q, velocities, accelerations)


def restarted_path_s(time_s: float, ramp_s: float = RAMP_S) -> float:
    """How far along its motion a restarted one is after `time_s`."""
    return time_s**2 / (2 * ramp_s) if time_s < ramp_s else time_s - ramp_s / 2


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
        count = len(motion.segments)
        self._legs = [_Leg(s, _from_rest(s.trajectory), i == count - 1) for i, s in enumerate(motion.segments)]
        self._sent: _Sent | None = None
        self._former: _Sent | None = None
        self._path_s = 0.0
        self._reached_s: float | None = None
        self._dwell_until_s: float | None = None
        self._paused = False
        self._load: Load = "none"

    @property
    def load(self) -> Load:
        """What the gripper has to hold now."""
        return self._load

    @property
    def name(self) -> str:
        """Of the segment that is played, such as `descend_pick`."""
        return self._legs[0].segment.name if self._legs else "done"

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
            return self._dwell(now_s, q)
        leg = self._legs[0]
        sent = self._sent
        if sent is None:
            return self._send(now_s, self._path_s)
        if sent.complete:
            return self._arrive(now_s, q) if now_s >= sent.rests_s else Step()
        if now_s < sent.brakes_s:
            if now_s < sent.at_s + self._settings.send_s:
                return Step()
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
        self._former = sent
        self._sent = _Sent(now_s, path_s, now_s, now_s + stop.duration, False, stop.positions[-1])
        return stop

    def hold(self) -> None:
        """Send nothing more: the horizon sent last comes to its end. `resume` goes on from there."""
        self._paused = True

    def withdraw(self) -> None:
        """What was returned last was not sent: `hold` at the end of what was sent before it."""
        self._sent = self._former
        self._paused = True

    def settled(self, now_s: float) -> bool:
        """Whether the arm has come to rest after `pause`."""
        return self._sent is None or now_s >= self._sent.rests_s

    def off_rest(self, q: NDArray[np.float64]) -> float:
        """How far the arm at q (J,) is from where the horizon sent last ends, the worst joint in rad."""
        return 0.0 if self._sent is None else float(np.abs(q - self._sent.goal).max())

    def resume(self, now_s: float) -> None:
        """Go on from where the arm rests; the next `tick` sends."""
        if not self._paused:
            return
        self._paused = False
        if self._dwell_until_s is not None:
            self._dwell_until_s = now_s + self._legs[0].segment.dwell_s
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
        self._former = self._sent
        self._sent = _Sent(now_s, path_s, brakes_s, rests_s, complete, ahead.positions[-1])
        return Step(trajectory=ahead)

    def _rest(self, sent: _Sent) -> None:
        """The arm rests where the horizon sent last ended; what is left of the leg starts there."""
        leg = self._legs[0]
        planned = leg.segment.trajectory
        first_s = min(leg.planned_s(sent.path_s + max(0.0, sent.brakes_s - sent.at_s)), planned.duration)
        self._legs[0] = leg.restart(path_time(planned, sent.goal, first_s, first_s + BRAKE_S))
        self._sent, self._path_s = None, 0.0

    def _arrive(self, now_s: float, q: NDArray[np.float64]) -> Step:
        leg = self._legs[0]
        segment = leg.segment
        if segment.gripper is None and segment.dwell_s <= 0 and not leg.last:
            return self._next(now_s, q)
        off = np.abs(q - leg.trajectory.positions[-1])
        if off.max() > self._settings.arrive_rad:
            self._reached_s = now_s if self._reached_s is None else self._reached_s
            if now_s - self._reached_s > self._settings.arrive_s:
                raise RunFailed(
                    f"the arm does not follow: joint {int(off.argmax())} is {off.max():.3f} rad away from the end of "
                    f"{segment.name!r} after {self._settings.arrive_s} s; look for what blocks it"
                )
            return Step()
        self._reached_s = None
        self._dwell_until_s = now_s + segment.dwell_s
        if segment.gripper is not None and segment.gripper != CLOSED:
            self._load = "none"
        return Step(gripper=segment.gripper)

    def _dwell(self, now_s: float, q: NDArray[np.float64]) -> Step:
        assert self._dwell_until_s is not None
        return self._next(now_s, q) if now_s >= self._dwell_until_s else Step()

    def _next(self, now_s: float, q: NDArray[np.float64]) -> Step:
        done = self._legs.pop(0).segment
        if done.gripper == CLOSED:
            self._load = "lifted"
        elif self._load == "lifted":
            self._load = "carried"
        self._sent, self._former, self._path_s, self._dwell_until_s = None, None, 0.0, None
        return self.tick(now_s, q)

"""Executes joint trajectories the way ros2_control's joint_trajectory_controller does. No ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

REST_VELOCITY = 1e-3
"""Largest velocity in rad/s that a trajectory may end with; it is held afterwards."""

JOIN_S = 1e-3
"""Points that come sooner are left out where a trajectory is joined: over less time rounding errors are a jerk."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class JointPath:
    """A commanded path: knots with times from its start.

    Attributes:
        times_s: (N,) strictly increasing, from the start of the trajectory.
        positions: (N, J) rad.
        velocities: (N, J) rad/s for cubic interpolation, or None for linear.
        accelerations: (N, J) rad/s² beside velocities for quintic interpolation, or None.
    """

    times_s: Vector
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None = None
    accelerations: NDArray[np.float64] | None = None

    def check(self, joints: int) -> None:
        """Raise `BadInput` for anything that the controller would have to guess about."""
        knots = len(self.times_s)
        if knots == 0:
            raise BadInput("joint trajectory has no points; send at least one")
        if self.accelerations is not None and self.velocities is None:
            raise BadInput("joint trajectory has accelerations without velocities; send both")
        parts = (
            ("positions", self.positions),
            ("velocities", self.velocities),
            ("accelerations", self.accelerations),
        )
        for name, values in parts:
            if values is None:
                continue
            if values.shape != (knots, joints):
                raise BadInput(f"joint trajectory {name} have shape {values.shape}, give {(knots, joints)}")
            if not np.isfinite(values).all():
                knot, joint = np.argwhere(~np.isfinite(values))[0]
                raise BadInput(
                    f"joint trajectory {name}[{knot}][{joint}] is {values[knot, joint]}; send finite numbers"
                )
        if not np.isfinite(self.times_s).all() or self.times_s[0] < 0 or (np.diff(self.times_s) <= 0).any():
            raise BadInput(f"joint trajectory times {self.times_s.tolist()} do not increase strictly from 0")
        if self.velocities is not None and np.abs(self.velocities[-1]).max() > REST_VELOCITY:
            raise BadInput(f"joint trajectory ends with velocities {self.velocities[-1].tolist()}; end it at rest")


class Desired(NamedTuple):
    """What the arm is asked to do: rows of positions, velocities and accelerations, (N, J) or (J,) each."""

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    accelerations: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plan:
    """A path on the controller's clock, its first knot being the desired state when it took over."""

    start_s: float
    times_s: Vector
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None = None
    accelerations: NDArray[np.float64] | None = None

    def sample(self, times_s: Vector) -> Desired:
        """Desired states (N, J) at times (N,); the first is held before the plan and the last one after it."""
        if len(self.times_s) == 1:
            still = np.zeros((len(times_s), self.positions.shape[1]))
            return Desired(self.positions[0] + still, still, still.copy())
        left = np.clip(np.searchsorted(self.times_s, times_s, side="right") - 1, 0, len(self.times_s) - 2)
        span = np.diff(self.times_s)[left, None]
        u = (times_s - self.times_s[left])[:, None] / span
        c = self._coefficients(left, span)
        powers = [np.ones_like(u)]
        for _ in c[1:]:
            powers.append(powers[-1] * u)
        q, qd, qdd = (np.zeros((len(times_s), self.positions.shape[1])) for _ in range(3))
        for i, ci in enumerate(c):
            q += ci * powers[i]
            if i > 0:
                qd += i * ci * powers[i - 1] / span
            if i > 1:
                qdd += i * (i - 1) * ci * powers[i - 2] / span**2
        early, late = times_s < self.times_s[0], times_s >= self.times_s[-1]
        q[early], q[late] = self.positions[0], self.positions[-1]
        qd[early | late] = 0.0
        qdd[early | late] = 0.0
        return Desired(q, qd, qdd)

    def _coefficients(self, left: NDArray[np.intp], span: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Of polynomials, (N, J) each, in the share of the spans (N, 1) after knots (N,): linear, cubic or quintic."""
        right = left + 1
        p0, gap = self.positions[left], self.positions[right] - self.positions[left]
        if self.velocities is None:
            return [p0, gap]
        d0, d1 = self.velocities[left] * span, self.velocities[right] * span
        if self.accelerations is None:
            return [p0, d0, 3 * gap - 2 * d0 - d1, d0 + d1 - 2 * gap]
        b0, b1 = self.accelerations[left] * span**2 / 2, self.accelerations[right] * span**2 / 2
        gap, slope, bend = gap - d0 - b0, d1 - d0 - 2 * b0, b1 - b0
        rest = (10 * gap - 4 * slope + bend, -15 * gap + 7 * slope - 2 * bend, 6 * gap - 3 * slope + bend)
        return [p0, d0, b0, *rest]


class JointTrajectoryController:
    """Holds the desired state of an arm and moves it along the trajectories that it is given.

    A new trajectory replaces the running one: the desired state of that moment is joined to the
    first point by the same interpolation, and the last point is held.
    """

    def __init__(self, positions: NDArray[np.float64]) -> None:
        self._plans: list[Plan] = []
        self.hold(positions)

    def hold(self, positions: NDArray[np.float64]) -> None:
        """Forget all trajectories and hold `positions` (J,) in rad."""
        held = np.asarray(positions, float)[None].copy()
        self._plans = [Plan(-np.inf, np.array([-np.inf]), held)]

    def accept(self, path: JointPath, start_s: float) -> None:
        """Follow `path` from `start_s` on.

        Raises:
            BadInput: the trajectory is malformed; the running one goes on.
        """
        self.take(self.plan(path, start_s, start_s))

    def plan(self, path: JointPath, start_s: float, join_s: float) -> Plan:
        """What following `path` means, whose time 0 is `start_s`: from `join_s` on, the desired state of then is joined
        to the first point that is still to come.

        Raises:
            BadInput: the trajectory is malformed, or all of it has passed.
        """
        path.check(len(self._plans[-1].positions[-1]))
        times = path.times_s + start_s
        # A trajectory may begin with the state in which it finds the arm; any later one is joined.
        first = 0 if times[0] == join_s else int(np.searchsorted(times[:-1], join_s + JOIN_S))
        if times[-1] <= join_s:
            raise BadInput(f"joint trajectory ended {join_s - times[-1]:.3f} s ago; send it in time, check the clocks")
        parts = (path.positions, path.velocities, path.accelerations)
        rest = [None if part is None else part[first:] for part in parts]
        times = times[first:]
        if times[0] > join_s:
            now = self.sample(join_s)
            rest = [
                None if part is None else np.concatenate([n[None], part]) for n, part in zip(now, rest, strict=True)
            ]
            times = np.concatenate([[join_s], times])
        assert rest[0] is not None
        return Plan(join_s, times, rest[0], rest[1], rest[2])

    def take(self, plan: Plan) -> None:
        """Follow a plan that was made since the last one was taken; what was to come after its start is forgotten."""
        self._plans = [*(former for former in self._plans if former.start_s <= plan.start_s), plan]

    def sample(self, now_s: float) -> Desired:
        """Desired position, velocity and acceleration, (J,) each, at `now_s`."""
        active = next(plan for plan in reversed(self._plans) if plan.start_s <= now_s)
        return Desired(*(part[0] for part in active.sample(np.array([now_s]))))

    def desired(self, now_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Desired position in rad and velocity in rad/s, (J,) each, at `now_s`."""
        q, qd, _ = self.sample(now_s)
        return q, qd

    def forget_before(self, now_s: float) -> None:
        """Drop the trajectories that were replaced before `now_s`."""
        while len(self._plans) > 1 and self._plans[1].start_s <= now_s:
            self._plans.pop(0)

    @property
    def end_s(self) -> float:
        """When the last accepted trajectory ends, −inf if there is none."""
        return float(self._plans[-1].times_s[-1])

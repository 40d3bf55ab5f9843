"""Executes joint trajectories the way ros2_control's joint_trajectory_controller does. No ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

REST_VELOCITY = 1e-3
"""Largest velocity in rad/s that a trajectory may end with; it is held afterwards."""


@dataclass(frozen=True, eq=False)
class JointPath:
    """A commanded path: knots with times from its start.

    Attributes:
        times_s: (N,) strictly increasing, from the start of the trajectory.
        positions: (N, J) rad.
        velocities: (N, J) rad/s for cubic interpolation, or None for linear.
    """

    times_s: NDArray[np.float64]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None = None

    def check(self, joints: int) -> None:
        """Raise `BadInput` for anything that the controller would have to guess about."""
        knots = len(self.times_s)
        if knots == 0:
            raise BadInput("joint trajectory has no points; send at least one")
        parts = [("positions", self.positions), ("velocities", self.velocities)]
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


@dataclass(frozen=True, eq=False)
class _Plan:
    """A path on the controller's clock, its first knot being the desired state when it took over."""

    start_s: float
    times_s: NDArray[np.float64]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None

    def state(self, now_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Desired position and velocity, (J,) each."""
        if now_s >= self.times_s[-1]:
            return self.positions[-1], np.zeros_like(self.positions[-1])
        right = int(np.searchsorted(self.times_s, now_s, side="right"))
        left = max(right - 1, 0)
        if left == right:
            return self.positions[0], np.zeros_like(self.positions[0])
        span = self.times_s[right] - self.times_s[left]
        u = (now_s - self.times_s[left]) / span
        p0, p1 = self.positions[left], self.positions[right]
        if self.velocities is None:
            return p0 + (p1 - p0) * u, (p1 - p0) / span
        m0, m1 = self.velocities[left] * span, self.velocities[right] * span
        d = p1 - p0
        a, b = 3 * d - 2 * m0 - m1, m0 + m1 - 2 * d
        return p0 + u * (m0 + u * (a + u * b)), (m0 + u * (2 * a + u * 3 * b)) / span


class JointTrajectoryController:
    """Holds the desired state of an arm and moves it along the trajectories that it is given.

    A new trajectory replaces the running one: the desired state of that moment is joined to the
    first point by the same interpolation, and the last point is held.
    """

    def __init__(self, positions: NDArray[np.float64]) -> None:
        self._plans: list[_Plan] = []
        self.hold(positions)

    def hold(self, positions: NDArray[np.float64]) -> None:
        """Forget all trajectories and hold `positions` (J,) in rad."""
        held = np.asarray(positions, float)[None].copy()
        self._plans = [_Plan(-np.inf, np.array([-np.inf]), held, None)]

    def accept(self, path: JointPath, start_s: float) -> None:
        """Follow `path` from `start_s` on.

        Raises:
            BadInput: the trajectory is malformed; the running one goes on.
        """
        path.check(len(self._plans[-1].positions[-1]))
        start_s = max(start_s, self._plans[-1].start_s)
        q, qd = self.desired(start_s)
        times, positions, velocities = path.times_s + start_s, path.positions, path.velocities
        if path.times_s[0] > 0:
            times = np.concatenate([[start_s], times])
            positions = np.concatenate([q[None], positions])
            velocities = None if velocities is None else np.concatenate([qd[None], velocities])
        self._plans.append(_Plan(start_s, times, positions, velocities))

    def desired(self, now_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Desired position in rad and velocity in rad/s, (J,) each, at `now_s`."""
        active = [plan for plan in self._plans if plan.start_s <= now_s]
        return active[-1].state(now_s)

    def forget_before(self, now_s: float) -> None:
        """Drop the trajectories that were replaced before `now_s`."""
        while len(self._plans) > 1 and self._plans[1].start_s <= now_s:
            self._plans.pop(0)

    @property
    def end_s(self) -> float:
        """When the last accepted trajectory ends, −inf if there is none."""
        return float(self._plans[-1].times_s[-1])

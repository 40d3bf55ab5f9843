"""What a trajectory does with the joints: finite, in time, from where the arm is, within every limit between samples.

A joint trajectory controller runs along the spline through position, velocity and acceleration of neighbouring
samples, as `Trajectory` does. So three things are held to the limits: what the samples state, what follows from their
differences, and that spline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.guard_settings import GuardSettings
from embodied_vision.control.limits import JointLimits
from embodied_vision.control.trajectory import Matrix, Trajectory
from embodied_vision.errors import Refused

SLACK = 1.001
"""Relative tolerance of comparisons between samples: stamps are whole nanoseconds, samples are rounded."""

PARTS = 8
"""The spline is looked at so many times a step."""

LEAST_STEP_S = 1e-4
"""Least time between samples: below, differences are rounding."""

STEP_POSITION, STEP_VELOCITY, STEP_ACCELERATION = 0.0346, 0.1356, 1.748
"""How far the spline may leave limits that every sample keeps to: in A·h², in A·h and as a share of A, for steps of
h s and an acceleration limit of A. It does so where the acceleration jumps from one limit to the other at a sample,
which is the most that a brake does."""

STEP_JERK = 2.176
"""The spline through samples of a motion of bounded jerk has at most so many times that jerk (the norm of its Peano
kernel)."""

Spline = tuple[Matrix, Matrix, Matrix]
"""Positions, velocities and accelerations (N - 1, PARTS + 1, J) along the spline through N samples."""

REST_RAD_S = 1e-3
"""A trajectory ends slower than this."""


class JointRules:
    """The rules `shape`, `non_finite`, `times`, `jump`, `position_limit`, `velocity_limit`, `acceleration_limit`,
    `jerk_limit`, `inconsistent` and `not_at_rest`."""

    def __init__(self, names: tuple[str, ...], limits: JointLimits, settings: GuardSettings) -> None:
        self._names = names
        self._limits = limits
        self._settings = settings

    def check_values(self, trajectory: Trajectory, q_now: NDArray[np.float64]) -> None:
        """Whether there are numbers to check, of all joints and with times that rise.

        Raises:
            Refused: rule `shape`, `non_finite` or `times`.
        """
        shape = (len(trajectory.times_s), len(self._names))
        if trajectory.positions.shape != shape or np.shape(q_now) != shape[1:]:
            found = f"{trajectory.positions.shape[1:]} and {np.shape(q_now)}"
            raise Refused("shape", "joints of trajectory and joint state", found, shape[1:], "send all joints in order")
        self._check_finite(trajectory, q_now)
        self._check_times(trajectory.times_s)

    def check(self, trajectory: Trajectory, q_now: NDArray[np.float64], brake_s: float) -> Spline:
        """Whether the motion starts where the arm is, at q_now (J,), and keeps to every limit.

        Args:
            trajectory: that `check_values` let pass.
            q_now: where the arm is, (J,).
            brake_s: so long before the end a brake may begin, whose jerk is bounded by the acceleration limits alone.

        Returns:
            The spline.

        Raises:
            Refused: naming the rule, joint, time, value and limit.
        """
        t, q, qd, qdd = trajectory.times_s, trajectory.positions, trajectory.velocities, trajectory.accelerations
        limits, everywhere = self._limits, np.ones(len(self._names))
        jump = "plan again from where it is"
        self._bound("jump", "start", q[:1] - q_now, self._settings.jump_rad * everywhere, t, jump)
        self._check_positions(q, np.zeros_like(q), t, "")
        slower = "plan at a lower speed"
        self._bound("velocity_limit", "velocity", qd, limits.velocity, t, slower)
        self._bound("acceleration_limit", "acceleration", qdd, limits.acceleration, t, slower)
        h = np.diff(t)[:, None]
        self._bound("velocity_limit", "change of position", np.diff(q, axis=0) / h, limits.velocity * SLACK, t, slower)
        change = np.diff(qd, axis=0) / h
        self._bound("acceleration_limit", "change of velocity", change, limits.acceleration * SLACK, t, slower)
        gap = (np.diff(q, axis=0) - 0.5 * h * (qd[1:] + qd[:-1])) / (0.25 * h * h)
        smooth = "sample one smooth motion"
        self._bound("inconsistent", "position against velocity", gap, limits.acceleration * SLACK, t, smooth)
        self._bound("not_at_rest", "velocity at the end", qd[-1:], REST_RAD_S * everywhere, t[-1:], "end at rest")
        steady = t[:-1] < t[-1] - brake_s - LEAST_STEP_S
        jerk = np.diff(qdd, axis=0) / h
        self._bound("jerk_limit", "change of acceleration", jerk[steady], limits.jerk * SLACK, t[:-1][steady], slower)
        return self._check_spline(trajectory, h, steady)

    def _check_spline(self, trajectory: Trajectory, h: Matrix, steady: NDArray[np.bool_]) -> Spline:
        limits, t = self._limits, trajectory.times_s
        q, qd, qdd, jerk = trajectory.refined(PARTS)
        between, smooth = " between samples", "sample one smooth motion more densely"
        allowed = np.broadcast_to((STEP_POSITION * limits.acceleration * h * h)[:, None], q.shape)
        times = (t[:-1, None] + h * np.linspace(0.0, 1.0, PARTS + 1)).ravel()
        flat = (-1, len(self._names))
        self._check_positions(q.reshape(flat), allowed.reshape(flat), times, between)
        v_max = np.broadcast_to((limits.velocity + STEP_VELOCITY * limits.acceleration * h)[:, None], q.shape)
        self._bound("velocity_limit", f"velocity{between}", qd.reshape(flat), v_max.reshape(flat), times, smooth)
        a_max = STEP_ACCELERATION * limits.acceleration
        self._bound("acceleration_limit", f"acceleration{between}", qdd.reshape(flat), a_max, times, smooth)
        still = np.repeat(steady, PARTS + 1)
        j_max = STEP_JERK * limits.jerk * SLACK
        self._bound("jerk_limit", f"jerk{between}", jerk.reshape(flat)[still], j_max, times[still], smooth)
        return q, qd, qdd

    def _check_finite(self, trajectory: Trajectory, q_now: NDArray[np.float64]) -> None:
        parts = {
            "time": trajectory.times_s[:, None],
            "position": trajectory.positions,
            "velocity": trajectory.velocities,
            "acceleration": trajectory.accelerations,
            "current position": np.asarray(q_now)[None],
        }
        for quantity, values in parts.items():
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                sample, joint = bad[0]
                name = f"of {self._names[joint]} " if values.shape[1] > 1 else ""
                where, value = f"{quantity} {name}at sample {sample}", float(values[sample, joint])
                raise Refused("non_finite", where, value, "finite numbers", "check what computed it")

    def _check_times(self, times_s: NDArray[np.float64]) -> None:
        steps = np.diff(times_s)
        if times_s[0] != 0:
            raise Refused("times", "first sample", f"{times_s[0]} s", "0 s", "start times at 0")
        if steps.min() < LEAST_STEP_S:
            i, limit = int(steps.argmin()), f"at least {LEAST_STEP_S} s"
            raise Refused("times", f"step after sample {i}", f"{steps[i]} s", limit, "sort the samples by time")
        if steps.max() > self._settings.gap_s * SLACK:
            i, limit = int(steps.argmax()), f"{self._settings.gap_s} s"
            raise Refused("times", f"step after sample {i}", f"{steps[i]} s", limit, "sample the motion more densely")

    def _bound(
        self, rule: str, quantity: str, values: Matrix, bounds: NDArray[np.float64], t: NDArray[np.float64], remedy: str
    ) -> None:
        """Refuse the value (M, J) that exceeds its bound, (J,) or (M, J), the most."""
        share = np.abs(values) / bounds
        if len(values) and not share.max() <= 1:
            i, j = np.unravel_index(int(share.argmax()), share.shape)
            where = f"{quantity} of {self._names[j]} at {t[i]:.3f} s"
            raise Refused(rule, where, float(values[i, j]), float(np.broadcast_to(bounds, values.shape)[i, j]), remedy)

    def _check_positions(self, q: Matrix, allowed: Matrix, t: NDArray[np.float64], between: str) -> None:
        limits = self._limits
        beyond = np.maximum(limits.lower - q, q - limits.upper) - allowed
        if not beyond.max() <= 0:
            i, j = np.unravel_index(int(beyond.argmax()), beyond.shape)
            raise Refused(
                "position_limit",
                f"position{between} of {self._names[j]} at {t[i]:.3f} s",
                float(q[i, j]),
                (float(limits.lower[j]), float(limits.upper[j])),
                "choose another pose or turn the tool",
            )

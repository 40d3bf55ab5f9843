"""Joint motion over time: samples, and the spline through them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Samples of a joint motion; between them it runs along quintic Hermite splines.

    Attributes:
        times_s: (N,), N ≥ 2, strictly increasing from 0.
        positions, velocities, accelerations: (N, J), rad, rad/s, rad/s².
    """

    times_s: NDArray[np.float64]
    positions: Matrix
    velocities: Matrix
    accelerations: Matrix

    def __post_init__(self) -> None:
        shape = self.positions.shape
        shapes = (self.velocities.shape, self.accelerations.shape)
        if len(shape) != 2 or shape[0] < 2 or self.times_s.shape != shape[:1] or shapes != (shape, shape):
            raise BadInput(
                f"trajectory of shapes times {self.times_s.shape}, positions {shape}, velocities and accelerations "
                f"{shapes}; give (N,) and three times (N, J) with N ≥ 2"
            )

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return float(self.times_s[-1])

    def sample(self, t: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Position, velocity, acceleration (J,) at time t in s; at rest before the start and after the end."""
        q, qd, qdd = self.sample_many(np.array([t]))
        return q[0], qd[0], qdd[0]

    def sample_many(self, times: NDArray[np.float64]) -> tuple[Matrix, Matrix, Matrix]:
        """Positions, velocities, accelerations (M, J) at times (M,)."""
        inside = (times >= self.times_s[0]) & (times <= self.times_s[-1])
        t = np.clip(times, self.times_s[0], self.times_s[-1])
        i = np.clip(np.searchsorted(self.times_s, t, side="right") - 1, 0, len(self.times_s) - 2)
        h, coefficients = self._spline(i)
        q, qd, qdd = _evaluate(coefficients, (t - self.times_s[i])[:, None] / h, h)
        moving = inside[:, None]
        return q, np.where(moving, qd, 0.0), np.where(moving, qdd, 0.0)

    def refined(self, parts: int) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """The spline itself, each step divided into equal parts.

        Returns:
            Positions, velocities, accelerations and jerks (N - 1, parts + 1, J), both ends of each step included.
        """
        h, coefficients = self._spline(np.arange(len(self.times_s) - 1))
        h, coefficients = h[:, None], tuple(coefficient[:, None] for coefficient in coefficients)
        u = np.linspace(0.0, 1.0, parts + 1)[None, :, None]
        *_, c3, c4, c5 = coefficients
        jerk = (6 * c3 + u * (24 * c4 + u * 60 * c5)) / (h * h * h)
        return *_evaluate(coefficients, u, h), jerk

    def _spline(self, i: NDArray[np.intp]) -> tuple[Matrix, tuple[Matrix, ...]]:
        """Durations (M, 1) of steps i (M,) and the spline's six coefficients (M, J) over the share of the step."""
        h = (self.times_s[i + 1] - self.times_s[i])[:, None]
        p0, v0, a0 = self.positions[i], self.velocities[i] * h, self.accelerations[i] * h * h / 2
        p1, v1, a1 = self.positions[i + 1], self.velocities[i + 1] * h, self.accelerations[i + 1] * h * h / 2
        d = p1 - p0 - v0 - a0
        dv = v1 - v0 - 2 * a0
        da = a1 - a0
        return h, (p0, v0, a0, 10 * d - 4 * dv + da, -15 * d + 7 * dv - 2 * da, 6 * d - 3 * dv + da)

    def reversed(self) -> Trajectory:
        """The same path run backwards, with the same times and limits."""
        return Trajectory(
            self.times_s[-1] - self.times_s[::-1],
            self.positions[::-1].copy(),
            -self.velocities[::-1],
            self.accelerations[::-1].copy(),
        )

    def turned(self, joint: int, angle: float) -> Trajectory:
        """The same motion with one joint offset by an angle in rad throughout."""
        positions = self.positions.copy()
        positions[:, joint] += angle
        return Trajectory(self.times_s, positions, self.velocities, self.accelerations)


def _evaluate(coefficients: tuple[Matrix, ...], u: Matrix, h: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Positions, velocities and accelerations of splines at the shares u of their steps of duration h."""
    p0, v0, a0, c3, c4, c5 = coefficients
    q = p0 + u * (v0 + u * (a0 + u * (c3 + u * (c4 + u * c5))))
    qd = (v0 + u * (2 * a0 + u * (3 * c3 + u * (4 * c4 + u * 5 * c5)))) / h
    qdd = (2 * a0 + u * (6 * c3 + u * (12 * c4 + u * 20 * c5))) / (h * h)
    return q, qd, qdd

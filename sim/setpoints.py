"""The desired state of an arm whose driver is a process of its own and streams setpoints. No ROS."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

Vector = NDArray[np.float64]

COAST_S = 0.1
"""Without news the arm comes to rest within this time, as the motors of a robot whose controller died brake it."""

STILL_RAD = 1e-7
"""A setpoint that differs less from the one before does not move the arm."""

STILL_S = 0.05
"""The arm is meant to rest when its setpoints have stood for so long."""


@dataclass(frozen=True, eq=False)
class Setpoint:
    """Where the arm shall be at a time, and how fast: positions (J,) in rad, velocities (J,) in rad/s."""

    time_s: float
    positions: Vector
    velocities: Vector


class SetpointFollower:
    """Joins setpoints smoothly, and comes to rest where they end. Times are of one clock.

    Attributes:
        end_s: when the setpoints have come, or will have come, to rest; −inf before they moved.
    """

    def __init__(self, positions: Vector) -> None:
        self._points = [Setpoint(-np.inf, np.asarray(positions, float).copy(), np.zeros(len(positions)))]
        self.end_s = -np.inf
        self._used_s = -np.inf

    @property
    def known_s(self) -> float:
        """Up to when it is known where the arm shall be."""
        return self._points[-1].time_s

    def accept(self, point: Setpoint) -> bool:
        """Take a setpoint; whether it moves the arm. One that comes too late to be followed is left out.

        Raises:
            BadInput: wrong length, or numbers that are not finite.
        """
        if self._used_s > self.known_s:  # it has coasted, and goes on from there
            self._points = [Setpoint(self._used_s, *self._coast(self._used_s))]
        last = self._points[-1]
        for values in (point.positions, point.velocities):
            if values.shape != last.positions.shape or not np.isfinite(values).all():
                raise BadInput(f"setpoint {values} is not {len(last.positions)} finite numbers; check the driver")
        if not point.time_s > last.time_s:
            return False
        moved = float(np.abs(point.positions - last.positions).max()) > STILL_RAD
        if moved:
            self.end_s = point.time_s + STILL_S
        self._points.append(point)
        return moved

    def desired(self, now_s: float) -> tuple[Vector, Vector]:
        """Desired position in rad and velocity in rad/s, (J,) each, at `now_s`."""
        index = bisect_right(self._points, now_s, key=lambda point: point.time_s)
        if index == len(self._points):
            return self._coast(now_s)
        before, after = self._points[max(index - 1, 0)], self._points[index]
        span = after.time_s - before.time_s
        if not np.isfinite(span):
            return before.positions, before.velocities
        u = (now_s - before.time_s) / span
        gap = after.positions - before.positions
        m0, m1 = before.velocities * span, after.velocities * span
        a, b = 3 * gap - 2 * m0 - m1, m0 + m1 - 2 * gap
        return before.positions + u * (m0 + u * (a + u * b)), (m0 + u * (2 * a + u * 3 * b)) / span

    def _coast(self, now_s: float) -> tuple[Vector, Vector]:
        """Beyond the last setpoint: slowing down evenly."""
        last = self._points[-1]
        since_s = min(now_s - last.time_s, COAST_S)
        q = last.positions + last.velocities * (since_s - since_s**2 / (2 * COAST_S))
        return q, last.velocities * (1 - since_s / COAST_S)

    def forget_before(self, now_s: float) -> None:
        """Drop what lies before `now_s`, up to when the arm has followed, but the newest of it."""
        self._used_s = now_s
        index = bisect_right(self._points, now_s, key=lambda point: point.time_s)
        del self._points[: max(index - 1, 0)]

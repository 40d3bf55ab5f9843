"""An arm that exists in thought alone: it stands in for the real one while a motion is tried without moving."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.trajectory import Trajectory


class ShadowArm:
    """Follows exactly what it is sent, from the moment of sending. Times are seconds on one steady clock."""

    def __init__(self) -> None:
        self._sent: tuple[float, Trajectory] | None = None

    def send(self, trajectory: Trajectory, now_s: float) -> None:
        """Follow this from now on."""
        self._sent = (now_s, trajectory)

    def forget(self) -> None:
        """Be where the real arm is, until something is sent."""
        self._sent = None

    def state(
        self, q: NDArray[np.float64], qd: NDArray[np.float64], now_s: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions and velocities (J,) where the real arm has q and qd, rad and rad/s."""
        if self._sent is None:
            return q, qd
        at_s, trajectory = self._sent
        positions, velocities, _ = trajectory.sample(now_s - at_s)
        return positions, velocities

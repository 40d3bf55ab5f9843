"""An ideal arm in virtual time: it follows every trajectory that it is sent from the moment of sending."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.executive import Joints
from embodied_vision.control.trajectory import Trajectory

EPOCH_NS = 1_700_000_000_000_000_000


class Follower:
    """Attributes:
    now_s: virtual steady time.
    sent: everything received, with its time.
    grips: gripper commands with their time.
    """

    def __init__(self, q: NDArray[np.float64]) -> None:
        self.now_s = 100.0
        self.sent: list[tuple[float, Trajectory]] = []
        self.grips: list[tuple[float, float]] = []
        self._q = np.asarray(q, float)

    @property
    def now_ns(self) -> int:
        return EPOCH_NS + round(self.now_s * 1e9)

    def send(self, trajectory: Trajectory) -> None:
        self.sent.append((self.now_s, trajectory))

    def grip(self, command: float) -> None:
        self.grips.append((self.now_s, command))

    def joints(self) -> Joints:
        """Measured now, without any delay."""
        q, qd = self.state(self.now_s)
        return Joints(q, qd, self.now_ns)

    def state(self, now_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        before = [(start, trajectory) for start, trajectory in self.sent if start <= now_s]
        if not before:
            return self._q, np.zeros_like(self._q)
        start, trajectory = before[-1]
        q, qd, _ = trajectory.sample(now_s - start)
        return q, qd

    def moving(self) -> bool:
        return bool(np.abs(self.state(self.now_s)[1]).max() > 1e-3)

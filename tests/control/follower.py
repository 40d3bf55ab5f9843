"""An ideal arm in virtual time: it follows every trajectory that it is sent from the moment of sending.

Like a driver that scales speed it may run through trajectories more slowly, by a clock of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.arm_state import Joints
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
        self._starts: list[float] = []
        self._behind_s = 0.0
        self._pace = 1.0

    @property
    def now_ns(self) -> int:
        return EPOCH_NS + round(self.now_s * 1e9)

    def advance(self, seconds: float, pace: float = 1.0) -> None:
        """Let time go by, with the arm's own clock at `pace` times its speed."""
        self.now_s += seconds
        self._behind_s += seconds * (1.0 - pace)
        self._pace = pace

    def send(self, trajectory: Trajectory, _now_ns: int = 0) -> None:
        self.sent.append((self.now_s, trajectory))
        self._starts.append(self.now_s - self._behind_s)

    def grip(self, command: float) -> None:
        self.grips.append((self.now_s, command))

    def joints(self) -> Joints:
        """Measured now, without any delay."""
        q, qd = self.state(self.now_s)
        return Joints(q, qd, self.now_ns)

    def state(self, now_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        own_s = now_s - self._behind_s
        before = [(start, sent) for start, (_, sent) in zip(self._starts, self.sent, strict=True) if start <= own_s]
        if not before:
            return self._q, np.zeros_like(self._q)
        start, trajectory = before[-1]
        q, qd, _ = trajectory.sample(own_s - start)
        return q, qd * self._pace

    def moving(self) -> bool:
        return bool(np.abs(self.state(self.now_s)[1]).max() > 1e-3)

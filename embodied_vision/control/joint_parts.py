"""Joint states put together from messages that each carry some of the joints, in any order. No ROS."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from embodied_vision.control.arm_state import Joints
from embodied_vision.errors import BadInput


class JointParts:
    """Collects the joints of an arm. A set is complete when every joint has come since the last one.

    Joints of others, such as fingers, may be among them. A joint that comes no more keeps the set from ever being
    complete again, so that its silence is the arm's.

    Args:
        names: of the arm's joints, in the order of the model.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._index = {name: index for index, name in enumerate(names)}
        self._positions = np.full(len(names), np.nan)
        self._velocities = np.zeros(len(names))
        self._stamps = [0] * len(names)
        self._wanted = set(names)

    @property
    def wanted(self) -> list[str]:
        """Joints that the next set still lacks."""
        return sorted(self._wanted, key=self._index.__getitem__)

    def add(
        self, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float], stamp_ns: int
    ) -> Joints | None:
        """Take a message; returns the set that it completes, stamped as its oldest part, or None.

        Velocities that the driver does not send, or sends as NaN, follow from the last two positions.

        Raises:
            BadInput: as many positions as names are needed, and as many velocities or none.
        """
        if len(positions) != len(names) or len(velocities) not in (0, len(names)):
            raise BadInput(
                f"joint_states names {len(names)} joints, {len(positions)} positions and {len(velocities)} velocities; "
                "check the driver"
            )
        for part, name in enumerate(names):
            index = self._index.get(name)
            if index is None:
                continue
            measured = velocities[part] if len(velocities) else math.nan
            known = math.isfinite(measured)
            self._velocities[index] = measured if known else self._rate(index, positions[part], stamp_ns)
            self._positions[index] = positions[part]
            self._stamps[index] = stamp_ns
            self._wanted.discard(name)
        if self._wanted:
            return None
        self._wanted = set(self._index)
        return Joints(self._positions.copy(), self._velocities.copy(), min(self._stamps))

    def _rate(self, index: int, position: float, stamp_ns: int) -> float:
        passed_s = (stamp_ns - self._stamps[index]) * 1e-9
        before = float(self._positions[index])
        return (position - before) / passed_s if passed_s > 0 and np.isfinite(before) else 0.0

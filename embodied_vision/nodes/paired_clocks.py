"""The steady clock by which things are done and the clock of the stamps, as one."""

from __future__ import annotations

import time
from collections.abc import Callable

QUICK_NS = 50_000
"""Two clocks were read together when that took no longer."""

SET_NS = 2_000_000
"""The clock of the stamps was set when it is off by more than this."""


class PairedClocks:
    """Tells the stamp of a steady time and the steady time of a stamp.

    Stamps are as far apart as the moments that they stand for, to the nanosecond: what two readings of two clocks
    would differ by, a trajectory would begin too early or too late.

    Args:
        stamp_ns: reads the clock of the stamps, such as `ManagedNode.now_ns`.
    """

    def __init__(self, stamp_ns: Callable[[], int]) -> None:
        self._stamp_ns = stamp_ns
        self._offset_ns = 0

    def now(self) -> tuple[float, int]:
        """The steady time in s, and its stamp in ns."""
        while True:
            steady_ns, stamp_ns = time.monotonic_ns(), self._stamp_ns()
            if time.monotonic_ns() - steady_ns < QUICK_NS:
                break
        if abs(stamp_ns - steady_ns - self._offset_ns) > SET_NS:
            self._offset_ns = stamp_ns - steady_ns
        return steady_ns * 1e-9, steady_ns + self._offset_ns

    def steady_s(self, stamp_ns: int) -> float:
        """The steady time in s that a stamp stands for."""
        self.now()
        return (stamp_ns - self._offset_ns) * 1e-9

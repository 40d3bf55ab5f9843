"""Notices when the system's clock is set, by comparing it with the steady one. No ROS."""

from __future__ import annotations

import time
from collections.abc import Callable

THRESHOLD_S = 0.05
"""Steps below this are within the slack of all stamps; a clock that is slewed never goes so far between two looks."""

_TRIES = 3
_CLOSE_NS = 1_000_000


class ClockWatch:
    """Compares the clock of the stamps with the steady clock, look by look.

    A machine that slept shows as a jump as well: its steady clock stood meanwhile.

    Args:
        threshold_s: smallest step that counts.
        real_ns, steady_ns: the clocks, ns.
    """

    def __init__(
        self,
        threshold_s: float = THRESHOLD_S,
        real_ns: Callable[[], int] = lambda: time.time_ns(),
        steady_ns: Callable[[], int] = lambda: time.monotonic_ns(),
    ) -> None:
        self._threshold_ns = round(threshold_s * 1e9)
        self._real_ns = real_ns
        self._steady_ns = steady_ns
        self._offset: tuple[int, int] | None = None

    def look(self) -> float:
        """By how much the clock was set since the last look, s; 0 where it was not."""
        before, self._offset = self._offset, self._measure()
        if before is None:
            return 0.0
        (old_low, old_high), (low, high) = before, self._offset
        step_ns = low - old_high if low > old_high else min(0, high - old_low)
        return step_ns * 1e-9 if abs(step_ns) >= self._threshold_ns else 0.0

    def _measure(self) -> tuple[int, int]:
        """Bounds of system minus steady clock, ns; wide where this thread was held up between the readings."""
        for _ in range(_TRIES):
            before = self._steady_ns()
            real = self._real_ns()
            after = self._steady_ns()
            if after - before < _CLOSE_NS:
                break
        return real - after, real - before

"""How long calls take: a histogram that never grows, so that a percentile is one of all calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

_PER_OCTAVE = 16
_BUCKETS = 32 * _PER_OCTAVE


class Durations:
    """Counts durations in buckets of 4.4%; a percentile is the upper edge of its bucket."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.longest_ms = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        microseconds = max(seconds * 1e6, 1.0)
        self._counts[min(math.ceil(math.log2(microseconds) * _PER_OCTAVE), _BUCKETS - 1)] += 1
        self.count += 1
        self.longest_ms = max(self.longest_ms, seconds * 1e3)

    def percentile_ms(self, share: float) -> float:
        """Duration that `share` (0 to 1) of all do not exceed, in ms; 0 without any."""
        wanted, seen = math.ceil(share * self.count), 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(float(2 ** (bucket / _PER_OCTAVE)) / 1e3, self.longest_ms)
        return 0.0

    def to_dict(self) -> dict[str, float]:
        """JSON: count, and p50, p99, max in ms."""
        return {
            "count": self.count,
            "p50": round(self.percentile_ms(0.5), 4),
            "p99": round(self.percentile_ms(0.99), 4),
            "max": round(self.longest_ms, 4),
        }

    def timed(self, callback: Callable[..., None]) -> Callable[..., None]:
        """`callback`, every call of which is counted."""

        @wraps(callback)
        def timed(*arguments: Any) -> None:
            begun = time.perf_counter()
            try:
                callback(*arguments)
            finally:
                self.add(time.perf_counter() - begun)

        return timed

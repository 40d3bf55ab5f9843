"""Which logged samples stand for given times: hold, nearest or interpolate. Stamps are int64 ns, exact throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Alignment = Literal["hold", "nearest", "interpolate"]
ALIGNMENTS: tuple[Alignment, ...] = ("hold", "nearest", "interpolate")

_LAST_NS = np.iinfo(np.int64).max

Times = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Timeline:
    """The samples of a stream in the order of their stamps.

    Of samples with the same stamp the one logged last counts: it is what was known then.

    Attributes:
        stamps_ns: int64 (M,), strictly increasing.
        numbers: int64 (M,), place of each sample in the order of logging.
    """

    stamps_ns: Times
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, stamps_ns: Times) -> Timeline:
        """Order the stamps of a stream, which may be logged out of order and repeat."""
        order = np.argsort(stamps_ns, kind="stable")
        ordered = stamps_ns[order]
        last = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, bool)
        return cls(ordered[last], order[last])

    def __len__(self) -> int:
        return len(self.stamps_ns)


@dataclass(frozen=True, eq=False)
class Aligned:
    """Samples that stand for K times, as places in a timeline.

    Attributes:
        first: int64 (K,), the sample taken; the one before the time where two are interpolated. Where there is none,
            the one that would be taken if nothing bounded the search.
        second: int64 (K,), the sample after the time where two are interpolated, else `first`.
        weight: float64 (K,) of `second`, in [0, 1).
        padded: bool (K,), True where no sample stands for the time.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight: NDArray[np.float64]
    padded: NDArray[np.bool_]


def align(timeline: Timeline, times_ns: Times, how: Alignment, tolerance_ns: int | None, end_ns: int) -> Aligned:
    """Find the samples for the given times.

    Args:
        timeline: at least one sample.
        times_ns: int64 (K,).
        how: `hold`, the last sample at or before the time: what a causal controller would have known. `nearest`,
            the sample closest to it, of two as close the earlier. `interpolate`, between the samples around it.
        tolerance_ns: None for no bound. `hold`: the greatest age. `nearest`: the greatest distance. `interpolate`:
            the greatest distance between the two samples.
        end_ns: `hold` holds the last sample until then and no longer.
    """
    stamps = timeline.stamps_ns
    last = len(stamps) - 1
    place = np.searchsorted(stamps, times_ns, side="right") - 1
    before, after = np.maximum(place, 0), np.minimum(place + 1, last)
    weight = np.zeros(len(times_ns))
    limit = np.uint64(_LAST_NS if tolerance_ns is None else tolerance_ns)
    bounded = tolerance_ns is not None
    if how == "hold":
        padded = (place < 0) | (times_ns > max(end_ns, int(stamps[-1])))
        padded |= bounded & (_distance(times_ns, stamps[before]) > limit)
        return Aligned(before, before, weight, padded)
    if how == "nearest":
        to_before, to_after = _distance(times_ns, stamps[before]), _distance(times_ns, stamps[after])
        nearest = np.where(to_after < to_before, after, before)
        padded = bounded & (np.minimum(to_before, to_after) > limit)
        return Aligned(nearest, nearest, weight, padded)
    exact = (place >= 0) & (stamps[before] == times_ns)
    padded = ~exact & ((place < 0) | (place == last))
    between = ~exact & ~padded
    span = _distance(stamps[after], stamps[before])
    padded |= between & bounded & (span > limit)
    between &= ~padded
    weight[between] = _distance(times_ns, stamps[before])[between] / span[between]
    # So close to the second that the quotient rounds to it.
    weight = np.minimum(weight, np.nextafter(1.0, 0.0))
    return Aligned(before, np.where(between, after, before), weight, padded)


def ages(times_ns: Times, stamps_ns: Times) -> Times:
    """How much older than the times the stamps are, int64 ns; negative for later ones, and never wrapped around."""
    distance = np.minimum(_distance(times_ns, stamps_ns), np.uint64(_LAST_NS)).astype(np.int64)
    return np.where(times_ns >= stamps_ns, distance, -distance)


def _distance(one: Times, other: Times) -> NDArray[np.uint64]:
    """|one - other|, exact for all int64: a difference of unsigned numbers wraps to the right one."""
    high, low = np.maximum(one, other), np.minimum(one, other)
    return high.view(np.uint64) - low.view(np.uint64)

"""Random access to windows of an episode: for any moment, samples of several streams around it, aligned by stamp.

    windows = Windows(
        episode,
        {
            "cameras/front/color": Sampling.every(30, first=-1, length=2, align="nearest", tolerance_s=0.02),
            "streams/joint_states": Sampling.every(30, first=-15, length=16),
            "streams/commands": Sampling.every(30, length=16, align="interpolate"),
        },
    )
    window = windows[12]["streams/joint_states"]  # around the 13th frame of the camera
    window.values, window.padded

Keys are those of the episode's arrays: `cameras/NAME/color`, `cameras/NAME/depth`, `streams/NAME`, `decisions`, and
`cameras/NAME/features` where a cache of features is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.alignment import ALIGNMENTS, Aligned, Alignment, Timeline, ages, align
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.sources import OpenFeatures, Source, open_source, stamps_of
from embodied_vision.errors import BadInput

Fill = Literal["zeros", "edge"]

NO_STAMP = np.iinfo(np.int64).min
"""Stamp of a place that no sample was taken for."""
NO_AGE = np.iinfo(np.int64).max
"""Age of such a place: older than anything."""

_FURTHEST_NS = 10**18


@dataclass(frozen=True)
class Sampling:
    """When a stream is sampled around the anchor, and which samples stand for these times.

    Attributes:
        offsets_ns: times relative to the anchor, in any order.
        align: `hold` takes the last sample at or before the time, what a causal controller would have known;
            `nearest` the closest, of two as close the earlier; `interpolate` goes linearly between the two around it.
        tolerance_ns: the greatest age (`hold`), distance (`nearest`, which needs one) or distance between the two
            samples (`interpolate`); beyond it the place is padding. None is no bound.
        angles: `interpolate` goes the shorter way round; the values are in rad.
        fill: what stands where there is padding: `zeros`, or `edge`, the sample that would have been taken without
            bounds, which may lie after the time.

    Raises:
        BadInput: one of them cannot be used.
    """

    offsets_ns: tuple[int, ...]
    align: Alignment = "hold"
    tolerance_ns: int | None = None
    angles: bool = False
    fill: Fill = "zeros"

    def __post_init__(self) -> None:
        if not self.offsets_ns:
            raise BadInput("a sampling without offsets takes nothing; give at least one")
        if any(abs(offset) > _FURTHEST_NS for offset in self.offsets_ns):
            raise BadInput(f"offsets {self.offsets_ns} ns reach further than {_FURTHEST_NS} ns; give them in ns")
        if self.align not in ALIGNMENTS:
            raise BadInput(f"alignment {self.align!r} is unknown; give one of {', '.join(ALIGNMENTS)}")
        if self.fill not in ("zeros", "edge"):
            raise BadInput(f"fill {self.fill!r} is unknown; give zeros or edge")
        if self.tolerance_ns is not None and not 0 <= self.tolerance_ns <= _FURTHEST_NS:
            raise BadInput(f"tolerance {self.tolerance_ns} ns is out of range; give 0 to {_FURTHEST_NS}")
        if self.align == "nearest" and self.tolerance_ns is None:
            raise BadInput("nearest without a tolerance takes samples from anywhere; give one, such as half a period")
        if self.angles and self.align != "interpolate":
            raise BadInput(f"angles says how to interpolate, the alignment is {self.align!r}; leave it out")

    @classmethod
    def at(
        cls,
        *offsets_s: float,
        align: Alignment = "hold",
        tolerance_s: float | None = None,
        angles: bool = False,
        fill: Fill = "zeros",
    ) -> Self:
        """Offsets and tolerance in seconds, like LeRobot's `delta_timestamps`."""
        offsets = tuple(_to_ns(offset, "offset") for offset in offsets_s)
        return cls(offsets, align, None if tolerance_s is None else _to_ns(tolerance_s, "tolerance"), angles, fill)

    @classmethod
    def every(
        cls,
        rate_hz: float,
        *,
        length: int,
        first: int = 0,
        align: Alignment = "hold",
        tolerance_s: float | None = None,
        angles: bool = False,
        fill: Fill = "zeros",
    ) -> Self:
        """`length` offsets at a rate, beginning `first` periods after the anchor (before it where negative)."""
        if not (math.isfinite(rate_hz) and rate_hz > 0):
            raise BadInput(f"rate {rate_hz} Hz is no rate; give a positive number")
        if length < 1:
            raise BadInput(f"length {length} takes nothing; give at least 1")
        offsets = tuple(round(step * 10**9 / Fraction(rate_hz)) for step in range(first, first + length))
        return cls(offsets, align, None if tolerance_s is None else _to_ns(tolerance_s, "tolerance"), angles, fill)


@dataclass(frozen=True, eq=False)
class Window:
    """What a stream holds for K times.

    Attributes:
        values: (K, …), as logged; interpolated ones float64. NaN that were logged come back as NaN.
        padded: bool (K,), True where no sample stands for the time: before the first, after the last, or further
            off than the tolerance. The values there are the filling and no data.
        times_ns: int64 (K,), the times asked for.
        stamps_ns: int64 (K,), of the samples taken; of the earlier one where two are interpolated.
        later_ns: int64 (K,), of the later one of two, else as `stamps_ns`.
        ages_ns: int64 (K,), `times_ns - stamps_ns`: negative where the nearest sample came later.
        numbers: int64 (K,), places of the samples of `stamps_ns` in the order of logging.

    Where `zeros` fill, stamps are `NO_STAMP`, ages `NO_AGE` and numbers -1.
    """

    values: NDArray[Any]
    padded: NDArray[np.bool_]
    times_ns: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    later_ns: NDArray[np.int64]
    ages_ns: NDArray[np.int64]
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.padded)


class Windows(Sequence[dict[str, Window]]):
    """The windows of one episode. Stamps are held in memory, values are read when asked for; holds no file open.

    Args:
        episode: whose.
        samplings: what is sampled when, by key.
        reference: key whose samples are the anchors of `windows[n]`, in the order of logging; the first one of
            `samplings` without it. Its last stamp is the end of the episode: `hold` holds the last sample of every
            stream until then (or the stream's own end, if later), and what lies after it is padding.
        threads: that decode images; None takes the cores that this process may use.
        features: opens the cached features of a camera; see `episodes.features.FeatureCache`.

    Raises:
        BadInput: a key is unknown, or what it names cannot be interpolated.
        EpisodeError: stamps are damaged.

    Attributes:
        episode: whose they are.
        anchors_ns: int64 (N,), stamps of the reference in the order of logging.
    """

    def __init__(
        self,
        episode: Episode,
        samplings: Mapping[str, Sampling],
        *,
        reference: str | None = None,
        threads: int | None = None,
        features: OpenFeatures | None = None,
    ) -> None:
        if not samplings:
            raise BadInput("windows of nothing; name at least one stream with its sampling")
        self.episode = episode
        self._samplings = dict(samplings)
        self._sources: dict[str, Source] = {}
        self._timelines: dict[str, Timeline] = {}
        lines: dict[str, Timeline] = {}  # color and depth of a camera share their stamps
        for key, sampling in samplings.items():
            source = open_source(episode, key, threads, features)
            if sampling.align == "interpolate" and not source.continuous:
                raise BadInput(f"{key} cannot be interpolated; align it by hold or nearest")
            self._sources[key] = source
            line = lines.get(source.clock)
            self._timelines[key] = lines[source.clock] = line if line is not None else Timeline.of(source.stamps_ns)
        self.anchors_ns = stamps_of(episode, reference if reference is not None else next(iter(samplings)))
        self._end_ns = int(self.anchors_ns.max()) if len(self.anchors_ns) else NO_STAMP

    def __len__(self) -> int:
        return len(self.anchors_ns)

    @overload
    def __getitem__(self, index: int) -> dict[str, Window]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Window]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Window] | list[dict[str, Window]]:
        """The window around the sample `index` of the reference, by key; a list of them for a slice.

        Raises:
            IndexError: there is no such sample.
            EpisodeError: data are damaged.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)} of episode {self.episode.id}")
        return self.at(int(self.anchors_ns[index]))

    def at(self, anchor_ns: int) -> dict[str, Window]:
        """The window around any time, ns, by key.

        Raises:
            BadInput: the times around it are no int64 ns.
            EpisodeError: data are damaged.
        """
        return {key: self._window(key, anchor_ns) for key in self._samplings}

    def _window(self, key: str, anchor_ns: int) -> Window:
        sampling, source, timeline = self._samplings[key], self._sources[key], self._timelines[key]
        times = [int(anchor_ns) + offset for offset in sampling.offsets_ns]
        if min(times) <= NO_STAMP or max(times) > NO_AGE:
            raise BadInput(f"{key}: the window around {anchor_ns} ns leaves int64; give a stamp in ns")
        times_ns = np.array(times, np.int64)
        if not len(timeline):
            nothing = np.full(len(times), NO_STAMP)
            return Window(
                values=np.zeros((len(times), *source.item), source.dtype),
                padded=np.ones(len(times), bool),
                times_ns=times_ns,
                stamps_ns=nothing,
                later_ns=nothing,
                ages_ns=np.full(len(times), NO_AGE),
                numbers=np.full(len(times), -1),
            )
        found = align(timeline, times_ns, sampling.align, sampling.tolerance_ns, self._end_ns)
        filled = ~found.padded | (sampling.fill == "edge")
        stamps_ns = timeline.stamps_ns[found.first]
        return Window(
            values=_values(source, timeline, found, filled, sampling.angles),
            padded=found.padded,
            times_ns=times_ns,
            stamps_ns=np.where(filled, stamps_ns, NO_STAMP),
            later_ns=np.where(filled, timeline.stamps_ns[found.second], NO_STAMP),
            ages_ns=np.where(filled, ages(times_ns, stamps_ns), NO_AGE),
            numbers=np.where(filled, timeline.numbers[found.first], -1),
        )


def _values(
    source: Source, timeline: Timeline, found: Aligned, filled: NDArray[np.bool_], angles: bool
) -> NDArray[Any]:
    numbers = timeline.numbers[found.first]
    if filled.all():
        values = source.read(numbers)
    else:
        values = np.zeros((len(numbers), *source.item), source.dtype)
        if filled.any():
            values[filled] = source.read(numbers[filled])
    between = found.first != found.second
    if between.any():
        later = source.read(timeline.numbers[found.second[between]])
        values[between] = _between(values[between], later, found.weight[between, None], angles)
    return values


def _between(
    one: NDArray[np.float64], other: NDArray[np.float64], weight: NDArray[np.float64], angles: bool
) -> NDArray[np.float64]:
    """Weighted mean, exact where both are the same; NaN where one is."""
    with np.errstate(invalid="ignore", over="ignore"):
        if angles:
            turn = np.remainder(other - one + math.pi, 2 * math.pi) - math.pi
            return one + weight * turn
        return np.where(one == other, one, (1 - weight) * one + weight * other)


def _to_ns(seconds: float, what: str) -> int:
    if not math.isfinite(seconds):
        raise BadInput(f"{what} {seconds} s is no time; give a finite number of seconds")
    return round(Fraction(seconds) * 10**9)

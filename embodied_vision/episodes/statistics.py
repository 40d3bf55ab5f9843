"""What a set of episodes holds in all: hours, frames, success, values of the streams, bytes."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.manifest import MANIFEST, read_manifest
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.schema import GROUP, folder_name

Columns = NDArray[np.float64]


@dataclass
class Values:
    """Of one stream, by dimension, over all finite values (Chan et al., 1979: merged without a second pass).

    Attributes:
        samples: rows that were added.
        non_finite: values that were NaN or infinite, and count nowhere else.
        count, mean, low, high: (D,) each.
    """

    dimension: int
    samples: int = 0
    non_finite: int = 0
    count: Columns = field(init=False)
    mean: Columns = field(init=False)
    low: Columns = field(init=False)
    high: Columns = field(init=False)
    _squares: Columns = field(init=False)

    def __post_init__(self) -> None:
        self.count, self.mean, self._squares = (np.zeros(self.dimension) for _ in range(3))
        self.low, self.high = np.full(self.dimension, np.inf), np.full(self.dimension, -np.inf)

    def add(self, values: NDArray[np.float64]) -> None:
        """Add rows (T, D)."""
        finite = np.isfinite(values)
        count = finite.sum(0)
        self.samples += len(values)
        self.non_finite += int(values.size - count.sum())
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.where(finite, values, 0).sum(0) / np.maximum(count, 1)
            squares = np.where(finite, values - mean, 0) ** 2
            total = np.maximum(self.count + count, 1)
            apart = mean - self.mean
            self._squares += squares.sum(0) + apart**2 * self.count * count / total
            self.mean = self.mean + apart * count / total
        self.count = self.count + count
        self.low = np.minimum(self.low, np.where(finite, values, np.inf).min(0, initial=np.inf))
        self.high = np.maximum(self.high, np.where(finite, values, -np.inf).max(0, initial=-np.inf))

    @property
    def std(self) -> Columns:
        """Standard deviation (D,) of the values, not of an estimate."""
        return np.sqrt(self._squares / np.maximum(self.count, 1))


@dataclass
class Images:
    """Of one camera.

    Attributes:
        frames: how many.
        bytes: of color and depth on the disk.
        spans_s: time from the first to the last frame, of all episodes together.
        gaps: times between neighbouring frames, how many.
    """

    frames: int = 0
    bytes: int = 0
    spans_s: float = 0.0
    gaps: int = 0


@dataclass
class Statistics:
    """Of the episodes that were added.

    Attributes:
        lengths_s: of each episode, from its first stamp to its last.
        cameras, streams: by name; streams by their dimension as well.
        outcomes: (solved, all that tell) by (task, policy_id).
        untold: episodes whose outcome does not tell whether they were solved.
        decisions: how many.
        bytes: on the disk by part: color, depth, streams, decisions, metadata.
    """

    lengths_s: list[float] = field(default_factory=list)
    cameras: dict[str, Images] = field(default_factory=lambda: defaultdict(Images))
    streams: dict[tuple[str, int], Values] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    untold: int = 0
    decisions: int = 0
    bytes: Counter[str] = field(default_factory=Counter)

    def add(self, episode: Episode) -> None:
        """Read an episode's stamps and streams, and add it whole or not at all.

        Raises:
            EpisodeError: its data are damaged.
        """
        cameras = {name: episode.frames(name).stamps_ns for name in episode.cameras}
        streams = {name: episode.stream(name) for name in episode.streams}
        decided = [episode.decisions.action(number).stamp_ns for number in range(len(episode.decisions))]
        files = read_manifest(episode.location)

        stamps = [*cameras.values(), *(stamps for stamps, _ in streams.values()), np.array(decided, np.int64)]
        ends = [(int(part.min()), int(part.max())) for part in stamps if len(part)]
        self.lengths_s.append((max(e for _, e in ends) - min(b for b, _ in ends)) / 1e9 if ends else 0.0)
        for name, frames in cameras.items():
            images = self.cameras[name]
            images.frames += len(frames)
            images.spans_s += float(np.ptp(frames)) / 1e9 if len(frames) else 0.0
            images.gaps += max(0, len(frames) - 1)
            below = f"{GROUP}/cameras/{folder_name(name)}/"
            images.bytes += sum(entry.size for file, entry in files.items() if file.startswith(below))
        for name, (_, values) in streams.items():
            key = name, values.shape[1]
            self.streams.setdefault(key, Values(values.shape[1])).add(values)
        self._add_outcome(episode)
        self.decisions += len(decided)
        for file, entry in files.items():
            self.bytes[_part(file)] += entry.size

    def _add_outcome(self, episode: Episode) -> None:
        solved = episode.outcome.get("solved")
        if not isinstance(solved, bool):
            self.untold += 1
            return
        key = episode.task, episode.policy_id
        successes, told = self.outcomes.get(key, (0, 0))
        self.outcomes[key] = successes + solved, told + 1


def _part(file: str) -> str:
    """What a file of an episode is."""
    parts = file.split("/")
    if parts[-1] in ("zarr.json", MANIFEST):
        return "metadata"
    if parts[1:2] == ["cameras"]:
        return "depth" if "depth" in parts[3:] else "color" if "color" in parts[3:] else "stamps"
    return parts[1] if len(parts) > 1 and parts[1] in ("streams", "decisions") else "other"

"""Views from logged frames: several cameras at one moment, or one camera at neighbouring moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embodied_vision.encoders.views import ViewSet
from embodied_vision.types import RGBD, Camera


class LoggedFrames(Protocol):
    """Frames of one camera in the order of their stamps."""

    @property
    def stamps_ns(self) -> NDArray[np.int64]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> RGBD: ...


class LoggedEpisode(Protocol):
    """What an episode offers here."""

    @property
    def cameras(self) -> Mapping[str, Camera]: ...

    def frames(self, camera: str) -> LoggedFrames: ...


def logged_views(
    episodes: Iterable[LoggedEpisode], *, moments: int = 8, neighbours: int = 3, gap_ns: int = 500_000_000
) -> Iterator[ViewSet]:
    """For each episode, up to `moments` sets spread evenly over it.

    A set holds the frame of the first camera nearest to the moment and the frames of the others nearest to that
    one; of a lone camera also the frames at the
    next moments `gap_ns` apart. What moved meanwhile (the arm, the block that it carries) no longer lies at its
    depth and drops out of the correspondences by itself.

    Args:
        episodes: opened one after the other.
        moments: sets an episode.
        neighbours: frames of a lone camera in a set.
        gap_ns: time between them.
    """
    for episode in episodes:
        streams = [frames for frames in map(episode.frames, sorted(episode.cameras)) if len(frames)]
        if not streams:
            continue
        first, last = int(streams[0].stamps_ns[0]), int(streams[0].stamps_ns[-1])
        for moment in np.unique(np.linspace(first, last, moments).astype(np.int64)):
            if len(streams) > 1:
                shutter = int(streams[0].stamps_ns[_nearest(streams[0], int(moment))])
                chosen = [(stream, _nearest(stream, shutter)) for stream in streams]
            else:
                times = [int(moment) + k * gap_ns for k in range(neighbours)]
                chosen = [(streams[0], i) for i in sorted({_nearest(streams[0], t) for t in times})]
            yield ViewSet(tuple(stream[i] for stream, i in chosen))


def _nearest(frames: LoggedFrames, stamp_ns: int) -> int:
    return int(np.abs(frames.stamps_ns - stamp_ns).argmin())

"""What a key such as `cameras/front/color` names in an episode: its stamps, and its values by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.batch import read_chunks
from embodied_vision.episodes.reader import Episode
from embodied_vision.errors import BadInput

Numbers = NDArray[np.int64]
_FRAME_PARTS = ("color", "depth", "features")


class FrameFeatures(Protocol):
    """Features of every frame of a camera."""

    @property
    def item(self) -> tuple[int, ...]:
        """Shape (h, w, D) of those of one frame."""

    def grids(self, numbers: Numbers, threads: int | None) -> NDArray[np.float16]:
        """Features (N, h, w, D) of frames."""


OpenFeatures = Callable[[Episode, str], FrameFeatures]
"""Opens the features of a camera of an episode."""


@dataclass(frozen=True, eq=False)
class Source:
    """Samples that can be read by number.

    Attributes:
        clock: name of its stamps; sources with the same clock have the same stamps.
        stamps_ns: int64 (T,), in the order of logging.
        item, dtype: shape and type of one sample.
        read: values (N, *item) of samples, fresh, in the order asked for.
        continuous: whether values between two samples mean anything.
    """

    clock: str
    stamps_ns: NDArray[np.int64]
    item: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Numbers], NDArray[Any]]
    continuous: bool = False


def open_source(episode: Episode, key: str, threads: int | None, features: OpenFeatures | None) -> Source:
    """What `key` names in an episode.

    Args:
        episode: whose.
        key: `cameras/NAME/color`, `cameras/NAME/depth`, `cameras/NAME/features`, `streams/NAME` or `decisions`.
        threads: that decode images; None takes the cores that this process may use.
        features: opens cached features.

    Raises:
        BadInput: the episode has nothing of that name.
        EpisodeError: its stamps are damaged.
    """
    kind, name, part = _split(episode, key)
    if kind == "cameras":
        return _of_camera(episode, name, part, threads, features)
    if kind == "streams":
        return _of_stream(episode, name)
    return _of_decisions(episode)


def stamps_of(episode: Episode, key: str) -> NDArray[np.int64]:
    """Stamps of what `key` names, int64 (T,) ns, in the order of logging; errors as of `open_source`."""
    kind, name, _ = _split(episode, key)
    if kind == "cameras":
        return episode.frames(name).stamps_ns
    return episode.stream_arrays(name)[0].values() if kind == "streams" else episode.decisions.stamps_ns


def _split(episode: Episode, key: str) -> tuple[str, str, str]:
    """Kind, name and part; the name of a camera or stream may hold slashes."""
    kind, _, rest = key.partition("/")
    if kind == "cameras":
        name, _, part = rest.rpartition("/")
        if part in _FRAME_PARTS and name in episode.cameras:
            return kind, name, part
    elif kind == "streams" and rest in episode.streams:
        return kind, rest, ""
    elif key == "decisions":
        return key, "", ""
    offered = [f"cameras/{name}/{{color,depth}}" for name in sorted(episode.cameras)]
    offered += [f"streams/{name}" for name in sorted(episode.streams)] + ["decisions"]
    raise BadInput(f"episode {episode.id} has no {key!r}; it has {', '.join(offered)}")


def _of_camera(episode: Episode, name: str, part: str, threads: int | None, features: OpenFeatures | None) -> Source:
    frames, camera, clock = episode.frames(name), episode.cameras[name], f"cameras/{name}"
    if part == "features":
        if features is None:
            raise BadInput(f"cameras/{name}/features needs a cache of features; give one, or ask for color")
        opened = features(episode, name)
        return Source(
            clock, frames.stamps_ns, opened.item, np.dtype(np.float16), lambda numbers: opened.grids(numbers, threads)
        )
    size = (camera.height, camera.width)
    if part == "color":
        return Source(
            clock, frames.stamps_ns, (*size, 3), np.dtype(np.uint8), lambda numbers: frames.colors(numbers, threads)
        )
    return Source(
        clock, frames.stamps_ns, size, np.dtype(np.uint16), lambda numbers: frames.depths_mm(numbers, threads)
    )


def _of_stream(episode: Episode, name: str) -> Source:
    stamps, values = episode.stream_arrays(name)
    size = values.spec.chunk

    def read(numbers: Numbers) -> NDArray[Any]:
        # Long streams are not held in memory: a window lies in one or two of their chunks.
        chunks, which = np.unique(numbers // size, return_inverse=True)
        return read_chunks(values, chunks, 1)[which, numbers % size]

    return Source(f"streams/{name}", stamps.values(), values.spec.item, np.dtype(np.float64), read, continuous=True)


def _of_decisions(episode: Episode) -> Source:
    decisions = episode.decisions

    def read(numbers: Numbers) -> NDArray[Any]:
        actions = [decisions.action(int(number)) for number in numbers]
        return np.array([[action.pick, action.place] for action in actions]).reshape(-1, 2, 4, 4)

    return Source("decisions", decisions.stamps_ns, (2, 4, 4), np.dtype(np.float64), read)

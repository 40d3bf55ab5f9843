"""An episode as a video: all cameras side by side, each frame shown at its stamp, which is drawn in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from embodied_vision.episodes.picture import first_stamp_ns
from embodied_vision.episodes.reader import Episode, Frames
from embodied_vision.errors import BadInput

CODECS = ("libx264", "mpeg4")
"""The first that FFmpeg was built with is taken."""

_TICKS = 90_000
_SMALLEST, _WIDEST = 360, 1920
_DECISION_S = 1.0
"""How long a decision is named in the picture."""

Progress = Callable[[int, int], None]
"""Told how many pictures are written, of how many."""


def video(episode: Episode, path: Path, progress: Progress | None = None) -> None:
    """Write an episode as MP4. Its pictures last as long as they did; a camera shows its last frame until the next.

    Args:
        episode: which.
        path: of the file, which is overwritten.
        progress: told how far it is.

    Raises:
        BadInput: the episode has no frames, or FFmpeg has no codec for it.
        EpisodeError: its data are damaged.
        OSError: the file cannot be written.
    """
    cameras = [(name, episode.frames(name)) for name in episode.cameras if len(episode.frames(name))]
    if not cameras:
        raise BadInput(f"episode {episode.id} holds no frames to make a video of")
    codec = next((name for name in CODECS if name in av.codecs_available), None)
    if codec is None:
        raise BadInput(f"this FFmpeg has none of the codecs {', '.join(CODECS)}; install PyAV from its wheel")
    start_ns = first_stamp_ns(episode)
    moments = _moments([frames for _, frames in cameras], start_ns)
    sizes = _sizes([frames for _, frames in cameras])
    decided = [
        (_tick(episode.decisions.action(number).stamp_ns, start_ns), number + 1)
        for number in range(len(episode.decisions))
    ]
    with av.open(str(path), "w", format="mp4") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=30))
        stream.width, stream.height = sum(width for width, _ in sizes), sizes[0][1]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
        if codec == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast"}
        tiles: list[NDArray[np.uint8]] = [np.zeros((height, width, 3), np.uint8) for width, height in sizes]
        for count, (tick, changed) in enumerate(moments):
            recent = [number for decided_at, number in decided if 0 <= tick - decided_at < _DECISION_S * _TICKS]
            for camera, index in changed.items():
                name, frames = cameras[camera]
                label = f"{name}  {(frames.stamps_ns[index] - start_ns) / 1e9:.3f} s  {frames.stamps_ns[index]} ns"
                tiles[camera] = _tile(frames.color(index), sizes[camera], label, recent)
            picture = av.VideoFrame.from_ndarray(np.concatenate(tiles, axis=1), format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, _TICKS)
            container.mux(stream.encode(picture))
            if progress is not None:
                progress(count + 1, len(moments))
        container.mux(stream.encode(None))


def _moments(cameras: list[Frames], start_ns: int) -> list[tuple[int, dict[int, int]]]:
    """When a picture changes, in ticks since the start, and the frame of each camera that is new then."""
    moments: dict[int, dict[int, int]] = {}
    for camera, frames in enumerate(cameras):
        for index in np.argsort(frames.stamps_ns, kind="stable"):
            moments.setdefault(_tick(int(frames.stamps_ns[index]), start_ns), {})[camera] = int(index)
    return sorted(moments.items())


def _tick(stamp_ns: int, start_ns: int) -> int:
    return (stamp_ns - start_ns) * _TICKS // 10**9


def _sizes(cameras: list[Frames]) -> list[tuple[int, int]]:
    """(width, height) of each tile, even numbers: all of the height of the highest, within what plays everywhere."""
    shapes = [(frames.camera.width, frames.camera.height) for frames in cameras]
    height = float(max(_SMALLEST, *(height for _, height in shapes)) if shapes else _SMALLEST)
    total = sum(width * height / own for width, own in shapes)
    height *= min(1.0, _WIDEST / total)
    return [(_even(width * height / own), _even(height)) for width, own in shapes]


def _even(length: float) -> int:
    return max(2, round(length / 2) * 2)


def _tile(color: NDArray[np.uint8], size: tuple[int, int], label: str, recent: list[int]) -> NDArray[np.uint8]:
    image = Image.fromarray(color).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(9, size[1] // 28))
    for anchor, where, text in _labels(size, label, recent):
        draw.rectangle(draw.textbbox(where, text, font, anchor), fill="black")
        draw.text(where, text, "white", font, anchor)
    return np.asarray(image)


def _labels(size: tuple[int, int], label: str, recent: list[int]) -> Iterator[tuple[str, tuple[int, int], str]]:
    yield "la", (4, 3), label
    if recent:
        yield "ld", (4, size[1] - 4), f"decision {', '.join(map(str, recent))}"

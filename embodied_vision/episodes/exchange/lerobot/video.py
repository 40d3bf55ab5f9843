"""Videos of a LeRobotDataset: AV1 as lerobot makes them, and read with every bound checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from embodied_vision.errors import BadInput
from embodied_vision.priority import at_same_priority

CODEC = "libsvtav1"
OPTIONS = {"g": "2", "crf": "30", "preset": "10"}
"""lerobot's own: every other frame stands by itself, so that any can be reached fast."""
PIXELS = "yuv420p"
SMALLEST = 64
"""px; smaller images, and such of odd sizes, are kept as images: the codec does not take them."""
_INPUTS = {"av1", "libdav1d", "h264", "hevc", "vp9", "libvpx-vp9"}


def fits(height: int, width: int) -> bool:
    """Whether images of that size can be a video."""
    return min(height, width) >= SMALLEST and height % 2 == 0 and width % 2 == 0


class VideoWriter:
    """One video file, at a fixed rate.

    Attributes:
        frames: written so far.
    """

    def __init__(self, path: Path, height: int, width: int, rate_hz: int) -> None:
        os.environ.setdefault("SVT_LOG", "1")  # the encoder tells its settings on stderr otherwise
        path.parent.mkdir(parents=True, exist_ok=True)
        self.frames = 0
        self._file = open(path, "xb")  # noqa: SIM115 closed by `close`
        self._container = av.open(self._file, "w", format="mp4")
        self._stream = cast(VideoStream, self._container.add_stream(CODEC, rate_hz, options=dict(OPTIONS)))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXELS
        at_same_priority(self._stream.codec_context.open)

    @property
    def size(self) -> int:
        """Bytes that have been written; the encoder holds back some frames."""
        return self._file.tell()

    def add(self, color: NDArray[np.uint8]) -> None:
        """Append a frame, uint8 (H, W, 3)."""
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(color), format="rgb24")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self.frames += 1

    def close(self) -> None:
        """End the file."""
        with self._file:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
            self._container.close()


def video_info(height: int, width: int, rate_hz: int) -> dict[str, object]:
    """What info.json tells of such a video."""
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": "av1",
        "video.pix_fmt": PIXELS,
        "video.is_depth_map": False,
        "video.fps": rate_hz,
        "video.channels": 3,
        "has_audio": False,
    }


def read_frames(
    file: BinaryIO, where: str, *, size: tuple[int, int], rate_hz: float, begin_s: float, count: int
) -> Iterator[NDArray[np.uint8]]:
    """Frames of a video by time, uint8 (H, W, 3), one after the other.

    Args:
        file: MP4. It is read as such whatever it holds: lists of other files and addresses are not followed.
        where: its name, for errors.
        size: (H, W) px that it must have; nothing larger is decoded.
        rate_hz: frames a second.
        begin_s: time of the first one.
        count: how many, at `begin_s` + k / `rate_hz`.

    Raises:
        BadInput: it is damaged, of another size, or lacks a frame.
    """
    try:
        with av.open(file, format="mp4") as container:
            yield from _frames(cast(InputContainer, container), where, size, rate_hz, begin_s, count)
    except (av.FFmpegError, OSError, ValueError, MemoryError, OverflowError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{where} cannot be read as a video ({error or 'out of memory'}); copy it anew") from error


def _frames(
    container: InputContainer,
    where: str,
    size: tuple[int, int],
    rate_hz: float,
    begin_s: float,
    count: int,
) -> Iterator[NDArray[np.uint8]]:
    if len(container.streams.video) != 1:
        raise BadInput(f"{where} holds {len(container.streams.video)} videos, expected one")
    stream = container.streams.video[0]
    codec: VideoCodecContext | None = stream.codec_context  # none where the codec is unknown
    if codec is None or codec.name not in _INPUTS:
        coded = "an unknown codec" if codec is None else repr(codec.name)
        raise BadInput(f"{where} is coded by {coded}; convert it to one of {sorted(_INPUTS)}")
    if (codec.height, codec.width) != size:
        raise BadInput(f"{where} is {codec.width}x{codec.height}, its dataset says {size[1]}x{size[0]}")
    codec.options = {"max_pixels": str((size[0] + 128) * (size[1] + 128)), "err_detect": "explode"}
    codec.thread_count = 1  # a frame a thread is more memory than a small bound allows
    if stream.time_base is None:
        raise BadInput(f"{where} has no time base; copy it anew")
    tolerance_s, wanted = 0.4 / rate_hz, 0
    container.seek(max(0, int((begin_s - tolerance_s) / stream.time_base)), stream=stream)
    for frame in container.decode(stream):
        if frame.pts is None:
            raise BadInput(f"{where} has a frame without a time; copy it anew")
        behind_s = float(frame.pts * stream.time_base) - (begin_s + wanted / rate_hz)
        if behind_s < -tolerance_s:
            continue  # before the episode, since the seek ends at the key frame before it
        if behind_s > tolerance_s:
            break
        if frame.is_corrupt or (frame.height, frame.width) != size:
            raise BadInput(f"{where} is damaged at {begin_s + wanted / rate_hz:.3f} s; copy it anew")
        yield cast(NDArray[np.uint8], frame.to_ndarray(format="rgb24"))
        wanted += 1
        if wanted == count:
            return
    raise BadInput(f"{where} has no frame at {begin_s + wanted / rate_hz:.3f} s; it is cut short: copy it anew")

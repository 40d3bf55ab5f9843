"""Sizes of images and videos at the PSNR of what the store keeps, on the same frames."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import av
import imagecodecs
import numpy as np
from av.video.frame import VideoFrame
from peers.frames import HEIGHT, QUALITY, RATE_HZ, WIDTH, Color, Data, psnr

from embodied_vision.episodes.htj2k import Htj2kChunks
from embodied_vision.priority import at_same_priority

os.environ.setdefault("SVT_LOG", "1")  # the encoder tells its settings on stderr otherwise

NEAR_DB = 0.1
"""A codec whose best is so little below counts as equal."""

SMALL = "HTJ2K, ours"
"""The store's codec for those who want small images."""


@dataclass(frozen=True)
class Size:
    """What a codec makes of an image on average.

    Attributes:
        name: of the codec.
        kB: a frame; between two settings on both sides of the store's PSNR, in proportion.
        psnr_db: of the frames, on average.
        reached: whether some setting comes up to the store's PSNR; otherwise these are those of its best.
    """

    name: str
    kB: float
    psnr_db: float
    reached: bool = True


CODECS: dict[str, tuple[Callable[[Color, Any], bytes], Callable[[bytes], Color], Sequence[Any]]] = {
    "JPEG with optimised tables": (
        lambda image, level: imagecodecs.jpeg8_encode(image, level=level, subsampling="444", optimize=True),
        imagecodecs.jpeg8_decode,
        [QUALITY],
    ),
    SMALL: (
        lambda image, quality: Htj2kChunks(quality).encode(image[None]),
        lambda data: Htj2kChunks().decode(data, (1, HEIGHT, WIDTH, 3), np.dtype(np.uint8))[0],
        range(70, 101),
    ),
    "WebP": (
        lambda image, level: imagecodecs.webp_encode(image, level=level, lossless=False),
        imagecodecs.webp_decode,
        range(70, 101),
    ),
    "JPEG 2000": (
        lambda image, level: imagecodecs.jpeg2k_encode(image, level=level),
        imagecodecs.jpeg2k_decode,
        np.arange(30, 60, 0.25).tolist(),
    ),
    "JPEG XL": (
        lambda image, distance: imagecodecs.jpegxl_encode(image, distance=distance, effort=4),
        imagecodecs.jpegxl_decode,
        np.linspace(3.0, 0.2, 57).tolist(),
    ),
    "AVIF": (
        lambda image, level: imagecodecs.avif_encode(image, level=level, speed=8, pixelformat="444"),
        imagecodecs.avif_decode,
        range(60, 101),
    ),
}
"""Each with its settings from the smallest images to the best."""

VIDEOS = {
    "AV1 video, every frame by itself": ("libsvtav1", {"g": "1", "preset": "10"}, "yuv420p", 63),
    "AV1 video, every other frame by itself": ("libsvtav1", {"g": "2", "preset": "10"}, "yuv420p", 63),
    "AV1 video": ("libsvtav1", {"g": str(RATE_HZ), "preset": "10"}, "yuv420p", 63),
    "H.264 video, every frame by itself": ("libx264", {"g": "1"}, "yuv444p", 51),
    "H.264 video": ("libx264", {"g": str(RATE_HZ)}, "yuv444p", 51),
}
"""Encoder, its options, pixel format and worst CRF. SVT-AV1 takes colors at half resolution alone."""


def image_sizes(data: Data, count: int) -> Iterator[Size]:
    """Single images, so many of them: the store's own first, then every codec at its PSNR."""
    images = [data.frames[step][0].color for step in range(0, data.steps, max(1, data.steps // count))][:count]
    own = Size(f"JPEG {QUALITY}, ours", *_judge(images, _own, imagecodecs.jpeg8_decode))
    yield own
    for name, (encode, decode, levels) in CODECS.items():
        yield _smallest(
            name, levels, own.psnr_db, lambda level, e=encode, d=decode: _judge(images, lambda i: e(i, level), d)
        )


def video_sizes(data: Data, count: int) -> Iterator[Size]:
    """Videos of so many frames of one camera: the store's own images first, then every codec at their PSNR."""
    frames = [data.frames[step][0].color for step in data.of(0)][:count]
    own = Size(f"JPEG {QUALITY}, ours", *_judge(frames, _own, imagecodecs.jpeg8_decode))
    yield own
    for name, (codec, options, pixels, worst) in VIDEOS.items():
        yield _smallest(
            name,
            range(worst, 0, -1),
            own.psnr_db,
            lambda crf, c=codec, o=options, p=pixels: _film(frames, c, {**o, "crf": str(crf)}, p),
        )


def _own(image: Color) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(image, level=QUALITY, subsampling="444"))


def _judge(
    images: Sequence[Color], encode: Callable[[Color], bytes], decode: Callable[[bytes], Color]
) -> tuple[float, float]:
    """kB and PSNR on average."""
    blobs = [bytes(encode(image)) for image in images]
    quality = np.mean([psnr(image, decode(blob)) for image, blob in zip(images, blobs, strict=True)])
    return float(np.mean([len(blob) for blob in blobs])) / 1e3, float(quality)


def _smallest(
    name: str, settings: Sequence[Any], target_db: float, judge: Callable[[Any], tuple[float, float]]
) -> Size:
    """By bisection the settings on both sides of the target, and the size between them at the target."""
    judged = cache(lambda number: judge(settings[number]))
    low, high = 0, len(settings) - 1
    if judged(high)[1] < target_db:
        return Size(name, *judged(high), reached=judged(high)[1] >= target_db - NEAR_DB)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if judged(middle)[1] >= target_db else (middle + 1, high)
    above, below = judged(high), judged(max(0, high - 1))
    if not below[1] < target_db <= above[1]:
        return Size(name, *above)
    part = (target_db - below[1]) / (above[1] - below[1])
    return Size(name, float(np.exp((1 - part) * np.log(below[0]) + part * np.log(above[0]))), target_db)


def _film(frames: Sequence[Color], codec: str, options: dict[str, str], pixels: str) -> tuple[float, float]:
    """kB a frame and PSNR of a video."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream(codec, RATE_HZ, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        at_same_priority(stream.codec_context.open)
        for frame in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    target.seek(0)
    with av.open(target, format="mp4") as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    quality = np.mean([psnr(one, other) for one, other in zip(frames, shown, strict=True)])
    return target.getbuffer().nbytes / len(frames) / 1e3, float(quality)

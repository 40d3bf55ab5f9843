"""Names, layout and plain JSON of an episode's Zarr group, schema 2; for older ones see `versions`.

    zarr.json                            attributes: who, what, when, units, outcome, tags, history of edits
    cameras/NAME/{stamps,color,depth}    every frame; depth uint16 mm
    streams/NAME/{stamps,values}         float64 (T, D)
    decisions/{stamps,pick,place}        poses float64 (N, 4, 4); the rest in the attribute `records`
    decisions/cameras/NAME/{stamps,color,depth}   the frames that decisions used, lossless

Stamps are int64 ns. A name's `/` becomes `.` in its folder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from embodied_vision.episodes.arrays import ArraySpec
from embodied_vision.episodes.codecs import BloscChunks, ChunkCodec, JpegChunks, ZstdChunks
from embodied_vision.episodes.htj2k import Htj2kChunks
from embodied_vision.errors import BadInput
from embodied_vision.types import Camera

SCHEMA = 2
GROUP = "data.zarr"
DECISIONS_BEGUN = "decisions_begun"
"""Attribute with the ids of the decisions that an arm began, where one was heard."""
UNITS = {"length": "m", "angle": "rad", "time": "s", "stamps": "ns", "depth": "mm"}

ColorCodec = Literal["jpeg", "htj2k", "lossless"]

_LOSSY: dict[str, type[JpegChunks] | type[Htj2kChunks]] = {"jpeg": JpegChunks, "htj2k": Htj2kChunks}
_LONGEST_NAME = 200
_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")

STAMPS = ArraySpec((), np.dtype("<i8"), 1024, ZstdChunks())
POSES = ArraySpec((4, 4), np.dtype("<f8"), 64, ZstdChunks())


def values_spec(dimension: int) -> ArraySpec:
    """Array of a stream."""
    return ArraySpec((dimension,), np.dtype("<f8"), 1024, ZstdChunks())


def color_spec(camera: Camera, codec: ChunkCodec) -> ArraySpec:
    """Array of a camera's color images."""
    return ArraySpec((camera.height, camera.width, 3), np.dtype("u1"), 1, codec)


def depth_spec(camera: Camera) -> ArraySpec:
    """Array of a camera's depth images in mm."""
    return ArraySpec((camera.height, camera.width), np.dtype("<u2"), 1, BloscChunks(2))


def color_codec(name: str, quality: int) -> ChunkCodec:
    """Codec of the color images.

    Raises:
        BadInput: unknown name or quality.
    """
    if name == "lossless":
        return BloscChunks(1)
    if name not in _LOSSY:
        raise BadInput(f"color codec {name!r} is unknown; give one of {', '.join(get_args(ColorCodec))}")
    if not 1 <= quality <= 100:
        raise BadInput(f"quality {quality} of the color images is out of range; give 1 to 100")
    return _LOSSY[name](quality)


def folder_name(name: str) -> str:
    """Folder of a camera or stream.

    Raises:
        BadInput: the name does not make a safe folder name.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise BadInput(
            f"{name!r:.80} cannot name a camera or stream; use letters, digits, _ and -, at most {_LONGEST_NAME}, in "
            "parts divided by /"
        )
    return name.replace("/", ".")


def plain(value: Any, where: str, levels: int = 32) -> Any:
    """`value` as strict JSON. Non-finite floats become "NaN", "Infinity", "-Infinity", as in Zarr v3.

    Raises:
        BadInput: something that JSON cannot hold.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if levels == 0:
        raise BadInput(f"{where:.200} is nested too deep, or holds itself; give plain lists and mappings")
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}[{key!r}]", levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where, levels - 1) for item in value]
    raise BadInput(
        f"{where} is a {type(value).__name__}, which JSON cannot hold; give numbers, texts, lists or mappings"
    )

"""An example as few bytes, and back.

Colors are kept exactly, heights to half a millimetre, and the object, what waits its turn, and where others went
exactly again. The encoder's features, which would take twenty times as much as all of that, are kept at half the
resolution at which the coarse stage reads them and to a sixth of their spread over the map. What is measured of an
example, and logits that are to be reproduced on it, lie beside it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import imagecodecs
import numcodecs
import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput
from embodied_vision.learning.dataset import Example
from embodied_vision.policies.segments import Segment
from embodied_vision.types import Scene, Workspace

HEIGHT_STEP_M = 0.0005
FEATURE_STEPS, FEATURE_POOL = 6.0, 2
_HEAD = struct.Struct("<4sIII")
_MAGIC = b"EVR1"


@dataclass(frozen=True, eq=False)
class Item:
    """An example that is kept, and why.

    Attributes:
        example: what is kept; its scene has no features, but the example may have pooled ones.
        task: its task.
        outcome: as what it is kept: solved, or corrected by an operator.
        novelty: distance to the nearest example that was kept before it, in the units of `buffer.describe`.
        loss: nats, of the policy that had just learnt it.
        seed: of the one view of it whose logits are kept.
        logits: float16, what the policy that had just learnt it said of that view, by the name of the loss.
    """

    example: Example
    task: str
    outcome: str = "solved"
    novelty: float = 0.0
    loss: float = 0.0
    seed: int = 0
    logits: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)


def encode(item: Item) -> bytes:
    """The item as bytes, with a checksum."""
    example, scene = item.example, item.example.scene
    blobs: list[bytes] = []

    def put(data: bytes) -> int:
        blobs.append(data)
        return len(data)

    features = example.pooled_features
    spread: list[list[float]] = []
    if features is not None:
        mean, std = features.mean((0, 1), dtype=np.float64), features.std((0, 1), dtype=np.float64) + 1e-6
        spread = [mean.astype(np.float32).tolist(), std.astype(np.float32).tolist()]
    header = {
        "task": item.task,
        "outcome": item.outcome,
        "novelty": item.novelty,
        "loss": item.loss,
        "seed": item.seed,
        "source": example.source,
        "stamp_ns": scene.stamp_ns,
        "shape": list(scene.valid.shape),
        "place": example.place.tolist(),
        "yaw_rad": example.yaw_rad,
        "fold": example.fold,
        "release_m": example.release_m,
        "tip_m": list(example.tip_m),
        "primitive": example.primitive,
        "elsewhere": example.elsewhere.tolist(),
        "segments": [_outline(s) for s in (example.segment, *example.waiting)],
        "masks": [put(_pack(_boxed(s.mask))) for s in (example.segment, *example.waiting)],
        "color": put(bytes(imagecodecs.webp_encode(np.ascontiguousarray(scene.color), lossless=True))),
        "height": put(bytes(imagecodecs.png_encode(_steps(scene.height), level=9))),
        "valid": put(_pack(scene.valid)),
        "features": None if features is None else [*features.shape],
        "spread": spread,
        "quantised": 0 if features is None else put(_deflate(_quantised(features, spread).tobytes())),
        "logits": {name: [list(v.shape), put(_deflate(v.tobytes()))] for name, v in item.logits.items()},
    }
    head, body = _deflate(json.dumps(header).encode()), b"".join(blobs)
    return _HEAD.pack(_MAGIC, len(head), len(body), google_crc32c.value(head + body)) + head + body


def decode(data: bytes, workspace: Workspace) -> Item:
    """Read what `encode` wrote.

    Raises:
        BadInput: it is damaged.
    """
    try:
        magic, head_bytes, body_bytes, checksum = _HEAD.unpack_from(data)
        head, body = data[_HEAD.size : _HEAD.size + head_bytes], data[_HEAD.size + head_bytes :]
        if magic != _MAGIC or len(body) != body_bytes or google_crc32c.value(head + body) != checksum:
            raise ValueError("its checksum differs")
        return _decoded(json.loads(_inflate(head)), body, workspace)
    except (struct.error, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BadInput(f"a kept example of {len(data)} bytes is damaged ({error}); fill the buffer anew") from error


def length(data: bytes, offset: int) -> int:
    """Bytes of the item that begins at an offset.

    Raises:
        BadInput: none begins there.
    """
    try:
        magic, head_bytes, body_bytes, _ = _HEAD.unpack_from(data, offset)
    except struct.error as error:
        raise BadInput(f"no kept example at byte {offset} of {len(data)}; fill the buffer anew") from error
    if magic != _MAGIC:
        raise BadInput(f"no kept example at byte {offset} of {len(data)}; fill the buffer anew")
    return _HEAD.size + int(head_bytes) + int(body_bytes)


def _decoded(header: Mapping[str, Any], body: bytes, workspace: Workspace) -> Item:
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return body[at - count : at]

    shape = (int(header["shape"][0]), int(header["shape"][1]))
    segments = [
        _segment(outline, take(count), shape)
        for outline, count in zip(header["segments"], header["masks"], strict=True)
    ]
    color = np.ascontiguousarray(imagecodecs.webp_decode(take(header["color"])))
    steps = imagecodecs.png_decode(take(header["height"])).view(np.int16)
    height = steps.astype(np.float32) * np.float32(HEIGHT_STEP_M)
    valid = _unpack(take(header["valid"]), shape)
    features = None
    if header["features"] is not None:
        features = _features(_inflate(take(header["quantised"])), header["features"], header["spread"])
    logits = {
        name: np.frombuffer(_inflate(take(count)), np.float16).reshape(shape_)
        for name, (shape_, count) in header["logits"].items()
    }
    scene = Scene(
        color=color[..., :3],
        height=np.where(valid, height, np.float32(0)),
        features=None,
        valid=valid,
        workspace=workspace,
        stamp_ns=int(header["stamp_ns"]),
    )
    example = Example(
        scene=scene,
        segment=segments[0],
        place=np.array(header["place"]),
        yaw_rad=float(header["yaw_rad"]),
        release_m=float(header["release_m"]),
        tip_m=(float(header["tip_m"][0]), float(header["tip_m"][1])),
        primitive=header["primitive"],
        elsewhere=np.array(header["elsewhere"], float).reshape(-1, 2),
        waiting=segments[1:],
        fold=int(header["fold"]),
        source=str(header["source"]),
        pooled_features=features,
    )
    return Item(
        example,
        str(header["task"]),
        str(header["outcome"]),
        float(header["novelty"]),
        float(header["loss"]),
        int(header["seed"]),
        logits,
    )


def _outline(segment: Segment) -> list[float]:
    first = _first(segment.mask)
    box = _boxed(segment.mask).shape
    return [*first, *box, *segment.anchor, *segment.grasp, segment.top_m, segment.support_m]


def _segment(outline: Sequence[float], packed: bytes, shape: tuple[int, int]) -> Segment:
    i, j, rows, columns = (int(v) for v in outline[:4])
    mask = np.zeros(shape, bool)
    mask[i : i + rows, j : j + columns] = _unpack(packed, (rows, columns))
    anchor, grasp = np.array(outline[4:6]), np.array(outline[6:8])
    return Segment(mask, anchor, grasp, float(outline[8]), float(outline[9]))


def _first(mask: NDArray[np.bool_]) -> tuple[int, int]:
    if not mask.any():
        return 0, 0
    return int(mask.any(1).argmax()), int(mask.any(0).argmax())


def _boxed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a mask that holds all of it."""
    if not mask.any():
        return mask[:0, :0]
    i, j = _first(mask)
    rows, columns = np.flatnonzero(mask.any(1))[-1] + 1, np.flatnonzero(mask.any(0))[-1] + 1
    return mask[i:rows, j:columns]


def _steps(height: NDArray[np.float32]) -> NDArray[np.uint16]:
    limits = np.iinfo(np.int16)
    steps = np.clip(np.round(height / HEIGHT_STEP_M), limits.min, limits.max).astype(np.int16)
    return np.ascontiguousarray(steps).view(np.uint16)


def _quantised(features: NDArray[np.float16], spread: Sequence[Sequence[float]]) -> NDArray[np.int8]:
    mean, std = (np.array(values, np.float32) for values in spread)
    rows, _, dimension = features.shape
    blocks = features.astype(np.float32).reshape(rows // FEATURE_POOL, FEATURE_POOL, -1, FEATURE_POOL, dimension)
    steps = np.round((blocks.mean((1, 3)) - mean) / std * FEATURE_STEPS)
    quantised: NDArray[np.int8] = np.clip(steps, -127, 127).astype(np.int8)
    return quantised


def _features(quantised: bytes, shape: Sequence[int], spread: Sequence[Sequence[float]]) -> NDArray[np.float16]:
    mean, std = (np.array(values, np.float32) for values in spread)
    coarse = (shape[0] // FEATURE_POOL, shape[1] // FEATURE_POOL, shape[2])
    values = np.frombuffer(quantised, np.int8).reshape(coarse).astype(np.float32) * (std / FEATURE_STEPS) + mean
    return values.repeat(FEATURE_POOL, axis=0).repeat(FEATURE_POOL, axis=1).astype(np.float16)


def _pack(mask: NDArray[np.bool_]) -> bytes:
    return _deflate(np.packbits(mask).tobytes())


def _unpack(data: bytes, shape: tuple[int, int]) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(_inflate(data), np.uint8), count=shape[0] * shape[1])
    return bits.astype(bool).reshape(shape)


_ZSTD = numcodecs.Zstd(level=19)


def _deflate(data: bytes) -> bytes:
    return bytes(_ZSTD.encode(data)) if data else b""


def _inflate(data: bytes) -> bytes:
    return bytes(_ZSTD.decode(data)) if data else b""

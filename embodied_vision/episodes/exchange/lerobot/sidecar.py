"""`meta/embodied_vision/episode-…/`: what a LeRobotDataset has no place for, as JSON and Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied_vision.episodes.encoded import decode_image
from embodied_vision.episodes.exchange.lerobot.source import Source
from embodied_vision.episodes.exchange.rows import Rows
from embodied_vision.episodes.exchange.sidecar import FOLDER, Head, Sample, decision_frames, describe
from embodied_vision.episodes.reader import Episode
from embodied_vision.errors import BadInput
from embodied_vision.geometry import depth_to_metres, quantise_depth
from embodied_vision.types import RGBD, Camera

_STREAMS = pa.schema([("stream", pa.string()), ("stamp_ns", pa.int64()), ("values", pa.list_(pa.float64()))])
_DEPTH = pa.schema([("camera", pa.string()), ("row", pa.int64()), ("stamp_ns", pa.int64()), ("depth", pa.binary())])
_DECISIONS = pa.schema(
    [("camera", pa.string()), ("stamp_ns", pa.int64()), ("color", pa.binary()), ("depth", pa.binary())]
)
_BATCH = 64
_SAMPLES = 4096


def folder_of(number: int) -> str:
    """Folder of an episode's sidecar within the dataset."""
    return f"meta/{FOLDER}/episode-{number:06d}"


def write_sidecar(root: Path, number: int, episode: Episode, rows: Rows) -> None:
    """Write that of an episode."""
    folder = root / folder_of(number)
    folder.mkdir(parents=True)
    description = json.dumps(describe(episode, len(rows)), ensure_ascii=False)
    (folder / "episode.json").write_text(description, encoding="utf-8")
    _write(folder / "streams.parquet", _STREAMS, _samples(episode), _SAMPLES)
    _write(folder / "depth.parquet", _DEPTH, _depths(episode, rows), _BATCH)
    _write(folder / "decisions.parquet", _DECISIONS, _decision_frames(episode), _BATCH)


def _write(path: Path, schema: pa.Schema, entries: Iterator[dict[str, Any]], batch: int) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for entry in entries:
            rows.append(entry)
            if len(rows) == batch:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _samples(episode: Episode) -> Iterator[dict[str, Any]]:
    for name in episode.streams:
        for stamp, row in zip(*episode.stream(name), strict=True):
            yield {"stream": name, "stamp_ns": int(stamp), "values": row}


def _depths(episode: Episode, rows: Rows) -> Iterator[dict[str, Any]]:
    for name in episode.cameras:
        frames = episode.frames(name)
        for row in rows.shown(name).tolist():
            frame = int(rows.frames[name][row])
            depth = bytes(imagecodecs.png_encode(frames.depth_mm(frame), level=1))
            yield {"camera": name, "row": row, "stamp_ns": int(frames.stamps_ns[frame]), "depth": depth}


def _decision_frames(episode: Episode) -> Iterator[dict[str, Any]]:
    for frame in decision_frames(episode):
        yield {
            "camera": frame.camera.name,
            "stamp_ns": int(frame.stamp_ns),
            "color": bytes(imagecodecs.png_encode(frame.color, level=1)),
            "depth": bytes(imagecodecs.png_encode(quantise_depth(frame.depth), level=1)),
        }


def read_samples(source: Source, folder: str) -> Iterator[Sample]:
    """Every sample of every stream, as it was logged."""
    for entry in source.table(f"{folder}/streams.parquet", _STREAMS):
        yield entry["stream"], entry["stamp_ns"], np.array(entry["values"], np.float64)


def read_depths(source: Source, folder: str, head: Head) -> Iterator[tuple[Camera, int, int, Any]]:
    """Camera, row, stamp and uint16 (H, W) depth in mm of every frame that is shown."""
    for entry in source.table(f"{folder}/depth.parquet", _DEPTH):
        camera = head.camera(entry["camera"])
        yield camera, entry["row"], entry["stamp_ns"], _depth(entry["depth"], camera)


def read_decision_frames(source: Source, folder: str, head: Head) -> Iterator[RGBD]:
    """The frames that decisions were made on, lossless."""
    for entry in source.table(f"{folder}/decisions.parquet", _DECISIONS):
        camera = head.camera(entry["camera"])
        color = decode_image(entry["color"], (camera.height, camera.width))
        yield RGBD(color, depth_to_metres(_depth(entry["depth"], camera)), camera, entry["stamp_ns"])


def _depth(blob: bytes, camera: Camera) -> Any:
    depth = decode_image(blob, (camera.height, camera.width))
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise BadInput(f"depth of camera {camera.name!r} is {depth.dtype} {depth.shape}, expected uint16 in mm")
    return depth

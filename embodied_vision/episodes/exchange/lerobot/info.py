"""What a LeRobotDataset says of itself, checked: info.json, tasks, and where each episode lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embodied_vision.episodes import strict
from embodied_vision.episodes.exchange.about import Origin
from embodied_vision.episodes.exchange.foreign import Names
from embodied_vision.episodes.exchange.lerobot import layout
from embodied_vision.episodes.exchange.lerobot.source import Source
from embodied_vision.errors import BadInput

MAX_ROWS = 1_000_000
MAX_VALUES = 100_000_000
MAX_SIDE = 16_384
"""Bounds of an episode: rows, numbers in its columns, px of an image."""

_NUMERIC = {"float16", "float32", "float64", "bool", *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64))}


@dataclass(frozen=True)
class Image:
    """An image feature: its key, the camera that it becomes, and whether it is a video."""

    key: str
    camera: str
    height: int
    width: int
    video: bool


@dataclass(frozen=True)
class Dataset:
    """What info.json says, checked."""

    source: Source
    origin: Origin
    rate_hz: float
    robot: str
    data_path: object
    video_path: object
    images: tuple[Image, ...]
    columns: Mapping[str, int]
    streams: Mapping[str, str]
    left_out: tuple[str, ...]
    has_stamps: bool
    tasks: Mapping[int, str]


@dataclass(frozen=True)
class Entry:
    """Where an episode lies: a row of meta/episodes."""

    number: int
    length: int
    first: int
    data: tuple[int, int]
    videos: Mapping[str, tuple[int, int, float]]


def open_dataset(source: Source) -> Dataset:
    """Read info.json and the tasks.

    Raises:
        BadInput: they are missing, damaged, or of another version.
    """
    try:
        return _read_info(source)
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"{source.root / layout.INFO} cannot be used: {error}; compare it with a dataset of lerobot"
        ) from error


def _read_info(source: Source) -> Dataset:
    info = strict.mapping(source.json(layout.INFO), "it")
    version = strict.text(info.get("codebase_version"), "codebase_version")
    if not version.startswith("v3."):
        raise BadInput(f"{source.root} has version {version[:20]!r}, expected v3.0; convert it with lerobot's scripts")
    rate_hz = strict.number(info.get("fps"), "fps")
    if not 0.001 <= rate_hz <= 100_000:
        raise BadInput(f"{source.root / layout.INFO}: fps is {rate_hz}; give frames a second")
    names, images, columns, streams, left_out = Names(), [], {}, {}, []
    for key, feature in strict.mapping(info.get("features"), "features").items():
        feature = strict.mapping(feature, f"feature {key!r}")
        dtype = strict.text(feature.get("dtype"), f"dtype of {key!r}")
        shape = [
            strict.integer(side, f"shape of {key!r}", 1, MAX_VALUES)
            for side in strict.items(feature.get("shape"), f"shape of {key!r}")
        ]
        if dtype in ("video", "image"):
            image = _image(key, dtype, shape, feature.get("names"), names)
            images += [image] if image else []
            left_out += [] if image else [key]
        elif dtype in _NUMERIC and len(shape) == 1 and shape[0] <= MAX_VALUES // MAX_ROWS:
            columns[key] = shape[0]
            if key not in layout.COUNTERS and key != layout.STAMP:
                streams[key] = names.stream(key)
        else:
            left_out.append(key)
    lacking = [name for name in layout.COUNTERS if columns.get(name) != 1]
    if lacking or not (images or streams):
        raise BadInput(f"{source.root / layout.INFO} lacks the features {lacking or 'of any camera or stream'}")
    return Dataset(
        source=source,
        origin=Origin("lerobot", source.root.name),
        rate_hz=rate_hz,
        robot=str(info.get("robot_type") or "unknown")[:200],
        data_path=info.get("data_path"),
        video_path=info.get("video_path"),
        images=tuple(images),
        columns=columns,
        streams=streams,
        left_out=tuple(left_out),
        has_stamps=columns.get(layout.STAMP) == 1,
        tasks=dict(_tasks(source)),
    )


def _image(key: str, dtype: str, shape: list[int], sides: Any, names: Names) -> Image | None:
    if len(shape) != 3:
        return None
    first = isinstance(sides, list) and sides and sides[0] in ("channel", "channels", "c")
    channels, height, width = shape if first or shape[2] != 3 else (shape[2], shape[0], shape[1])
    if channels != 3:
        return None  # depth as LeRobot's users keep it, in whatever unit
    if max(height, width) > MAX_SIDE:
        raise BadInput(f"images of {key!r} are said to be {width}x{height}; at most {MAX_SIDE} px a side are read")
    camera = names.camera(key.removeprefix(layout.IMAGES).removeprefix("observation."))
    return Image(key, camera, height, width, dtype == "video")


def _tasks(source: Source) -> Iterator[tuple[int, str]]:
    with source.parquet(layout.TASKS) as table:
        table.require(pa.schema([("task_index", pa.int64())]))
        texts = [
            field.name
            for field in table.schema
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        if not texts:
            raise BadInput(f"{table.where} has no column of texts; copy it anew")
        for part in table.batches(range(table.groups), ["task_index", texts[0]]):
            yield from zip(part.column("task_index").to_pylist(), part.column(texts[0]).to_pylist(), strict=True)


def entries_of(dataset: Dataset) -> Iterator[Entry]:
    """Where each episode lies, in the order of the files.

    Raises:
        BadInput: that is missing, damaged, or says more than can be.
    """
    source = dataset.source
    files = source.files("meta/episodes", ".parquet")
    if not files:
        raise BadInput(f"{source.root} has no meta/episodes/*/*.parquet; copy the dataset whole")
    numbers = [
        "episode_index",
        "length",
        "dataset_from_index",
        "dataset_to_index",
        "data/chunk_index",
        "data/file_index",
    ]
    videos = [image.key for image in dataset.images if image.video]
    numbers += [f"videos/{key}/{part}_index" for key in videos for part in ("chunk", "file")]
    schema = pa.schema([(name, pa.int64()) for name in numbers])
    for key in videos:
        schema = schema.append(pa.field(f"videos/{key}/from_timestamp", pa.float64()))
    seen: set[int] = set()
    for file in files:
        for row in source.table(file, schema, 256):
            entry = _entry(row, videos, f"{source.root / file}, episode {row['episode_index']}")
            if entry.number in seen:
                raise BadInput(f"{source.root / file} has episode {entry.number} twice; copy the dataset anew")
            seen.add(entry.number)
            values = entry.length * sum(dataset.columns.values())
            if values > MAX_VALUES:
                raise BadInput(f"episode {entry.number} says to hold {values} numbers; at most {MAX_VALUES} are read")
            yield entry


def _entry(row: Mapping[str, Any], videos: list[str], where: str) -> Entry:
    if not 0 < row["length"] <= MAX_ROWS or row["dataset_to_index"] - row["dataset_from_index"] != row["length"]:
        raise BadInput(
            f"{where} has length {row['length']} and goes from row {row['dataset_from_index']} to "
            f"{row['dataset_to_index']}; lengths from 1 to {MAX_ROWS} that agree are read"
        )
    negative = [key for key, value in row.items() if not 0 <= value < 2**53]
    if negative:
        raise BadInput(f"{where}: {negative[0]} is {row[negative[0]]}; copy the dataset anew")
    places = {
        key: (row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"], row[f"videos/{key}/from_timestamp"])
        for key in videos
    }
    data = (row["data/chunk_index"], row["data/file_index"])
    return Entry(row["episode_index"], row["length"], row["dataset_from_index"], data, places)

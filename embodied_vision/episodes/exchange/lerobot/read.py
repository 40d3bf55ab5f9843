"""A LeRobotDataset v3.0 into episodes: our own exports nearly as they were, and those that lerobot or others made.

Without our sidecar a dataset has no depth, calibration or absolute time: depth is 0, intrinsics are nominal unless a
calibration file is given, stamps count from the start of the episode; the attribute `imported` says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embodied_vision.episodes import strict
from embodied_vision.episodes.encoded import decode_image
from embodied_vision.episodes.exchange.about import Origin
from embodied_vision.episodes.exchange.foreign import Names, cameras_for
from embodied_vision.episodes.exchange.lerobot import layout
from embodied_vision.episodes.exchange.lerobot.sidecar import (
    folder_of,
    read_decision_frames,
    read_depths,
    read_samples,
)
from embodied_vision.episodes.exchange.lerobot.source import Source, Table
from embodied_vision.episodes.exchange.lerobot.video import read_frames
from embodied_vision.episodes.exchange.sidecar import (
    Head,
    Sample,
    decisions_of,
    frames_of_decisions,
    head_of,
    take_in,
)
from embodied_vision.episodes.frames import RawFrame
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.types import Camera

MAX_ROWS = 1_000_000
MAX_VALUES = 100_000_000
MAX_SIDE = 16_384
"""Bounds of an episode: rows, numbers in its columns, px of an image."""

_NS = 1_000_000_000
_NUMERIC = {"float16", "float32", "float64", "bool", *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64))}


@dataclass(frozen=True)
class _Image:
    """An image feature: its key, the camera that it becomes, and whether it is a video."""

    key: str
    camera: str
    height: int
    width: int
    video: bool


@dataclass(frozen=True)
class _Dataset:
    """What info.json says, checked."""

    source: Source
    origin: Origin
    rate_hz: float
    robot: str
    data_path: object
    video_path: object
    images: tuple[_Image, ...]
    columns: Mapping[str, int]
    streams: Mapping[str, str]
    left_out: tuple[str, ...]
    has_stamps: bool
    tasks: Mapping[int, str]


@dataclass(frozen=True)
class _Entry:
    """Where an episode lies: a row of meta/episodes."""

    number: int
    length: int
    first: int
    data: tuple[int, int]
    videos: Mapping[str, tuple[int, int, float]]


def import_(source: Path, store: EpisodeStore, *, task: str | None, topics: Path | None) -> Iterator[str]:
    """Read a dataset into a store.

    Args:
        source: its folder.
        store: where to.
        task: name of the task, where the dataset does not tell.
        topics: calibration YAML as `calibration.read_cameras` takes it, for cameras that the dataset does not describe.

    Raises:
        BadInput: it is damaged or of another version. Episodes that were yielded before stay in the store.
        EpisodeError: the store cannot be written.
    """
    dataset = _open(Source(source))
    calibrated = cameras_for({image.camera: (image.height, image.width) for image in dataset.images}, topics)
    entries = list(_entries(dataset))
    begins: dict[tuple[int, int], int] = {}
    for entry in entries:
        begins[entry.data] = min(entry.first, begins.get(entry.data, entry.first))
    for entry in entries:
        path = layout.fill(dataset.data_path, "data_path", chunk_index=entry.data[0], file_index=entry.data[1])
        with dataset.source.parquet(path) as table:
            part = _Part(dataset, entry, table, entry.first - begins[entry.data])
            own = dataset.source.has(folder_of(entry.number)) and dataset.has_stamps
            yield _own(part, store) if own else _foreign(part, store, calibrated, task, topics is not None)


def _own(part: _Part, store: EpisodeStore) -> str:
    """An episode of our own export, with what its sidecar holds."""
    dataset, folder = part.dataset, folder_of(part.entry.number)
    description = dataset.source.json(f"{folder}/episode.json")
    head = head_of(description, part.entry.length, dataset.origin, f"{folder}/episode.json")
    images = {image.key: image for image in dataset.images}
    wanted = {layout.image_key(camera.name): (camera.height, camera.width) for camera in head.cameras}
    if wanted != {key: (image.height, image.width) for key, image in images.items()}:
        raise BadInput(
            f"{folder} has other cameras than {layout.INFO}; delete it to import what the dataset itself holds"
        )

    def frames() -> Iterator[RawFrame]:
        colors: Iterator[NDArray[np.uint8]] = iter(())
        current, row = "", -1
        for camera, at, stamp_ns, depth in read_depths(dataset.source, folder, head):
            if camera.name != current:
                current, row, colors = camera.name, -1, part.colors(images[layout.image_key(camera.name)])
            if not row < at < part.entry.length:
                raise BadInput(f"{folder}/depth.parquet is not in the order of rows; export the episodes anew")
            if camera is head.cameras[0] and stamp_ns != part.stamps_ns[at]:
                raise BadInput(
                    f"{folder} does not belong to its data; delete it to import what the dataset itself holds"
                )
            while row < at:
                color, row = next(colors), row + 1
            yield RawFrame(color, depth, camera, stamp_ns)

    seen = frames_of_decisions(description, read_decision_frames(dataset.source, folder, head), folder)
    return take_in(
        store,
        head,
        frames(),
        read_samples(dataset.source, folder),
        decisions_of(description, seen, folder),
        **part.codec,
    )


def _foreign(
    part: _Part, store: EpisodeStore, cameras: Mapping[str, Camera], task: str | None, calibrated: bool
) -> str:
    """An episode of others."""
    dataset, entry = part.dataset, part.entry
    told = [name for name in part.tasks() if name]
    reward, success = part.total(layout.REWARD), part.total(layout.SUCCESS)
    outcome: dict[str, Any] = {} if reward is None else {"reward": reward}
    if success is not None:
        outcome["solved"] = success > 0
    origin = {
        "format": dataset.origin.format,
        "source": dataset.origin.source,
        "episode_index": entry.number,
        "fps": dataset.rate_hz,
        "depth": "none",
        "calibration": "as given" if calibrated else "nominal",
        "stamps": "exact" if dataset.has_stamps else "from the start of the episode",
        "left_out": list(dataset.left_out),
        "tasks": told,
    }
    head = Head(
        task=told[0] if told else task or "unknown",
        robot=dataset.robot,
        cameras=tuple(cameras.values()),
        outcome=outcome,
        attributes={"imported": origin},
    )

    def frames() -> Iterator[RawFrame]:
        for image in dataset.images:
            depth = np.zeros((image.height, image.width), np.uint16)
            for stamp_ns, color in zip(part.stamps_ns.tolist(), part.colors(image), strict=True):
                yield RawFrame(color, depth, cameras[image.camera], stamp_ns)

    return take_in(store, head, frames(), part.samples(), **part.codec)


class _Part:
    """The data of one episode.

    Attributes:
        stamps_ns: int64 (T,), strictly increasing for others' data.
    """

    def __init__(self, dataset: _Dataset, entry: _Entry, table: Table, skip: int) -> None:
        self.dataset, self.entry, self._table = dataset, entry, table
        self._groups: list[int] = []
        self._skip = 0
        begin = 0
        for group, length in enumerate(table.lengths):
            if begin < skip + entry.length and begin + length > skip:
                self._skip = self._skip if self._groups else skip - begin
                self._groups.append(group)
            begin += length
        if begin < skip + entry.length:
            raise BadInput(
                f"{table.where} has {begin} rows, episode {entry.number} needs {skip + entry.length}; copy it anew"
            )
        counters = {name: self._whole(name)[:, 0] for name in ("episode_index", "frame_index", "timestamp")}
        count = np.arange(entry.length)
        if (counters["episode_index"] != entry.number).any() or (counters["frame_index"] != count).any():
            raise BadInput(
                f"{table.where} has other rows than meta/episodes says of episode {entry.number}; copy it anew"
            )
        even = count / dataset.rate_hz
        times = counters["timestamp"]
        if not np.isfinite(times).all() or np.abs(times - even).max() > 0.5 / dataset.rate_hz:
            raise BadInput(
                f"{table.where}: episode {entry.number} has other timestamps than {dataset.rate_hz} frames a second"
            )
        self.stamps_ns = np.round(even * _NS).astype(np.int64)
        if dataset.has_stamps:
            self.stamps_ns = np.concatenate([part[:, 0] for part in self._parts(layout.STAMP, np.int64)])

    @property
    def codec(self) -> dict[str, Any]:
        """How the color images are kept: what was a video has lost already, and would be large without loss."""
        lossy = any(image.video for image in self.dataset.images)
        return {"color_codec": "jpeg", "quality": 95} if lossy else {"color_codec": "lossless"}

    def tasks(self) -> list[str]:
        """Tasks in the order in which they come up."""
        numbers = self._whole("task_index")[:, 0].astype(np.int64)
        first = np.unique(numbers, return_index=True)[1]
        return [self.dataset.tasks.get(int(numbers[row]), "") for row in sorted(first)]

    def total(self, name: str) -> float | None:
        """Sum of a column, None when there is none or it is not finite."""
        if name not in self.dataset.columns:
            return None
        total = float(self._whole(name).sum())
        return total if math.isfinite(total) else None

    def samples(self) -> Iterator[Sample]:
        """Every numeric column as a stream."""
        for name, stream in self.dataset.streams.items():
            row = 0
            for part in self._parts(name):
                for value in part:
                    yield stream, int(self.stamps_ns[row]), value
                    row += 1

    def colors(self, image: _Image) -> Iterator[NDArray[np.uint8]]:
        """The images of a camera, uint8 (H, W, 3), row by row."""
        return self._video(image) if image.video else self._images(image)

    def _video(self, image: _Image) -> Iterator[NDArray[np.uint8]]:
        dataset, entry = self.dataset, self.entry
        chunk, file, begin_s = entry.videos[image.key]
        path = layout.fill(dataset.video_path, "video_path", chunk_index=chunk, file_index=file, video_key=image.key)
        with dataset.source.open(path) as opened:
            yield from read_frames(
                opened,
                str(dataset.source.root / path),
                size=(image.height, image.width),
                rate_hz=dataset.rate_hz,
                begin_s=begin_s,
                count=entry.length,
            )

    def _images(self, image: _Image) -> Iterator[NDArray[np.uint8]]:
        where = f"{self._table.where}, column {image.key!r}"
        wanted = pa.schema([(image.key, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
        self._table.require(wanted)
        for part in self._cut(image.key, 4):
            for entry in part:
                blob = entry["bytes"].as_py()
                if blob is None:
                    raise BadInput(f"{where} names files instead of holding images; embed them")
                color = decode_image(blob, (image.height, image.width))
                if color.dtype != np.uint8 or color.ndim != 3:
                    raise BadInput(f"{where} has an image of {color.dtype} {color.shape}, expected uint8 RGB")
                yield color

    def _whole(self, name: str) -> NDArray[np.float64]:
        return np.concatenate(list(self._parts(name)))

    def _parts(self, name: str, dtype: Any = np.float64) -> Iterator[NDArray[Any]]:
        width = self.dataset.columns[name]
        for part in self._cut(name, 4096, width):
            yield _numbers(part, width, f"{self._table.where}, column {name!r}", dtype)

    def _cut(self, name: str, batch: int, widest: int | None = None) -> Iterator[pa.Array]:
        """The rows of this episode out of its row groups."""
        begin, left = self._skip, self.entry.length
        for part in self._table.batches(self._groups, [name], batch, widest):
            rows = part.column(name)[begin : begin + left]
            begin, left = max(0, begin - part.num_rows), left - len(rows)
            if len(rows):
                yield rows
            if left == 0:
                return
        raise BadInput(f"{self._table.where}, column {name!r} lacks {left} rows; copy it anew")


def _numbers(column: pa.Array, width: int, where: str, dtype: Any) -> NDArray[Any]:
    """(T, D) of a column of numbers, or of lists of D numbers."""
    kind, values = column.type, column
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.list_value_length(column)
        if pc.min(lengths).as_py() != width or pc.max(lengths).as_py() != width:
            raise BadInput(f"{where} has lists of other lengths than {width}, which {layout.INFO} says; copy it anew")
        kind, values = kind.value_type, column.flatten()
    elif width != 1:
        raise BadInput(f"{where} holds single values, {layout.INFO} says {width}; copy it anew")
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise BadInput(f"{where} holds {kind}, expected numbers")
    if values.null_count:
        raise BadInput(f"{where} has empty places; fill them")
    found = values.to_numpy(zero_copy_only=False)
    if dtype is np.int64 and not pa.types.is_integer(kind):
        raise BadInput(f"{where} holds {kind}, expected whole numbers")
    return np.asarray(found, dtype).reshape(-1, width)


def _open(source: Source) -> _Dataset:
    try:
        return _read_info(source)
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"{source.root / layout.INFO} cannot be used: {error}; compare it with a dataset of lerobot"
        ) from error


def _read_info(source: Source) -> _Dataset:
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
    return _Dataset(
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


def _image(key: str, dtype: str, shape: list[int], sides: Any, names: Names) -> _Image | None:
    if len(shape) != 3:
        return None
    first = isinstance(sides, list) and sides and sides[0] in ("channel", "channels", "c")
    channels, height, width = shape if first or shape[2] != 3 else (shape[2], shape[0], shape[1])
    if channels != 3:
        return None  # depth as LeRobot's users keep it, in whatever unit
    if max(height, width) > MAX_SIDE:
        raise BadInput(f"images of {key!r} are said to be {width}x{height}; at most {MAX_SIDE} px a side are read")
    camera = names.camera(key.removeprefix(layout.IMAGES).removeprefix("observation."))
    return _Image(key, camera, height, width, dtype == "video")


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


def _entries(dataset: _Dataset) -> Iterator[_Entry]:
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


def _entry(row: Mapping[str, Any], videos: list[str], where: str) -> _Entry:
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
    return _Entry(row["episode_index"], row["length"], row["dataset_from_index"], data, places)

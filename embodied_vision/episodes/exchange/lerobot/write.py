"""Episodes into a LeRobotDataset v3.0.

A row is a frame of the first camera, see `exchange.rows`. Images become AV1 video as lerobot makes it, or PNG where
they are too small for that. What LeRobot has no place for lies in `meta/embodied_vision/`, where lerobot does not look.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_vision.episodes.exchange.lerobot import layout
from embodied_vision.episodes.exchange.lerobot.sidecar import write_sidecar
from embodied_vision.episodes.exchange.lerobot.stats import ImageStats, Stats, column_stats, combine
from embodied_vision.episodes.exchange.lerobot.video import VideoWriter, fits, video_info
from embodied_vision.episodes.exchange.rows import Clock, Rows, find_clock, rows_of
from embodied_vision.episodes.exchange.target import atomic_target
from embodied_vision.episodes.reader import Episode, Frames
from embodied_vision.errors import BadInput
from embodied_vision.types import Camera

_MB = 1024 * 1024
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_ROW_GROUP = 256
"""Rows with images that are in memory at once."""


def export(episodes: Sequence[Episode], target: Path, *, done: Callable[[str], None]) -> None:
    """Write episodes as one dataset.

    Raises:
        BadInput: the target exists; or episodes differ in cameras, joints or actions, or cannot be laid on a clock.
        EpisodeError: one is damaged.
    """
    clock = find_clock(episodes)
    with atomic_target(target) as folder:
        writer = _DatasetWriter(folder, clock, episodes[0])
        try:
            for episode in episodes:
                writer.add(episode)
                done(episode.id)
        finally:
            writer.close()
        writer.finish()


class _DatasetWriter:
    """Appends episodes to the files of a dataset."""

    def __init__(self, root: Path, clock: Clock, first: Episode) -> None:
        self._root, self._clock, self._robot = root, clock, first.robot
        self._cameras = {name: camera for name, camera in first.cameras.items()}
        self._videos = {
            name: _Video(root, camera, clock.rate_hz) for name, camera in self._cameras.items() if _is_video(camera)
        }
        self._columns: dict[str, dict[str, Any]] = {}
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, Stats]] = []
        self._rows = 0
        self._place = (0, 0)
        self._data: pq.ParquetWriter | None = None

    def add(self, episode: Episode) -> None:
        """Append one episode."""
        self._check_cameras(episode)
        rows = rows_of(episode, self._clock)
        number, length = len(self._episodes), len(rows)
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        columns = _columns(rows, number, self._rows, task, self._clock.rate_hz)
        self._check_columns(episode, rows, columns)
        stats = {name: column_stats(values) for name, values in columns.items()}
        entry: dict[str, Any] = {
            "episode_index": number,
            "tasks": [episode.task],
            "length": length,
            "data/chunk_index": self._place[0],
            "data/file_index": self._place[1],
            "dataset_from_index": self._rows,
            "dataset_to_index": self._rows + length,
        }
        for camera, video in self._videos.items():
            seen = ImageStats(length)
            begin = video.begin()
            for row, color in _colors(episode.frames(camera), rows.frames[camera]):
                video.add(color)
                seen.add(row, color)
            entry.update({f"videos/{layout.image_key(camera)}/{key}": value for key, value in video.end(begin).items()})
            stats[layout.image_key(camera)] = seen.result()
        stats.update(self._write_data(episode, rows, columns))
        write_sidecar(self._root, number, episode, rows)
        self._episodes.append(entry)
        self._stats.append(stats)
        self._rows += length

    def close(self) -> None:
        """Close what is open."""
        if self._data is not None:
            self._data.close()
            self._data = None
        for video in self._videos.values():
            video.close()

    def finish(self) -> None:
        """Write what describes the data."""
        features: dict[str, Any] = {}
        for name, camera in self._cameras.items():
            shape = {"shape": [camera.height, camera.width, 3], "names": ["height", "width", "channels"]}
            told = video_info(camera.height, camera.width, self._clock.rate_hz)
            kind: dict[str, Any] = {"dtype": "video", "info": told} if name in self._videos else {"dtype": "image"}
            features[layout.image_key(name)] = {**kind, **shape}
        features.update(self._columns)
        info = {
            "codebase_version": layout.VERSION,
            "robot_type": self._robot,
            "total_episodes": len(self._episodes),
            "total_frames": self._rows,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.CHUNK_SIZE,
            "data_files_size_in_mb": layout.DATA_FILE_MB,
            "video_files_size_in_mb": layout.VIDEO_FILE_MB,
            "fps": self._clock.rate_hz,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": layout.DATA,
            "video_path": layout.VIDEO if self._videos else None,
            "features": features,
        }
        whole = {name: combine([stats[name] for stats in self._stats]) for name in self._stats[0]}
        for name, content in ((layout.INFO, info), (layout.STATS, _plain(whole))):
            (self._root / name).parent.mkdir(exist_ok=True)
            (self._root / name).write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")
        pq.write_table(_tasks_table(self._tasks), self._root / layout.TASKS)
        path = self._root / layout.EPISODES.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True)
        place = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        entries = [{**entry, **_flat(stats), **place} for entry, stats in zip(self._episodes, self._stats, strict=True)]
        pq.write_table(pa.Table.from_pylist(entries), path, compression="snappy")

    def _write_data(self, episode: Episode, rows: Rows, columns: Mapping[str, NDArray[Any]]) -> dict[str, Stats]:
        """Append the rows; statistics of those cameras whose images go with them."""
        cameras = [name for name in self._cameras if name not in self._videos]
        seen = {name: ImageStats(len(rows)) for name in cameras}
        images = {name: _colors(episode.frames(name), rows.frames[name]) for name in cameras}
        step = _ROW_GROUP if cameras else max(1, len(rows))
        for begin in range(0, len(rows), step):
            part: dict[str, pa.Array] = {}
            count = min(step, len(rows) - begin)
            for name in cameras:
                blobs = []
                for _ in range(count):
                    row, color = next(images[name])
                    seen[name].add(row, color)
                    blobs.append({"bytes": bytes(imagecodecs.png_encode(color)), "path": None})
                part[layout.image_key(name)] = pa.array(blobs, _IMAGE)
            part.update({name: _arrow(values[begin : begin + count]) for name, values in columns.items()})
            table = pa.table(part)
            if self._data is None:
                path = self._root / layout.DATA.format(chunk_index=self._place[0], file_index=self._place[1])
                path.parent.mkdir(parents=True, exist_ok=True)
                self._data, self._path = pq.ParquetWriter(path, table.schema, compression="snappy"), path
            self._data.write_table(table)
        if self._path.stat().st_size >= layout.DATA_FILE_MB * _MB:
            assert self._data is not None
            self._data.close()
            self._data, self._place = None, layout.following(*self._place)
        return {layout.image_key(name): found.result() for name, found in seen.items()}

    def _check_cameras(self, episode: Episode) -> None:
        here = {name: (camera.height, camera.width) for name, camera in episode.cameras.items()}
        wanted = {name: (camera.height, camera.width) for name, camera in self._cameras.items()}
        if here != wanted:
            raise BadInput(
                f"episode {episode.id} has cameras {_sizes(here)}, the ones before it {_sizes(wanted)}; a dataset has "
                "the same in every episode: export them separately"
            )

    def _check_columns(self, episode: Episode, rows: Rows, columns: Mapping[str, NDArray[Any]]) -> None:
        names = {layout.STATE: rows.state_names, layout.ACTION: rows.action_names}
        described = {
            name: {"dtype": str(values.dtype), "shape": [values.shape[1]], "names": _names(names.get(name))}
            for name, values in columns.items()
        }
        here = {name: column["shape"] for name, column in described.items()}
        wanted = {name: column["shape"] for name, column in self._columns.items()}
        if self._columns and here != wanted:
            unlike = sorted(name for name in here.keys() | wanted.keys() if here.get(name) != wanted.get(name))
            raise BadInput(
                f"episode {episode.id} has other columns than the ones before it ({', '.join(unlike)}); a dataset has "
                "the same joints and actions in every episode: export them separately"
            )
        self._columns = self._columns or described


class _Video:
    """The videos of one camera: episode after episode in one file until it is large."""

    def __init__(self, root: Path, camera: Camera, rate_hz: int) -> None:
        self._root, self._camera, self._rate_hz = root, camera, rate_hz
        self._place = (0, 0)
        self._writer: VideoWriter | None = None

    def begin(self) -> int:
        """Frames that the file holds before the next episode."""
        if self._writer is None:
            key, (chunk, file) = layout.image_key(self._camera.name), self._place
            path = self._root / layout.VIDEO.format(video_key=key, chunk_index=chunk, file_index=file)
            self._writer = VideoWriter(path, self._camera.height, self._camera.width, self._rate_hz)
        return self._writer.frames

    def add(self, color: NDArray[np.uint8]) -> None:
        """Append a frame."""
        assert self._writer is not None
        self._writer.add(color)

    def end(self, begin: int) -> dict[str, Any]:
        """Where the episode lies that began at frame `begin`."""
        assert self._writer is not None
        found = {
            "chunk_index": self._place[0],
            "file_index": self._place[1],
            "from_timestamp": begin / self._rate_hz,
            "to_timestamp": self._writer.frames / self._rate_hz,
        }
        if self._writer.size >= layout.VIDEO_FILE_MB * _MB:
            self.close()
            self._place = layout.following(*self._place)
        return found

    def close(self) -> None:
        """End the open file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _is_video(camera: Camera) -> bool:
    return fits(camera.height, camera.width)


def _colors(frames: Frames, numbers: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Row and image; one that is shown in several rows is decoded once."""
    shown, color = -1, np.zeros((0, 0, 3), np.uint8)
    for row, number in enumerate(numbers.tolist()):
        if number != shown:
            shown, color = number, frames.color(number)
        yield row, color


def _columns(rows: Rows, episode: int, first: int, task: int, rate_hz: int) -> dict[str, NDArray[Any]]:
    """Every column but images, (T, D)."""
    count = np.arange(len(rows))
    fixed = np.ones(len(rows), np.int64)
    columns: dict[str, NDArray[Any]] = {layout.STATE: rows.state, layout.ACTION: rows.action}
    columns.update({name.replace("/", "."): values for name, values in rows.observed.items()})
    columns.update({layout.REWARD: rows.reward, layout.DONE: rows.done, layout.SUCCESS: rows.success})
    columns.update({layout.PICK: rows.pick, layout.PLACE: rows.place})
    columns.update({layout.DECISION: rows.decision, layout.STAMP: rows.stamps_ns})
    columns["timestamp"] = (count / rate_hz).astype(np.float32)
    columns.update(frame_index=count, episode_index=fixed * episode, index=first + count, task_index=fixed * task)
    return {name: values.reshape(len(rows), -1) for name, values in columns.items()}


def _arrow(values: NDArray[Any]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _names(names: Sequence[str] | None) -> list[str] | None:
    return list(names) if names else None


def _sizes(cameras: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} of {width}x{height}" for name, (height, width) in cameras.items())


def _flat(stats: Mapping[str, Stats]) -> dict[str, Any]:
    return {f"stats/{name}/{key}": value.tolist() for name, part in stats.items() for key, value in part.items()}


def _plain(stats: Mapping[str, Stats]) -> dict[str, Any]:
    return {name: {key: value.tolist() for key, value in part.items()} for name, part in stats.items()}


def _tasks_table(tasks: Mapping[str, int]) -> pa.Table:
    """Tasks as pandas writes a table whose index they are; lerobot reads it with pandas."""
    index = "__index_level_0__"
    columns: list[dict[str, Any]] = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    told = {
        "index_columns": [index],
        "column_indexes": [{"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}],
        "columns": [{**column, "metadata": None} for column in columns],
    }
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), index: pa.array(tasks.keys(), pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(told)})

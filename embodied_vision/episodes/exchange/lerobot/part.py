"""The rows of one episode of a LeRobotDataset."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embodied_vision.episodes.encoded import decode_image
from embodied_vision.episodes.exchange.lerobot import layout
from embodied_vision.episodes.exchange.lerobot.info import Dataset, Entry, Image
from embodied_vision.episodes.exchange.lerobot.source import Table
from embodied_vision.episodes.exchange.lerobot.video import read_frames
from embodied_vision.episodes.exchange.sidecar import Sample
from embodied_vision.errors import BadInput

_NS = 1_000_000_000


class Part:
    """The data of one episode.

    Attributes:
        stamps_ns: int64 (T,), strictly increasing for others' data.
    """

    def __init__(self, dataset: Dataset, entry: Entry, table: Table, skip: int) -> None:
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

    def colors(self, image: Image) -> Iterator[NDArray[np.uint8]]:
        """The images of a camera, uint8 (H, W, 3), row by row."""
        return self._video(image) if image.video else self._images(image)

    def _video(self, image: Image) -> Iterator[NDArray[np.uint8]]:
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

    def _images(self, image: Image) -> Iterator[NDArray[np.uint8]]:
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

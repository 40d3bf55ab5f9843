"""Zarr v3 arrays on disk: metadata, and shard files written once and read chunk by chunk.

zarr-python reads these arrays as well, but single frames several times slower (its cost is per chunk), it reads
a missing chunk as zeros, and it cannot put an encoded chunk into a shard without encoding it again.
Here every chunk carries a crc32c, and one that should be there and is not is an error.
Arrays are chunked along their first axis only; a shard holds `CHUNKS_PER_SHARD` chunks, its index at the end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes import strict
from embodied_vision.episodes.codecs import CRC_BYTES, ChunkCodec, codec_from_metadata, seal, unseal
from embodied_vision.episodes.files import METADATA_CAP, Location, OpenFile, open_in, read_metadata
from embodied_vision.episodes.pin import Pin
from embodied_vision.errors import EpisodeError

CHUNKS_PER_SHARD = 64
_INDEX_BYTES = CHUNKS_PER_SHARD * 16 + CRC_BYTES
_ABSENT = np.iinfo(np.uint64).max
_LONGEST_READ = 8 << 20
"""Bytes that one call reads: enough to make calls rare, little enough to be held."""
_DATA_TYPES = frozenset({"uint8", "uint16", "int64", "float16", "float32", "float64"})
_LONGEST_AXIS = 1 << 20
_MOST_AXES = 4
MOST_CHUNK_BYTES = 1 << 28
"""Bytes of a decoded chunk: room for an image of 80 megapixels."""
_SPARE_BYTES = 1 << 16
"""What a codec may need beyond twice the bytes that it is given, for its headers."""
_SEPARATOR = "."
"""Shards lie flat in the array's folder: every folder costs a sync when an episode is closed."""


@dataclass(frozen=True)
class ArraySpec:
    """What an array holds.

    Attributes:
        item: shape of one element along the first axis.
        dtype: little-endian number type.
        chunk: elements a chunk.
        codec: how a chunk is encoded.
    """

    item: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: int
    codec: ChunkCodec

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return self.chunk * math.prod(self.item) * self.dtype.itemsize

    def metadata(self, length: int) -> dict[str, Any]:
        """The array's `zarr.json`."""
        sharding = {
            "chunk_shape": [self.chunk, *self.item],
            "codecs": [*self.codec.metadata(), {"name": "crc32c"}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [length, *self.item],
            "data_type": self.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.chunk * CHUNKS_PER_SHARD, *self.item]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": _SEPARATOR}},
            "fill_value": 0.0 if self.dtype.kind == "f" else 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {},
        }


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Make `folder` a Zarr v3 group. The attributes must be plain JSON."""
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    _write_json(folder / "zarr.json", metadata)


def read_attributes(folder: Location) -> dict[str, Any]:
    """Attributes of a Zarr v3 group.

    Raises:
        EpisodeError: there is no such group.
    """
    path = folder / "zarr.json"
    attributes = _read_json(path).get("attributes")
    if not isinstance(attributes, dict):
        raise EpisodeError(f"{path} has no attributes; restore it from a copy")
    return attributes


def write_chunks(folder: Path, spec: ArraySpec, length: int, chunks: Iterable[bytes]) -> None:
    """Write an array from its sealed chunks, in order; only one chunk is held in memory."""
    _write_json(folder / "zarr.json", spec.metadata(length))
    count = -(-length // spec.chunk)
    source = iter(chunks)
    for shard in range(-(-count // CHUNKS_PER_SHARD)):
        index = np.full((CHUNKS_PER_SHARD, 2), _ABSENT, "<u8")
        with open(folder / _shard_name(shard, spec, _SEPARATOR), "xb") as file:
            offset = 0
            for slot in range(min(CHUNKS_PER_SHARD, count - shard * CHUNKS_PER_SHARD)):
                chunk = next(source)
                file.write(chunk)
                index[slot] = offset, len(chunk)
                offset += len(chunk)
            file.write(seal(index.tobytes()))


def write_values(folder: Path, spec: ArraySpec, values: NDArray[Any]) -> None:
    """Write a whole array (T, *item)."""

    def chunks() -> Iterable[bytes]:
        for start in range(0, len(values), spec.chunk):
            part = values[start : start + spec.chunk]
            chunk = np.zeros((spec.chunk, *spec.item), spec.dtype)
            chunk[: len(part)] = part
            yield seal(spec.codec.encode(chunk))

    write_chunks(folder, spec, len(values), chunks())


class ArrayReader:
    """Random access to the chunks of an array that `write_chunks` or `write_values` wrote.

    Holds no file open, so that it can be copied to other processes and thousands can be held.

    Args:
        folder: of the array.
        pin: the version of the episode that chunks must belong to; unchecked without.

    Raises:
        EpisodeError: the array is missing or not of a form that this store writes.
    """

    def __init__(self, folder: Location, pin: Pin | None = None) -> None:
        self.folder = folder
        self._pin = pin
        metadata = _read_json(folder / "zarr.json")
        try:
            self.length, self.spec, self._separator = _array_of(metadata, str(folder))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, EpisodeError):
                raise
            raise EpisodeError(
                f"{folder / 'zarr.json'} is no array of an episode ({error!r}); restore it from a copy"
            ) from error
        self._most_bytes = 2 * self.spec.chunk_bytes + _SPARE_BYTES
        self._indices: dict[int, NDArray[np.uint64]] = {}

    def expect(
        self, dtype: str, item: tuple[int, ...] | None = None, *, axes: int | None = None, chunk: int | None = None
    ) -> Self:
        """The array itself, where it is one of these elements.

        Args:
            dtype: number type.
            item: shape of an element; any of `axes` axes without.
            axes: of an element, where `item` is not given.
            chunk: elements a chunk, any without.

        Raises:
            EpisodeError: it is not.
        """
        spec = self.spec
        right = spec.item == item if item is not None else len(spec.item) == axes
        if spec.dtype != np.dtype(dtype) or not right or spec.chunk != (chunk or spec.chunk):
            raise EpisodeError(
                f"{self.folder} holds {spec.dtype} {spec.item} by {spec.chunk}, not what an episode has there; restore "
                "it from a copy"
            )
        return self

    def chunk(self, number: int) -> NDArray[Any]:
        """Decoded chunk (chunk, *item), fresh.

        Raises:
            EpisodeError: its file is missing or damaged.
        """
        ((_, sealed),) = self.sealed([number])
        return self.decode(number, sealed)

    def sealed(self, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Chunks as they lie in their files, by number; neighbours are read by one call.

        Args:
            numbers: which, ascending and without repeats, so that each file is opened once.

        Raises:
            EpisodeError: a file is missing or cut short, or the array was replaced since this reader opened it.
        """
        for shard, members in groupby(numbers, lambda number: number // CHUNKS_PER_SHARD):
            name = _shard_name(shard, self.spec, self._separator)
            path = f"{self.folder}/{name}"
            try:
                with open_in(self.folder, name) as file:
                    stretches = _stretches(self._places(file, shard, path, members))
                    while several := list(islice(stretches, file.at_once)):
                        ranges = [(stretch[0][1], stretch[-1][2] - stretch[0][1]) for stretch in several]
                        for stretch, (offset, _), data in zip(several, ranges, file.read_ranges(ranges), strict=True):
                            if len(stretch) == 1:
                                yield stretch[0][0], data
                                continue
                            for number, first, last in stretch:
                                yield number, data[first - offset : last - offset]
            except OSError as error:
                if self._pin is not None:
                    self._pin.check()
                raise EpisodeError(f"{path} cannot be read ({error.strerror}); restore it from a copy") from error

    def decode(self, number: int, sealed: bytes, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Check and decode a chunk that `sealed` read; safe in several threads at once.

        Args:
            number: whose it is.
            sealed: its bytes.
            out: (chunk, *item), contiguous, to be filled; a fresh one without it.

        Raises:
            EpisodeError: the bytes are not those that were written.
        """
        where = f"{self._path(number // CHUNKS_PER_SHARD)}: chunk {number}"
        data = unseal(sealed, where)
        try:
            return self.spec.codec.decode(data, (self.spec.chunk, *self.spec.item), self.spec.dtype, out)
        except ValueError as error:
            if isinstance(error, EpisodeError):
                raise
            raise EpisodeError(f"{where} cannot be decoded ({error}); restore the file from a copy") from error

    def _path(self, shard: int) -> str:
        return f"{self.folder}/{_shard_name(shard, self.spec, self._separator)}"

    def _places(self, file: OpenFile, shard: int, path: str, numbers: Iterable[int]) -> Iterator[tuple[int, int, int]]:
        """Number, begin and end of chunks of an open shard."""
        # Asked after the file was opened: what is read below belongs to the array that the index and the stamps are of.
        if self._pin is not None:
            self._pin.check()
        if shard not in self._indices:
            self._indices[shard] = _read_index(file, path)
        index = self._indices[shard]
        for number in numbers:
            offset, size = (int(n) for n in index[number % CHUNKS_PER_SHARD])
            if size == _ABSENT:
                raise EpisodeError(f"{path}: chunk {number} was never written; restore the file from a copy")
            if size > self._most_bytes:
                raise EpisodeError(f"{path}: chunk {number} has {size} bytes, too many; restore the file from a copy")
            yield number, offset, offset + size

    def values(self) -> NDArray[Any]:
        """The whole array (T, *item)."""
        count = -(-self.length // self.spec.chunk)
        try:  # takes memory only as it is filled, chunk by chunk that is there
            out = np.empty((count, self.spec.chunk, *self.spec.item), self.spec.dtype)
        except (MemoryError, OverflowError, ValueError) as error:
            raise EpisodeError(
                f"{self.folder} says that it holds {self.length} elements of {self.spec.item}, more than fit into "
                "memory; read it by chunk, or restore it from a copy"
            ) from error
        for number, sealed in self.sealed(range(count)):
            self.decode(number, sealed, out[number])
        return out.reshape(count * self.spec.chunk, *self.spec.item)[: self.length]


def _array_of(metadata: Mapping[str, Any], where: str) -> tuple[int, ArraySpec, str]:
    """Length, content and separator of an array from its `zarr.json`, which must be one that `metadata` makes."""
    (sharding,) = (codec["configuration"] for codec in strict.items(metadata["codecs"], "codecs"))
    codec = codec_from_metadata(strict.items(sharding["codecs"], "codecs"), where)
    length, *item = strict.items(metadata["shape"], "shape")
    if len(item) > _MOST_AXES or metadata["data_type"] not in _DATA_TYPES:
        raise ValueError(f"an array of shape {strict.shortened(metadata['shape'])} and {metadata['data_type']!r:.40}")
    spec = ArraySpec(
        item=tuple(strict.integer(size, "shape", 0, _LONGEST_AXIS) for size in item),
        dtype=np.dtype(metadata["data_type"]),
        chunk=strict.integer(sharding["chunk_shape"][0], "chunk_shape", 1, _LONGEST_AXIS),
        codec=codec,
    )
    if spec.chunk_bytes > MOST_CHUNK_BYTES:
        raise ValueError(f"chunks of {spec.chunk_bytes} bytes, more than {MOST_CHUNK_BYTES}")
    separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
    if separator not in (".", "/"):
        raise ValueError(f"separator {separator!r:.40}")
    expected = spec.metadata(strict.integer(length, "shape", 0))
    for name, value in expected.items():
        if name not in ("attributes", "chunk_key_encoding") and metadata[name] != value:
            raise EpisodeError(f"{where}/zarr.json: {name} is not as episodes have it; read it with zarr-python")
    return length, spec, separator


def _read_index(file: OpenFile, path: str) -> NDArray[np.uint64]:
    size, tail = file.tail(_INDEX_BYTES)
    if size < _INDEX_BYTES:
        raise EpisodeError(f"{path} is cut short at {size} bytes; restore it from a copy")
    data = unseal(tail, f"{path}: shard index")
    index = np.frombuffer(data, "<u8").reshape(CHUNKS_PER_SHARD, 2)
    offsets, sizes = index[index[:, 1] != _ABSENT].T
    if (offsets > size).any() or (sizes > size - offsets).any():
        raise EpisodeError(f"{path}: its index points outside of the file; restore it from a copy")
    return index


def _stretches(places: Iterable[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Chunks that lie side by side, up to `_LONGEST_READ` bytes together."""
    stretch: list[tuple[int, int, int]] = []
    for place in places:
        if stretch and (place[1] != stretch[-1][2] or place[2] - stretch[0][1] > _LONGEST_READ):
            yield stretch
            stretch = []
        stretch.append(place)
    if stretch:
        yield stretch


def _shard_name(shard: int, spec: ArraySpec, separator: str) -> str:
    return separator.join(["c", str(shard), *("0" for _ in spec.item)])


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, allow_nan=False).encode()
    try:
        if len(text) > METADATA_CAP:
            raise ValueError(f"{len(text)} bytes, at most {METADATA_CAP} are read")
        strict.check_amount(text)
    except ValueError as error:
        raise EpisodeError(
            f"{path} would have too much to be read again ({error}); log large things as streams instead of attributes "
            "or `info`"
        ) from error
    with open(path, "xb") as file:
        file.write(text)


def _read_json(path: Location) -> dict[str, Any]:
    try:
        return dict(strict.mapping(strict.parse(read_metadata(path)), "it"))
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read ({error.strerror}); restore it from a copy") from error
    except ValueError as error:
        raise EpisodeError(f"{path} is damaged, no JSON object ({error}); restore it from a copy") from error

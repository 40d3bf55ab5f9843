"""Recordings of topics, whatever the storage: their topics, their messages in the order of recording."""

from __future__ import annotations

import io
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import lz4.frame
import zstandard

from embodied_vision.episodes.exchange.cdr import Message, Topic
from embodied_vision.errors import BadInput

LARGEST = 128 << 20
"""Bytes of a message or a chunk of messages; what declares more is refused before anything is allocated."""


class Recording(Protocol):
    """A recording that was found whole when it was opened."""

    @property
    def path(self) -> Path:
        """File or folder that it was opened from."""

    @property
    def topics(self) -> Mapping[str, Topic]:
        """By name."""

    @property
    def about(self) -> Mapping[str, str]:
        """What an export of this package says of its episode, see `about`; empty for recordings of others."""

    def messages(self) -> Iterator[Message]:
        """All messages, in the order of recording.

        Raises:
            BadInput: the recording is damaged.
        """


def regular_file(path: Path, folder: Path | None = None) -> Path:
    """`path`, when it is a file, and within `folder` where that is given: links may not lead out of a recording.

    Raises:
        BadInput: it is not.
    """
    try:
        resolved = path.resolve(strict=True)
        ordinary = stat.S_ISREG(resolved.stat().st_mode)
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); give a recording that is complete") from error
    if not ordinary:
        raise BadInput(f"{path} is no ordinary file; give a recording that is complete")
    if folder is not None and folder.resolve() not in resolved.parents:
        raise BadInput(f"{path} leads to {resolved}, out of the recording; copy the file into its folder")
    return resolved


def add_topic(topics: dict[str, Topic], topic: Topic, path: Path) -> None:
    """Take note of a topic.

    Raises:
        BadInput: it was there before with another type.
    """
    known = topics.setdefault(topic.name, topic)
    if known.type != topic.type:
        raise BadInput(f"{path}: topic {topic.name} holds {known.type} and {topic.type}; keep one of them")


def decompress(data: bytes, compression: str, size: int, where: str) -> bytes:
    """Exactly `size` bytes out of `data`; a bomb is stopped at that size.

    Args:
        compression: "zstd", "lz4" or "" for none.

    Raises:
        BadInput: another size, a damaged stream, or an unknown compression.
    """
    if size > LARGEST:
        raise BadInput(f"{where} declares {size} bytes, at most {LARGEST} are read; is the recording damaged?")
    if compression not in _DECOMPRESS:
        raise BadInput(f"{where} is compressed by {compression!r}; record with one of zstd, lz4 or none")
    try:
        result = _DECOMPRESS[compression](data, size)
    except (zstandard.ZstdError, RuntimeError, EOFError, ValueError) as error:
        raise BadInput(f"{where} cannot be decompressed ({error}); the recording is damaged") from error
    if len(result) != size:
        raise BadInput(f"{where} does not hold the {size} bytes that it declares; the recording is damaged")
    return result


def unzstd(data: bytes, where: str) -> bytes:
    """A zstd frame of unknown size, at most `LARGEST`.

    Raises:
        BadInput: a damaged or a larger one.
    """
    try:
        result = _zstd(data, LARGEST)
    except zstandard.ZstdError as error:
        raise BadInput(f"{where} cannot be decompressed ({error}); the recording is damaged") from error
    if len(result) > LARGEST:
        raise BadInput(f"{where} holds more than {LARGEST} bytes; is the recording damaged?")
    return result


def _zstd(data: bytes, size: int) -> bytes:
    """At most one byte more than `size`."""
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        return bytes(reader.read(size + 1))


def _lz4(data: bytes, size: int) -> bytes:
    return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size + 1))


_DECOMPRESS: Mapping[str, Callable[[bytes, int], bytes]] = {"": lambda data, _: data, "zstd": _zstd, "lz4": _lz4}

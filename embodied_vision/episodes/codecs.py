"""How one chunk becomes bytes, in the vocabulary of Zarr v3 codecs, and the crc32c that seals it."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import google_crc32c
import imagecodecs
import numpy as np
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray

from embodied_vision.episodes import strict
from embodied_vision.episodes.htj2k import HTJ2K_NAME, Htj2kChunks
from embodied_vision.errors import EpisodeError

JPEG_NAME = "embodied_vision.jpeg"
CRC_BYTES = 4

_JPEG_SOF = frozenset({0xC0, 0xC1, 0xC2})
"""Markers of frames that are baseline, extended or progressive; no decoder here knows others."""
_JPEG_NOT_BEFORE_SOF = frozenset({0xDA, 0xD9, 0xD8, 0xFF, 0x00})
"""Markers that cannot stand before it."""
_JPEG_SIZES = struct.Struct(">BHHB")
_JPEG_SCAN = int.from_bytes(b"\xff\xda", "little")
_MOST_SCANS = 100
_BLOSC_HEADER = 16
_BLOSC_SIZES = struct.Struct("<III")
"""Bytes decoded, bytes a block and bytes encoded, at byte 4 of the header."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class ChunkCodec(Protocol):
    """Encodes the chunks of one array."""

    def metadata(self) -> list[dict[str, Any]]:
        """The Zarr v3 codec list, without the sealing crc32c."""

    def encode(self, chunk: NDArray[Any]) -> bytes:
        """A chunk to bytes."""

    def decode(
        self, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Bytes to a chunk of that shape: into `out`, contiguous and writable, where it is given.

        Raises:
            ValueError: the bytes are no such chunk.
        """


@dataclass(frozen=True)
class JpegChunks:
    """One RGB image (1, H, W, 3) uint8 a chunk, chroma not subsampled; lossy."""

    quality: int = 90

    def metadata(self) -> list[dict[str, Any]]:
        return [{"name": JPEG_NAME, "configuration": {"quality": self.quality}}]

    def encode(self, chunk: NDArray[Any]) -> bytes:
        image = np.ascontiguousarray(chunk.reshape(chunk.shape[-3:]))
        return bytes(imagecodecs.jpeg8_encode(image, level=self.quality, subsampling="444"))

    def decode(
        self, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        if np.dtype(dtype) != np.uint8:
            raise ValueError(f"JPEG images are uint8, not {dtype}")
        declared = jpeg_shape(data)
        if declared != shape[-3:]:  # checked first: some images take all their memory at the start
            raise ValueError(f"JPEG image of {declared}, expected {shape[-3:]}")
        if _jpeg_scans(data) > _MOST_SCANS:
            raise ValueError(f"a JPEG image of more than {_MOST_SCANS} scans, each of which costs time")
        out = np.empty(shape, dtype) if out is None else out
        try:
            imagecodecs.jpeg8_decode(data, out=out.reshape(shape[-3:]))
        except imagecodecs.Jpeg8Error as error:
            raise ValueError(f"no JPEG image: {error}") from error
        return out


@dataclass(frozen=True)
class BloscChunks:
    """Bitshuffle and Zstandard; lossless, for images."""

    typesize: int
    level: int = 1

    def metadata(self) -> list[dict[str, Any]]:
        configuration = {
            "typesize": self.typesize,
            "cname": "zstd",
            "clevel": self.level,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        }
        return [_bytes_metadata(), {"name": "blosc", "configuration": configuration}]

    def encode(self, chunk: NDArray[Any]) -> bytes:
        codec = Blosc("zstd", clevel=self.level, shuffle=Blosc.BITSHUFFLE, typesize=self.typesize)
        return bytes(codec.encode(np.ascontiguousarray(chunk)))

    def decode(
        self, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        declared, block, size = _BLOSC_SIZES.unpack_from(data, 4) if len(data) >= _BLOSC_HEADER else (-1, 0, 0)
        if declared != expected:  # Blosc would fill a part of `out` and say nothing
            raise ValueError(f"Blosc chunk of {declared} bytes, expected {expected}")
        if size != len(data) or block > max(declared, _BLOSC_HEADER):
            raise ValueError(f"Blosc header says {size} bytes in blocks of {block}, there are {len(data)}")
        out = np.empty(shape, dtype) if out is None else out
        try:
            Blosc().decode(data, out)
        except RuntimeError as error:
            raise ValueError(f"no Blosc chunk: {error}") from error
        return out


@dataclass(frozen=True)
class ZstdChunks:
    """Zstandard; lossless, for series of numbers."""

    level: int = 3

    def metadata(self) -> list[dict[str, Any]]:
        return [_bytes_metadata(), {"name": "zstd", "configuration": {"level": self.level, "checksum": False}}]

    def encode(self, chunk: NDArray[Any]) -> bytes:
        return bytes(Zstd(self.level).encode(np.ascontiguousarray(chunk)))

    def decode(
        self, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        declared = zstd_content_size(data)
        if declared != expected:  # checked first: Zstandard would make room for whatever is declared
            raise ValueError(f"Zstandard chunk of {declared} bytes, expected {expected}")
        out = np.empty(shape, dtype) if out is None else out
        if expected == 0:
            return out
        try:
            Zstd().decode(data, out)
        except RuntimeError as error:
            raise ValueError(f"no Zstandard chunk: {error}") from error
        return out


def jpeg_shape(data: bytes) -> tuple[int, int, int]:
    """Rows, columns and components that a JPEG image says it has (ITU T.81, B.2.2).

    Raises:
        ValueError: it does not say.
    """
    at = 2
    while data[:2] == b"\xff\xd8" and at + 10 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _JPEG_NOT_BEFORE_SOF:
            break
        if data[at + 1] in _JPEG_SOF:
            _, rows, columns, components = _JPEG_SIZES.unpack_from(data, at + 4)
            return rows, columns, components
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("no JPEG image")


def _jpeg_scans(data: bytes) -> int:
    """Scans of a JPEG image. `bytes.count` is slow at it: 0xFF is frequent there."""
    even, odd = np.frombuffer(data, "<u2", len(data) // 2), np.frombuffer(data, "<u2", (len(data) - 1) // 2, 1)
    return int(np.count_nonzero(even == _JPEG_SCAN) + np.count_nonzero(odd == _JPEG_SCAN))


def zstd_content_size(data: bytes) -> int | None:
    """Bytes that a Zstandard frame says it holds; None where it does not say (RFC 8878, section 3.1.1.1)."""
    if len(data) < 6 or data[:4] != _ZSTD_MAGIC:
        return None
    descriptor = data[4]
    single_segment = descriptor >> 5 & 1
    start = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
    size = (single_segment, 2, 4, 8)[descriptor >> 6]
    if size == 0 or len(data) < start + size:
        return None
    return int.from_bytes(data[start : start + size], "little") + (256 if size == 2 else 0)


def _bytes_metadata() -> dict[str, Any]:
    return {"name": "bytes", "configuration": {"endian": "little"}}


def codec_from_metadata(codecs: Sequence[Mapping[str, Any]], where: str) -> ChunkCodec:
    """The codec that wrote `codecs`, a Zarr v3 codec list that ends in crc32c.

    Raises:
        EpisodeError: a list that this store does not write.
        ValueError, KeyError, TypeError: no such list at all.
    """
    names = [codec["name"] for codec in codecs]
    if names == [JPEG_NAME, "crc32c"]:
        return JpegChunks(strict.integer(codecs[0]["configuration"]["quality"], "quality", 0, 100))
    if names == [HTJ2K_NAME, "crc32c"]:
        return Htj2kChunks(strict.integer(codecs[0]["configuration"]["quality"], "quality", 1, 100))
    if names == ["bytes", "blosc", "crc32c"]:
        configuration = codecs[1]["configuration"]
        return BloscChunks(
            strict.integer(configuration["typesize"], "typesize", 1, 255),
            strict.integer(configuration["clevel"], "clevel", 0, 9),
        )
    if names == ["bytes", "zstd", "crc32c"]:
        return ZstdChunks(strict.integer(codecs[1]["configuration"]["level"], "level", -(1 << 17), 22))
    raise EpisodeError(f"{where}: codecs {names} are not ones that episodes are written with; read it with zarr-python")


def seal(data: bytes) -> bytes:
    """Append the crc32c, little endian, as Zarr's crc32c codec does."""
    return data + struct.pack("<I", google_crc32c.value(data))


def unseal(data: bytes, where: str) -> bytes:
    """Check and strip the crc32c.

    Raises:
        EpisodeError: the data are not those that were written.
    """
    body = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or struct.unpack("<I", data[-CRC_BYTES:])[0] != google_crc32c.value(body):
        raise EpisodeError(f"{where} fails its crc32c: the file is damaged; restore it from a copy")
    return body

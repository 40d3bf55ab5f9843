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

from embodied_vision.errors import EpisodeError

JPEG_NAME = "embodied_vision.jpeg"
CRC_BYTES = 4


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
        out = np.empty(shape, dtype) if out is None else out
        try:  # an image of another shape than the place for it is refused before its pixels are decoded
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
        declared = int.from_bytes(data[4:8], "little") if len(data) >= 16 else -1
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        if declared != expected:  # Blosc would fill a part of `out` and say nothing
            raise ValueError(f"Blosc chunk of {declared} bytes, expected {expected}")
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
        out = np.empty(shape, dtype) if out is None else out
        try:
            out[...] = np.frombuffer(Zstd().decode(data), dtype).reshape(shape)
        except RuntimeError as error:
            raise ValueError(f"no Zstandard chunk: {error}") from error
        return out


def _bytes_metadata() -> dict[str, Any]:
    return {"name": "bytes", "configuration": {"endian": "little"}}


def codec_from_metadata(codecs: Sequence[Mapping[str, Any]], where: str) -> ChunkCodec:
    """The codec that wrote `codecs`, a Zarr v3 codec list that ends in crc32c.

    Raises:
        EpisodeError: a list that this store does not write.
    """
    names = [codec["name"] for codec in codecs]
    if names == [JPEG_NAME, "crc32c"]:
        return JpegChunks(int(codecs[0]["configuration"]["quality"]))
    if names == ["bytes", "blosc", "crc32c"]:
        configuration = codecs[1]["configuration"]
        return BloscChunks(int(configuration["typesize"]), int(configuration["clevel"]))
    if names == ["bytes", "zstd", "crc32c"]:
        return ZstdChunks(int(codecs[1]["configuration"]["level"]))
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

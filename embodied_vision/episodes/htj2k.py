"""Color images as High-Throughput JPEG 2000: smaller than JPEG at the same error, at more time.

OpenJPH encodes and OpenJPEG decodes: OpenJPH is twice as fast at that, but tells nothing of damage and crashes on some
headers. Only codestreams of the size and the coding that `Htj2kChunks.encode` writes are decoded at all, so that none
can ask for more memory or time than an image of that size takes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

HTJ2K_NAME = "embodied_vision.htj2k"

_SOC, _SOT, _EOC = b"\xff\x4f", b"\xff\x90", b"\xff\xd9"
_CAP, _COD, _QCD, _COM = b"\xff\x50", b"\xff\x52", b"\xff\x5c", b"\xff\x64"
_SIZ = struct.Struct(">HHIIIIIIIIH9B")
_TILE = struct.Struct(">HHIBB")
_CODING = bytes.fromhex("00 02 0001 01 05 04 04 40 00")
"""One layer, color transform, five levels, blocks of 64x64, HT coder, 9-7 wavelet (ISO/IEC 15444-1, A.6.1)."""
_STEPS_BYTES = 33
"""Of a QCD segment: a style and the step of each of 16 subbands."""


@dataclass(frozen=True)
class Htj2kChunks:
    """One RGB image (1, H, W, 3) uint8 a chunk; lossy.

    Attributes:
        quality: 1 to 100; the error is about that of a JPEG image of that quality.
    """

    quality: int = 90

    def metadata(self) -> list[dict[str, Any]]:
        return [{"name": HTJ2K_NAME, "configuration": {"quality": self.quality}}]

    def encode(self, chunk: NDArray[Any]) -> bytes:
        image = np.ascontiguousarray(chunk.reshape(chunk.shape[-3:]))
        return bytes(imagecodecs.htj2k_encode(image, level=self._step(), reversible=False, planar=False))

    def decode(
        self, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        if np.dtype(dtype) != np.uint8:
            raise ValueError(f"HTJ2K images are uint8, not {dtype}")
        _check(data, shape[-3:])
        out = np.empty(shape, dtype) if out is None else out
        try:
            imagecodecs.jpeg2k_decode(data, numthreads=1, out=out.reshape(shape[-3:]))
        except imagecodecs.Jpeg2kError as error:
            raise ValueError(f"no HTJ2K image: {error}") from error
        return out

    def _step(self) -> float:
        """Quantisation step, as a share of the range of values.

        It follows the factor by which libjpeg scales its tables, fitted to the PSNR of textured, noisy images.
        """
        scale = 5000 / self.quality if self.quality < 50 else 200 - 2 * self.quality
        return (12.1 + 0.37 * scale) / 1000


def _check(data: bytes, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the codestream is one of ours for a color image of that shape."""
    size = _size(shape)
    if data[: len(size)] != size:
        raise ValueError(f"no HTJ2K image of {shape}")
    at, seen = len(size), []
    while (marker := data[at : at + 2]) in (_CAP, _COD, _QCD, _COM):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if (marker == _COD and body != _CODING) or (marker == _QCD and len(body) != _STEPS_BYTES):
            raise ValueError("an HTJ2K image that is coded in another way")
        if marker != _COM:
            seen.append(marker)
        at += 2 + length
    tile = data[at + 2 : at + 2 + _TILE.size]
    if marker != _SOT or seen != [_CAP, _COD, _QCD] or len(tile) < _TILE.size:
        raise ValueError("an HTJ2K image with another header")
    if _TILE.unpack(tile) != (_TILE.size, 0, len(data) - at - len(_EOC), 0, 1) or data[-2:] != _EOC:
        raise ValueError("an HTJ2K image that is cut short")


def _size(shape: tuple[int, ...]) -> bytes:
    """Start of the codestream and its SIZ segment: one tile, three components of 8 bits (A.5.1)."""
    rows, columns, components = shape
    sizes = (columns, rows, 0, 0)
    return _SOC + b"\xff\x51" + _SIZ.pack(_SIZ.size, 0x4000, *sizes, *sizes, components, *(7, 1, 1) * 3)

"""The codecs of color images for zarr-python, so that any Zarr v3 program on Python reads an episode.

Installed, zarr finds them by their entry points; otherwise importing this module registers them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import register_codec

from embodied_vision.episodes.codecs import JPEG_NAME, JpegChunks
from embodied_vision.episodes.htj2k import HTJ2K_NAME, Htj2kChunks


@dataclass(frozen=True)
class _ImageCodec(ArrayBytesCodec):
    """Array-to-bytes codec of one (…, H, W, 3) uint8 image a chunk; leading axes have length 1."""

    quality: int = 90
    is_fixed_size = False
    _chunks: ClassVar[type[JpegChunks] | type[Htj2kChunks]]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the codec's entry in a `zarr.json`."""
        return cls(quality=int(data.get("configuration", {}).get("quality", 90)))

    def to_dict(self) -> dict[str, Any]:
        """The codec's entry in a `zarr.json`."""
        return self._chunks(self.quality).metadata()[0]

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays whose chunks are not single RGB images."""
        if dtype.to_native_dtype() != np.uint8 or len(shape) < 3 or shape[-1] != 3:
            raise ValueError(f"{self.to_dict()['name']} holds uint8 images (…, H, W, 3), not {dtype} {shape}")

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        data = await asyncio.to_thread(self._chunks(self.quality).encode, chunk_data.as_numpy_array())
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        image = await asyncio.to_thread(
            self._chunks(self.quality).decode, chunk_data.to_bytes(), chunk_spec.shape, np.dtype(np.uint8)
        )
        return chunk_spec.prototype.nd_buffer.from_numpy_array(image)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Unknown before encoding."""
        raise NotImplementedError(f"{self.to_dict()['name']} has no fixed size")


class JpegCodec(_ImageCodec):
    """JPEG images."""

    _chunks = JpegChunks


class Htj2kCodec(_ImageCodec):
    """High-Throughput JPEG 2000 images."""

    _chunks = Htj2kChunks


register_codec(JPEG_NAME, JpegCodec)
register_codec(HTJ2K_NAME, Htj2kCodec)

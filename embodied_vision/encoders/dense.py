"""Finer features than an encoder gives by itself: large images in tiles, and grids denser than its patches."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from math import ceil

import numpy as np
from numpy.typing import NDArray

from embodied_vision.encoders.base import Encoder, check_image
from embodied_vision.errors import EncoderError
from embodied_vision.types import Features


class Around:
    """An encoder built around another one."""

    def __init__(self, inner: Encoder, suffix: str) -> None:
        self._inner, self._suffix = inner, suffix

    @property
    def encoder_id(self) -> str:
        """That of the inner encoder, and what is done around it."""
        return f"{self._inner.encoder_id}-{self._suffix}"

    @property
    def artefact_id(self) -> str:
        """Runtime and precision of the inner encoder."""
        return self._inner.artefact_id

    @property
    def dimension(self) -> int:
        """Feature channels D."""
        return self._inner.dimension


class TiledEncoder(Around):
    """Encodes an image of any size in overlapping tiles, one after the other, so that memory does not grow with it.

    A feature is that of the tile in which its patch lies farthest from the border; where tiles end, the last row and
    column of the image are repeated.
    """

    def __init__(self, inner: Encoder, tile_px: int, overlap_px: int) -> None:
        """
        Args:
            inner: encodes a tile.
            tile_px: edge of the square tiles, in px of the image.
            overlap_px: what neighbours share at least.

        Raises:
            EncoderError: a tile is not made of whole patches, or the overlap leaves nothing of it.
        """
        super().__init__(inner, f"tile{tile_px}-overlap{overlap_px}")
        if tile_px < 1 or overlap_px < 0:
            raise EncoderError(
                f"tile {tile_px} px with overlap {overlap_px} px; give a positive tile, an overlap from 0"
            )
        grid = inner.encode(np.zeros((tile_px, tile_px, 3), np.uint8)).grid.shape
        if tile_px % grid[0] or grid[0] != grid[1]:
            raise EncoderError(
                f"a tile of {tile_px} px becomes {grid[0]} x {grid[1]} patches, which are no whole px; give a multiple "
                f"of {grid[0]}, such as {max(1, round(tile_px / grid[0])) * grid[0]}"
            )
        self._tile, self._cells, self._stride = tile_px, grid[0], tile_px // grid[0]
        self._step = self._cells - -(-overlap_px // self._stride)
        if self._step < 1:
            raise EncoderError(f"overlap {overlap_px} px leaves nothing of tiles of {tile_px} px; give a smaller one")

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image.

        Raises:
            EncoderError: the image has another type or shape.
        """
        check_image(color)
        cells = tuple(-(-side // self._stride) for side in color.shape[:2])
        grid = np.empty((*cells, self.dimension), np.float32)
        rows, columns = (self._spans(count) for count in cells)
        for (top, first_row, last_row), (left, first_column, last_column) in product(rows, columns):
            features = self._inner.encode(self._crop(color, top * self._stride, left * self._stride)).grid
            grid[first_row:last_row, first_column:last_column] = features[
                first_row - top : last_row - top, first_column - left : last_column - left
            ]
        stride = (float(self._stride), float(self._stride))
        return Features(grid, stride, self.encoder_id, self.artefact_id, stamp_ns)

    def _spans(self, count: int) -> list[tuple[int, int, int]]:
        """Along one axis of `count` cells: first cell of each tile, and from which to which its cells are taken."""
        last = max(0, count - self._cells)
        starts = sorted({min(start, last) for start in range(0, last + self._step, self._step)})
        borders = [(one + self._cells + other) // 2 for one, other in pairwise(starts)]
        return list(zip(starts, [0, *borders], [*borders, count], strict=True))

    def _crop(self, color: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
        crop = color[top : top + self._tile, left : left + self._tile]
        below, right = self._tile - crop.shape[0], self._tile - crop.shape[1]
        if below or right:
            return np.pad(crop, ((0, below), (0, right), (0, 0)), mode="edge")
        return np.ascontiguousarray(crop)


class ShiftedEncoder(Around):
    """A grid `factor` times as dense: the image is encoded in `factor`² positions, a part of a patch apart.

    Each feature is computed, none interpolated (sliding patches as in Amir et al. 2021, arXiv:2112.05814, by moving the
    image in place of the patches, which works with every network). Costs `factor`² encodings.
    """

    def __init__(self, inner: Encoder, factor: int) -> None:
        """
        Raises:
            EncoderError: the factor is below 2.
        """
        super().__init__(inner, f"dense{factor}")
        if factor < 2:
            raise EncoderError(f"features {factor} times as dense; give 2 or more")
        self._factor = factor

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image.

        Raises:
            EncoderError: the image has another type or shape.
        """
        whole = self._inner.encode(color, stamp_ns)
        k, (down, right) = self._factor, whole.stride
        grid = np.empty((whole.grid.shape[0] * k, whole.grid.shape[1] * k, self.dimension), np.float32)
        for row, column in product(range(k), range(k)):
            shift = (_shift(row, k, down), _shift(column, k, right))
            grid[row::k, column::k] = self._inner.encode(_moved(color, shift)).grid
        rows, columns = (ceil(side * k / px - 1e-6) for side, px in zip(color.shape[:2], whole.stride, strict=True))
        grid = np.ascontiguousarray(grid[:rows, :columns])  # beyond lies padding
        return replace(whole, grid=grid, stride=(down / k, right / k), encoder_id=self.encoder_id)


def _shift(part: int, factor: int, stride: float) -> int:
    """px from a patch's centre to that of its part, counted from 0."""
    return round((part + 0.5) * stride / factor - 0.5 * stride)


def _moved(color: NDArray[np.uint8], shift: tuple[int, int]) -> NDArray[np.uint8]:
    """The image (H, W, 3) seen from `shift` (rows, columns) px further on; what lies outside repeats its border."""
    rows, columns = (np.clip(np.arange(n) + d, 0, n - 1) for n, d in zip(color.shape[:2], shift, strict=True))
    return np.ascontiguousarray(color[rows][:, columns])

"""What can be had without an encoder: the pixels themselves, as features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.encoders.base import check_image
from embodied_vision.types import RGBD, Features, FloatArray

PATCH_PX, PARTS = 8, 4
"""Edge of a patch, and parts along it whose means are kept."""


class RawPixels:
    """Color, and depth where it is asked for, of the 4 × 4 parts of each patch of 8 × 8 px.

    Attributes:
        encoder_id: names what it computes.
    """

    def __init__(self, *, depth: bool) -> None:
        self._depth = depth
        self.encoder_id = "raw-rgbd-1" if depth else "raw-rgb-1"

    def describe(self, frame: RGBD, color: NDArray[np.uint8]) -> Features:
        """Features of a frame whose color is `color`, uint8 (H, W, 3); color in 0 … 1, depth in m."""
        check_image(color, smallest_px=PATCH_PX)
        planes = [_parts(color / 255)]
        if self._depth:
            planes.append(_parts(frame.depth[..., None].astype(np.float64)))
        grid = np.concatenate(planes, axis=2).astype(np.float32)
        return Features(grid, (float(PATCH_PX), float(PATCH_PX)), self.encoder_id, "numpy", frame.stamp_ns)


def _parts(image: FloatArray) -> FloatArray:
    """Means (rows, columns, PARTS² · C) of the parts of all whole patches of an image (H, W, C)."""
    rows, columns, edge = image.shape[0] // PATCH_PX, image.shape[1] // PATCH_PX, PATCH_PX // PARTS
    whole = image[: rows * PATCH_PX, : columns * PATCH_PX]
    parts = whole.reshape(rows, PARTS, edge, columns, PARTS, edge, -1).mean((2, 5))
    flat: FloatArray = parts.transpose(0, 2, 1, 3, 4).reshape(rows, columns, -1)
    return flat

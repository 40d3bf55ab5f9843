"""Frames on their way to the disk: as a sensor gave them, and encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput
from embodied_vision.geometry import quantise_depth
from embodied_vision.types import RGBD, Camera


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A frame whose images are views of what a driver sent: nothing is computed where it is received.

    Attributes:
        color: uint8 (H, W, 3), RGB.
        depth: (H, W), uint16 in whole mm or float32 in m; 0 or NaN where there is no return.
        camera: who saw it.
        stamp_ns: when the shutter closed.

    Raises:
        BadInput: images of another size or type than the calibration says.
    """

    color: NDArray[np.uint8]
    depth: NDArray[np.uint16] | NDArray[np.float32]
    camera: Camera
    stamp_ns: int

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        for name, image, shape, kinds in (
            ("color", self.color, (*size, 3), ("uint8",)),
            ("depth", self.depth, size, ("uint16", "float32")),
        ):
            if image.shape != shape or image.dtype.name not in kinds:
                raise BadInput(
                    f"camera {self.camera.name!r}: {name} is {image.dtype} {image.shape}, its calibration says "
                    f"{' or '.join(kinds)} {shape}; check the driver's resolution against the calibration"
                )

    @property
    def nbytes(self) -> int:
        """Memory that the images take."""
        return int(self.color.nbytes + self.depth.nbytes)


AnyFrame = RGBD | RawFrame


def frame_bytes(frame: AnyFrame) -> int:
    """Memory that the images of a frame take."""
    return int(frame.color.nbytes + frame.depth.nbytes)


def depth_mm(frame: AnyFrame) -> NDArray[np.uint16]:
    """Depth as it lies on file: uint16 (H, W) in whole mm, 0 where there is no return."""
    depth: NDArray[Any] = frame.depth
    return depth if depth.dtype == np.uint16 else quantise_depth(depth)


@dataclass(frozen=True)
class EncodedFrame:
    """A frame as it goes to the journal.

    Attributes:
        camera: name of the camera.
        stamp_ns: when the shutter closed.
        blobs: sealed chunks of color and depth.
    """

    camera: str
    stamp_ns: int
    blobs: tuple[bytes, bytes]

    @property
    def nbytes(self) -> int:
        """Memory that the chunks take."""
        return sum(len(blob) for blob in self.blobs)

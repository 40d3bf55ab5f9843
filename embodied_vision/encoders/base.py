"""What every encoder offers, whatever runs underneath."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import EncoderError
from embodied_vision.types import Features


@runtime_checkable
class Encoder(Protocol):
    """Turns a color image into a dense grid of features, deterministically.

    Attributes:
        encoder_id: hash of weights, preprocessing and layer; policies are bound to it.
        artefact_id: runtime and precision; two artefacts of one encoder share the encoder id.
        dimension: number of feature channels D.
    """

    @property
    def encoder_id(self) -> str: ...

    @property
    def artefact_id(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image; `stamp_ns` is passed through unchanged.

        Raises:
            EncoderError: the image has another type or shape.
        """
        ...


def check_image(color: Any, smallest_px: int = 1) -> NDArray[np.uint8]:
    """The image itself, if it is a uint8 (H, W, 3) array of at least `smallest_px` a side.

    Raises:
        EncoderError: it is something else.
    """
    if not isinstance(color, np.ndarray):
        raise EncoderError(f"image is a {type(color).__name__}, give a uint8 array (H, W, 3), RGB")
    if color.dtype != np.uint8 or color.ndim != 3 or color.shape[2] != 3:
        raise EncoderError(
            f"image is {color.dtype} {color.shape}, give uint8 (H, W, 3), RGB; "
            "scale float images by 255 and repeat a grey channel three times"
        )
    if min(color.shape[:2]) < smallest_px:
        raise EncoderError(f"image is {color.shape[1]}×{color.shape[0]} px, give at least {smallest_px} px a side")
    return color

"""JPEG and PNG images of others: the header is read before anything is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embodied_vision.errors import BadInput

LARGEST_PX = 40_000_000
"""Pixels of an image; what declares more is not decoded."""


@dataclass(frozen=True)
class ImageHeader:
    """What an encoded image says of itself.

    Attributes:
        format: "JPEG" or "PNG".
        height, width: px.
        mode: as Pillow names it: "RGB", "RGBA", "L", "I;16" (16 bits a pixel) and others.
    """

    format: str
    height: int
    width: int
    mode: str


def image_header(data: bytes) -> ImageHeader:
    """Read the header; no pixel is decoded.

    Raises:
        BadInput: no JPEG or PNG image, or one of an absurd size.
    """
    with _open(data) as image:
        if image.height * image.width > LARGEST_PX:
            raise BadInput(f"image of {image.width}x{image.height}, at most {LARGEST_PX} pixels are decoded")
        return ImageHeader(str(image.format), image.height, image.width, image.mode)


def jpeg_shape(data: bytes) -> tuple[int, ...]:
    """(H, W, 3) of an RGB JPEG image, (H, W) of a grey one, by its header.

    Raises:
        BadInput: no such image.
    """
    header = image_header(data)
    if header.format != "JPEG" or header.mode not in ("RGB", "L"):
        raise BadInput(f"{header.format} image of mode {header.mode}, expected a JPEG of RGB or grey pixels")
    return (header.height, header.width, 3) if header.mode == "RGB" else (header.height, header.width)


def decode_image(data: bytes, size: tuple[int, int]) -> NDArray[Any]:
    """Decode a JPEG or PNG image of (H, W) px whole.

    Returns:
        uint8 (H, W, 3) RGB, or uint16 (H, W) of a PNG of 16 bits a pixel.

    Raises:
        BadInput: no image, one of another size (found before it is decoded), or one that is cut short.
    """
    header = image_header(data)
    if (header.height, header.width) != size:
        raise BadInput(
            f"{header.format} image of {header.width}x{header.height}, expected {size[1]}x{size[0]}; check the "
            "resolution against the calibration"
        )
    if header.format == "PNG" and header.mode in ("RGB", "I;16"):
        try:
            pixels: NDArray[Any] = imagecodecs.png_decode(data)
        except imagecodecs.PngError as error:
            raise BadInput(f"PNG image is damaged ({error})") from error
        return pixels
    with _open(data) as image:
        try:
            return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise BadInput(f"{header.format} image is damaged ({error})") from error


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"{len(data)} bytes are no JPEG or PNG image ({error})") from error

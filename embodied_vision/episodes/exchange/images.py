"""Images in the messages of others' recordings, raw and compressed."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.encoded import decode_image, image_header
from embodied_vision.errors import BadInput
from embodied_vision.geometry import quantise_depth
from embodied_vision.messages import image_to_color, image_to_depth_mm

_DEPTH_HEADER = struct.Struct("<iff")
"""Before the PNG of compressed_depth_image_transport: its format, and two parameters of 32FC1."""


def image_size(message: Any) -> tuple[int, int]:
    """(H, W) that an image message declares; nothing is decoded.

    Raises:
        BadInput: a compressed image that is neither JPEG nor PNG.
    """
    if hasattr(message, "encoding"):
        return int(message.height), int(message.width)
    header = image_header(bytes(message.data))
    return header.height, header.width


def color_of(message: Any, size: tuple[int, int]) -> NDArray[np.uint8] | bytes:
    """A color image: uint8 (H, W, 3), or the bytes of an RGB JPEG, which was decoded once to be sure of it.

    Args:
        message: `Image` or `CompressedImage`.
        size: (H, W) that it must have.

    Raises:
        BadInput: an encoding that is not read, another size, or damaged data.
    """
    if hasattr(message, "encoding"):
        _check_size(image_size(message), size)
        return image_to_color(message)
    data = bytes(message.data)
    if "compressedDepth" in message.format:
        raise BadInput(f"the format {message.format!r} is depth; map it as `depth`")
    header = image_header(data)
    pixels = decode_image(data, size)
    if pixels.ndim != 3:
        raise BadInput(f"a PNG image of {header.mode} pixels is no color image; map it as `depth`, or leave it out")
    return data if header.format == "JPEG" and header.mode == "RGB" else pixels


def depth_of(message: Any, size: tuple[int, int]) -> NDArray[np.uint16]:
    """A depth image: uint16 (H, W) in mm, 0 where there is no return.

    Args:
        message: `Image` of 16UC1 in mm or 32FC1 in m, or `CompressedImage` with a PNG of 16 bits a pixel, plain or as
            compressedDepth has it.
        size: (H, W) that it must have: depth is aligned to color.

    Raises:
        BadInput: an encoding that is not read, another size, or damaged data.
    """
    if hasattr(message, "encoding"):
        _check_size(image_size(message), size)
        return image_to_depth_mm(message)
    data, parameters = bytes(message.data), (0.0, 0.0)
    if "compressedDepth" in message.format:
        if len(data) < _DEPTH_HEADER.size or "rvl" in message.format.lower():
            raise BadInput(f"the format {message.format!r} is not read; record compressedDepth with PNG, or raw depth")
        parameters = _DEPTH_HEADER.unpack_from(data)[1:]
        data = data[_DEPTH_HEADER.size :]
    pixels = decode_image(data, size)
    if pixels.ndim != 2:
        raise BadInput(f"an image of the format {message.format!r} is no depth of 16 bits a pixel; record 16UC1")
    if message.format.startswith("32FC1"):
        scale, offset = parameters
        with np.errstate(divide="ignore", invalid="ignore"):
            metres = np.where(pixels > 0, scale / (pixels.astype(np.float32) - offset), 0.0)
        return quantise_depth(metres)
    return pixels.astype(np.uint16, copy=False)


def _check_size(found: tuple[int, int], size: tuple[int, int]) -> None:
    if found != size:
        raise BadInput(
            f"an image of {found[1]}x{found[0]} where the camera has {size[1]}x{size[0]}; record depth aligned to "
            "color, and camera_info of the same resolution"
        )

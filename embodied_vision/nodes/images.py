"""The pixels of image messages, raw or compressed as image_transport's plugins do it.

Compressed color is JPEG or PNG (compressed_image_transport), compressed depth a PNG of 16 bits a pixel behind a header
of 12 bytes (compressed_depth_image_transport).
"""

from __future__ import annotations

import struct
from threading import Lock
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from embodied_vision import messages
from embodied_vision.episodes.encoded import decode_image, image_header
from embodied_vision.episodes.exchange.images import depth_of
from embodied_vision.errors import BadInput
from embodied_vision.geometry import depth_to_metres, quantise_depth

JPEG_QUALITY = 90
_NO_PARAMETERS = struct.pack("<iff", 0, 0.0, 0.0)
"""The header of compressedDepth, whose numbers only 32FC1 needs."""

AnyImage: TypeAlias = Image | CompressedImage


# ---- pixels of messages


def image_to_color(message: AnyImage) -> NDArray[np.uint8]:
    """A raw or compressed color image to uint8 (H, W, 3) RGB; see `messages.image_to_color` for raw ones.

    Raises:
        BadInput: an encoding that is not read, or damaged data.
    """
    if isinstance(message, Image):
        return messages.image_to_color(message)
    data = bytes(message.data)
    try:
        header = image_header(data)
        pixels: NDArray[np.uint8] = decode_image(data, (header.height, header.width))
        if pixels.ndim != 3:
            raise BadInput(f"{header.format} image of {header.mode} pixels, expected color")
    except BadInput as error:
        raise _in_message(message, error) from error
    return pixels


def image_to_raw_depth(message: AnyImage) -> NDArray[Any]:
    """A depth image to uint16 (H, W) in mm or float32 (H, W) in m, as it came; raw ones as a view.

    Raises:
        BadInput: an encoding that is not read, or damaged data.
    """
    if isinstance(message, Image):
        return messages.image_to_raw_depth(message)
    try:
        header = image_header(bytes(message.data[len(_NO_PARAMETERS) :]))
        return depth_of(message, (header.height, header.width))
    except BadInput as error:
        raise _in_message(message, error) from error


def image_to_depth(message: AnyImage) -> NDArray[np.float32]:
    """A depth image to float32 (H, W) in m of whole mm, 0 where there is no return.

    Raises:
        BadInput: an encoding that is not read, or damaged data.
    """
    depth = image_to_raw_depth(message)
    return depth_to_metres(depth if depth.dtype.kind == "u" else quantise_depth(depth))


def _in_message(message: CompressedImage, error: BadInput) -> BadInput:
    return BadInput(
        f"compressed image {message.format!r} from {message.header.frame_id!r}: {error}; "
        "let the driver publish JPEG or PNG, depth as compressedDepth with PNG, or read it raw"
    )


class ColorImage:
    """A color image message whose pixels are made once, by whoever asks first; threads may share it.

    Attributes:
        header: of the message.
        stamp_ns: of the message.
    """

    def __init__(self, message: AnyImage) -> None:
        self.header = message.header
        self.stamp_ns = messages.stamp_to_ns(message.header.stamp)
        self._message = message
        self._lock = Lock()
        self._made: NDArray[np.uint8] | BadInput | None = None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) RGB.

        Raises:
            BadInput: see `image_to_color`; the same each time.
        """
        with self._lock:
            if self._made is None:
                try:
                    self._made = image_to_color(self._message)
                except BadInput as error:
                    self._made = error
        if isinstance(self._made, BadInput):
            raise self._made
        return self._made


# ---- messages of pixels


def compress_color(raw: Image) -> CompressedImage:
    """An `rgb8` message as JPEG."""
    data = imagecodecs.jpeg8_encode(messages.image_to_color(raw), level=JPEG_QUALITY)
    return CompressedImage(header=raw.header, format="rgb8; jpeg compressed bgr8", data=bytes(data))


def compress_depth(raw: Image) -> CompressedImage:
    """A `16UC1` message as compressedDepth; lossless."""
    data = imagecodecs.png_encode(messages.image_to_raw_depth(raw), level=1)
    return CompressedImage(header=raw.header, format="16UC1; compressedDepth png", data=_NO_PARAMETERS + bytes(data))

"""What messages say, whoever made the objects: rclpy or a reader of recordings. No ROS is imported here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput
from embodied_vision.geometry import depth_to_metres, quantise_depth
from embodied_vision.types import FloatArray

BASE_FRAME = "base"
"""Frame id of poses in the robot base frame."""

_COLOR_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_YUV_BYTES = {
    "uyvy": (1, 0, 2),
    "yuv422": (1, 0, 2),
    "yuyv": (0, 1, 3),
    "yuv422_yuy2": (0, 1, 3),
}
"""Where the first of two lumas, U and V stand in the four bytes of two pixels."""


def stamp_to_ns(stamp: Any) -> int:
    """Stamp to int ns."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def from_json(message: Any, topic: str) -> dict[str, Any]:
    """The JSON object in a message of `topic`.

    Raises:
        BadInput: it is no JSON object.
    """
    try:
        data = json.loads(message.data)
    except json.JSONDecodeError as error:
        raise BadInput(f"{topic} carries no JSON ({error}): {message.data[:80]!r}; who publishes it?") from error
    if not isinstance(data, dict):
        raise BadInput(f"{topic} carries {message.data[:80]!r}, expected a JSON object; who publishes it?")
    return data


def _rows(message: Any, row_bytes: int) -> NDArray[np.uint8]:
    """Image data as (H, row_bytes) without the padding of `step`; a view where there is none."""
    height, step = int(message.height), int(message.step)
    if step < row_bytes or len(message.data) < step * height:
        raise BadInput(
            f"image {message.encoding} {message.width}x{message.height} from {message.header.frame_id!r} has step "
            f"{step} and {len(message.data)} bytes, too few; check the driver"
        )
    flat = np.frombuffer(message.data, np.uint8, step * height)
    return flat.reshape(height, step)[:, :row_bytes]


def pixels(message: Any, dtype: str, channels: int) -> NDArray[Any]:
    """Image data as native-endian (H, W, channels).

    Raises:
        BadInput: the message has too few bytes for its size.
    """
    kind = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    width = int(message.width)
    raw = np.ascontiguousarray(_rows(message, width * channels * kind.itemsize))
    return raw.view(kind).reshape(int(message.height), width, channels).astype(np.dtype(dtype), copy=False)


def image_to_color(message: Any) -> NDArray[np.uint8]:
    """An image message to uint8 (H, W, 3) RGB; nothing is copied of `rgb8`, which comes as a view.

    Read are `rgb8`, `bgr8`, `rgba8`, `bgra8`, `mono8`, and YUV 4:2:2 as webcams give it (`uyvy`, `yuv422`, `yuyv`,
    `yuv422_yuy2`; BT.601).

    Raises:
        BadInput: another encoding, or too few bytes.
    """
    if message.encoding in _YUV_BYTES:
        return _yuv_to_rgb(message)
    channels = _COLOR_CHANNELS.get(message.encoding)
    if channels is None:
        raise BadInput(
            f"color image from {message.header.frame_id!r} has the encoding {message.encoding!r}; "
            f"let the driver publish one of {', '.join((*_COLOR_CHANNELS, *_YUV_BYTES))}"
        )
    image: NDArray[np.uint8] = pixels(message, "u1", channels)
    if channels == 1:
        return np.repeat(image, 3, axis=2)
    if message.encoding.startswith("bgr"):
        return np.ascontiguousarray(image[..., 2::-1])
    return image if channels == 3 else np.ascontiguousarray(image[..., :3])


def _yuv_to_rgb(message: Any) -> NDArray[np.uint8]:
    """YUV 4:2:2 in the range of video (BT.601) to RGB, in integers as OpenCV computes it."""
    height, width = int(message.height), int(message.width)
    if width % 2:
        raise BadInput(
            f"image {message.encoding} {width}x{height} from {message.header.frame_id!r}: two pixels share their "
            "color, so that the width must be even; check the driver"
        )
    pairs = _rows(message, 2 * width).reshape(height, width // 2, 4).astype(np.int32)
    luma, u, v = _YUV_BYTES[message.encoding]
    y = 1_220_542 * np.maximum(pairs[..., luma::2] - 16, 0)
    u_part, v_part = pairs[..., u, None] - 128, pairs[..., v, None] - 128
    half = 1 << 19
    red = y + 1_673_527 * v_part
    green = y - 852_492 * v_part - 409_993 * u_part
    blue = y + 2_116_026 * u_part
    rgb = np.stack([red, green, blue], axis=-1) + half >> 20
    return np.clip(rgb, 0, 255).astype(np.uint8).reshape(height, width, 3)


def image_to_raw_depth(message: Any) -> NDArray[Any]:
    """`16UC1` to uint16 (H, W) in mm or `32FC1` to float32 (H, W) in m, as they came; read-only, nothing is moved.

    Raises:
        BadInput: another encoding, or too few bytes.
    """
    if message.encoding in ("16UC1", "mono16"):
        return pixels(message, "u2", 1)[..., 0]
    if message.encoding == "32FC1":
        return pixels(message, "f4", 1)[..., 0]
    raise BadInput(
        f"depth image from {message.header.frame_id!r} has the encoding {message.encoding!r}; "
        "let the driver publish 16UC1 in mm or 32FC1 in m, aligned to color"
    )


def image_to_depth(message: Any) -> NDArray[np.float32]:
    """`16UC1` in mm or `32FC1` in m to float32 (H, W) in m of whole mm, 0 where there is no return.

    Raises:
        BadInput: another encoding, or too few bytes.
    """
    return depth_to_metres(image_to_depth_mm(message))


def image_to_depth_mm(message: Any) -> NDArray[np.uint16]:
    """`16UC1` in mm or `32FC1` in m to uint16 (H, W) in mm, 0 where there is no return.

    Raises:
        BadInput: another encoding, or too few bytes.
    """
    depth = image_to_raw_depth(message)
    return depth if depth.dtype.kind == "u" else quantise_depth(depth)


def optical_frame(camera_name: str) -> str:
    """Frame id of a camera's optical frame."""
    return f"{camera_name}_optical_frame"


def info_to_K(message: Any) -> FloatArray:
    """(3, 3) intrinsics of a `camera_info`."""
    return np.array(message.k, float).reshape(3, 3)


class JointSamples(NamedTuple):
    """Points of a joint trajectory: times (N,) in s, positions, velocities, accelerations (N, J) in rad, s."""

    times_s: NDArray[np.float64]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    accelerations: NDArray[np.float64]


def joint_state_to_positions(message: Any, joint_names: Sequence[str]) -> NDArray[np.float64]:
    """Positions (J,) in rad, in the order of `joint_names`.

    Raises:
        BadInput: a joint is missing, or positions are.
    """
    if len(message.position) != len(message.name):
        raise BadInput(
            f"joint_states names {len(message.name)} joints, {len(message.position)} positions; check the driver"
        )
    known = dict(zip(message.name, message.position, strict=True))
    missing = [name for name in joint_names if name not in known]
    if missing:
        raise BadInput(
            f"joint_states lacks {missing}, it has {list(message.name)}; is this the robot of the parameters?"
        )
    return np.array([known[name] for name in joint_names], float)


def trajectory_to_samples(message: Any, joint_names: Sequence[str]) -> JointSamples:
    """A trajectory in the order of `joint_names`; velocities and accelerations that it lacks are 0.

    Raises:
        BadInput: no points, other joints, or points of the wrong length.
    """
    if sorted(message.joint_names) != sorted(joint_names):
        raise BadInput(f"trajectory is for {list(message.joint_names)}, the robot has {list(joint_names)}")
    if not message.points:
        raise BadInput("trajectory has no points")
    order = [list(message.joint_names).index(name) for name in joint_names]

    def stack(name: str) -> NDArray[np.float64]:
        rows = [np.array(getattr(point, name), float) for point in message.points]
        if name != "positions" and all(len(row) == 0 for row in rows):
            return np.zeros((len(rows), len(order)))
        if any(len(row) != len(order) for row in rows):
            raise BadInput(f"trajectory has points with {[len(r) for r in rows]} {name}, expected {len(order)} in each")
        return np.stack(rows)[:, order]

    times = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points]
    return JointSamples(np.array(times), stack("positions"), stack("velocities"), stack("accelerations"))

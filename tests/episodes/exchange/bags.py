"""Recordings as others make them: by rosbags' writer, with other encodings, orders and gaps than ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import Writer
from rosbags.rosbag2.enums import StoragePlugin
from rosbags.typesys import Stores, get_typestore

from embodied_vision.geometry import look_at, pose_to_vector
from episodes.samples import PERIOD_NS, START_NS

HEIGHT, WIDTH = 12, 16
K = np.array([[20.0, 0, 8.0], [0, 21.0, 6.0], [0, 0, 1]])
T_BASE_MOUNT = look_at((1.0, 0.0, 0.85), (0.5, 0.0, 0.0))
T_MOUNT_OPTICAL = np.array([[0.0, 0, 1, 0.1], [-1, 0, 0, 0.2], [0, -1, 0, 0.3], [0, 0, 0, 1]])
JOINTS = ["elbow", "shoulder", "wrist"]

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types


def stamp(ns: int) -> Any:
    return TYPES["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)


def header(ns: int, frame: str = "cam_optical") -> Any:
    return TYPES["std_msgs/msg/Header"](stamp=stamp(ns), frame_id=frame)


def color_at(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng([number, 1]).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def depth_at(number: int) -> NDArray[np.uint16]:
    return np.random.default_rng([number, 2]).integers(0, 60000, (HEIGHT, WIDTH)).astype(np.uint16)


def image(pixels: NDArray[Any], encoding: str, ns: int, padding: int = 0) -> Any:
    rows = pixels.reshape(len(pixels), -1).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return TYPES["sensor_msgs/msg/Image"](
        header=header(ns),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.ravel(),
    )


def compressed(data: bytes, kind: str, ns: int) -> Any:
    return TYPES["sensor_msgs/msg/CompressedImage"](header=header(ns), format=kind, data=np.frombuffer(data, np.uint8))


def png(pixels: NDArray[Any]) -> bytes:
    return bytes(cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1])


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1])


def info(ns: int, k: NDArray[np.float64] = K, d: Sequence[float] = (0.0,) * 5) -> Any:
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header=header(ns),
        height=HEIGHT,
        width=WIDTH,
        distortion_model="plumb_bob",
        d=np.array(d, float),
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=TYPES["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )


def transforms(pairs: Sequence[tuple[str, str, NDArray[np.float64]]], ns: int = START_NS) -> Any:
    entries = []
    for parent, child, pose in pairs:
        x, y, z, qx, qy, qz, qw = pose_to_vector(pose)
        transform = TYPES["geometry_msgs/msg/Transform"](
            translation=TYPES["geometry_msgs/msg/Vector3"](x=x, y=y, z=z),
            rotation=TYPES["geometry_msgs/msg/Quaternion"](x=qx, y=qy, z=qz, w=qw),
        )
        entries.append(
            TYPES["geometry_msgs/msg/TransformStamped"](
                header=header(ns, parent), child_frame_id=child, transform=transform
            )
        )
    return TYPES["tf2_msgs/msg/TFMessage"](transforms=entries)


def joints(names: Sequence[str], positions: Sequence[float], ns: int, velocities: Sequence[float] = ()) -> Any:
    return TYPES["sensor_msgs/msg/JointState"](
        header=header(ns, ""),
        name=list(names),
        position=np.array(positions, float),
        velocity=np.array(velocities, float),
        effort=np.zeros(0),
    )


def twist(forward: float, turn: float, ns: int) -> Any:
    vector = TYPES["geometry_msgs/msg/Vector3"]
    return TYPES["geometry_msgs/msg/TwistStamped"](
        header=header(ns, ""),
        twist=TYPES["geometry_msgs/msg/Twist"](
            linear=vector(x=forward, y=0.0, z=0.0), angular=vector(x=0.0, y=0.0, z=turn)
        ),
    )


def text(content: str) -> Any:
    return TYPES["std_msgs/msg/String"](data=content)


def number(value: float) -> Any:
    return TYPES["std_msgs/msg/Float32"](data=value)


FRAMES = transforms([("world", "mount", T_BASE_MOUNT), ("mount", "cam_optical", T_MOUNT_OPTICAL)])


def write_bag(path: Path, messages: Sequence[tuple[str, int, Any]], kind: str = "sqlite3") -> Path:
    """Write (topic, log time, message) to a bag."""
    with Writer(path, version=8, storage_plugin=StoragePlugin[kind.upper()]) as writer:
        connections: dict[tuple[str, str], Any] = {}
        for topic, ns, message in messages:
            name = message.__msgtype__
            if (topic, name) not in connections:
                connections[topic, name] = writer.add_connection(topic, name, typestore=STORE)
            writer.write(connections[topic, name], ns, STORE.serialize_cdr(message, name))
    return path


def typical(frames: int = 4, *, color: str = "bgr8", depth: str = "32FC1") -> list[tuple[str, int, Any]]:
    """A camera with depth 3 ms late, permuted joints, a gripper, a twist; logged 10 ms after each stamp."""
    messages: list[tuple[str, int, Any]] = [("/tf_static", START_NS, FRAMES)]
    for number_ in range(frames):
        ns = START_NS + number_ * PERIOD_NS
        late = ns + 3_000_000
        pixels, millimetres = color_at(number_), depth_at(number_)
        images = {
            "rgb8": lambda p=pixels, n=ns: image(p, "rgb8", n),
            "bgr8": lambda p=pixels, n=ns: image(np.ascontiguousarray(p[..., ::-1]), "bgr8", n, padding=5),
            "rgba8": lambda p=pixels, n=ns: image(np.dstack([p, p[..., :1]]), "rgba8", n),
            "bgra8": lambda p=pixels, n=ns: image(np.dstack([p[..., ::-1], p[..., :1]]), "bgra8", n),
            "mono8": lambda p=pixels, n=ns: image(p[..., 0], "mono8", n),
            "jpeg": lambda p=pixels, n=ns: compressed(jpeg(p), "bgr8; jpeg compressed bgr8", n),
            "png": lambda p=pixels, n=ns: compressed(png(p), "rgb8; png compressed bgr8", n),
        }
        depths = {
            "16UC1": lambda d=millimetres, n=late: image(d, "16UC1", n),
            "32FC1": lambda d=millimetres, n=late: image(
                np.where(d > 0, d / np.float32(1000), np.float32("nan")).astype(np.float32), "32FC1", n
            ),
            "png": lambda d=millimetres, n=late: compressed(png(d), "png", n),
            "compressedDepth": lambda d=millimetres, n=late: compressed(
                bytes(12) + png(d), "16UC1; compressedDepth png", n
            ),
        }
        messages += [
            ("/cam/color", ns + 10_000_000, images[color]()),
            ("/cam/depth", late + 10_000_000, depths[depth]()),
            ("/cam/info", ns + 11_000_000, info(ns)),
            ("/joint_states", ns + 12_000_000, joints(["wrist", "elbow", "shoulder"], [3, 1, 2], ns, [30, 10, 20])),
            ("/joint_states", ns + 12_500_000, joints(["finger"], [0.5], ns)),
            ("/cmd", ns + 13_000_000, twist(0.1 * number_, -0.2, ns)),
            ("/gripper", ns + 14_000_000, number(0.25)),
        ]
    return messages


TYPICAL_MAP = """
task: stacking
robot: ur5e
base_frame: world
cameras:
  front: {color: /cam/color, depth: /cam/depth, info: /cam/info}
joint_state: {topic: /joint_states, joints: [elbow, shoulder, wrist]}
streams:
  twist: {topic: /cmd, fields: [twist.linear.x, twist.angular.z]}
  gripper: {topic: /gripper, fields: [data]}
outcome: {solved: true}
"""


def write_map(path: Path, content: str = TYPICAL_MAP) -> Path:
    path.write_text(content, encoding="utf-8")
    return path

"""Drivers of a cell with faults, as a process: `python -m tests.doctor.driver JSON`.

The JSON holds `cameras`: name → rate, stamp_offset_s, K_scale, depth_frame, encoding, compressed (or none of these),
`joints`: name → position or null for NaN, and `commanders`: so many nodes that publish commands.
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, JointState
from trajectory_msgs.msg import JointTrajectory

from embodied_vision import topics
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import (
    camera_to_info,
    color_to_image,
    depth_to_image,
    joint_state_message,
    optical_frame,
)
from embodied_vision.nodes.image_transport import COMPRESSED, COMPRESSED_DEPTH, RAW, stream_of
from embodied_vision.nodes.images import compress_color, compress_depth
from embodied_vision.types import Camera

SIZE = (64, 48)
K = np.array([[60.0, 0.0, 31.5], [0.0, 60.0, 23.5], [0.0, 0.0, 1.0]])
JOINT_RATE_HZ = 50.0


def camera(name: str, scale: float = 1.0) -> Camera:
    """A camera as calibrated, or with its focal length scaled."""
    return Camera(name, *SIZE, K * [[scale], [scale], [1.0]], np.eye(4))


def publish_camera(node: Node, name: str, faults: dict[str, Any]) -> None:
    """Color, depth and camera_info at a rate."""
    packed = faults.get("compressed", False)
    travels = (COMPRESSED, COMPRESSED_DEPTH) if packed else (RAW, RAW)
    streams = [stream_of(how, of(name)) for how, of in zip(travels, (topics.color, topics.depth), strict=True)]
    color, depth, info = (
        node.create_publisher(kind, topic, qos.SENSOR)
        for kind, topic in (*streams, (CameraInfo, topics.color_info(name)))
    )
    pixels, distance = np.zeros((*SIZE[::-1], 3), np.uint8), np.ones(SIZE[::-1], np.float32)

    def tick() -> None:
        stamp_ns = time.time_ns() + round(faults.get("stamp_offset_s", 0.0) * 1e9)
        frame = optical_frame(name)
        info.publish(camera_to_info(camera(name, faults.get("K_scale", 1.0)), stamp_ns))
        image = color_to_image(pixels, stamp_ns, frame)
        image.encoding = faults.get("encoding", image.encoding)
        raw_depth = depth_to_image(distance, stamp_ns, faults.get("depth_frame", frame))
        color.publish(compress_color(image) if packed else image)
        depth.publish(compress_depth(raw_depth) if packed else raw_depth)

    node.create_timer(1.0 / faults.get("rate", 10.0), tick)


def main() -> None:
    """Publish until killed."""
    asked = json.loads(sys.argv[1])
    rclpy.init()
    node = rclpy.create_node("driver")
    for name, faults in asked.get("cameras", {}).items():
        publish_camera(node, name, faults)
    joints = {name: math.nan if value is None else value for name, value in asked.get("joints", {}).items()}
    if joints:
        states = node.create_publisher(JointState, "joint_states", qos.SENSOR)
        q = np.array(list(joints.values()))
        node.create_timer(
            1 / JOINT_RATE_HZ,
            lambda: states.publish(joint_state_message(list(joints), q, np.zeros_like(q), time.time_ns())),
        )
    others = [rclpy.create_node(f"commander_{number}") for number in range(asked.get("commanders", 0))]
    commands = [other.create_publisher(JointTrajectory, "arm/joint_trajectory", qos.COMMAND) for other in others]
    print("up", len(commands), flush=True)
    rclpy.spin(node)


if __name__ == "__main__":
    main()

"""The hops of the graph without the product: what rclpy and DDS cost alone, with the same encoder as load.

Each role is a process with nothing but the subscriptions and publishers of its hop, by rclpy's defaults. A callback
notes CLOCK_MONOTONIC and is done; the encoder's hands its image to a thread that encodes the newest one. What was
noted, `{stage: [[stamp, clock], …]}`, is written when the process ends.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import Pose, PoseArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from embodied_vision import topics
from embodied_vision.cores import use_cores
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.nodes import qos

Noted = dict[str, list[tuple[int, int]]]


def _note(noted: Noted, stage: str, stamp: Any, clock: int) -> None:
    noted.setdefault(stage, []).append((stamp.sec * 1_000_000_000 + stamp.nanosec, clock))


def _encoder(node: Node, cameras: list[str], noted: Noted) -> None:
    encoder = load_encoder("default")
    changed, newest = threading.Condition(), dict[str, Image]()
    out = {name: node.create_publisher(Image, f"bare/{topics.features(name, cameras)}", qos.SENSOR) for name in cameras}

    def hear(camera: str) -> Any:
        def take(message: Image) -> None:
            _note(noted, "encoder.receive", message.header.stamp, time.monotonic_ns())
            with changed:
                newest[camera] = message
                changed.notify()

        return take

    def work() -> None:
        use_cores(1)
        while True:
            with changed:
                while not newest:
                    changed.wait()
                camera = next(iter(newest))
                image = newest.pop(camera)
            color = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
            grid = encoder.encode(color, 0).grid
            _note(noted, "encoder.encoded", image.header.stamp, time.monotonic_ns())
            message = Image(header=image.header, height=grid.shape[0], width=grid.shape[1])
            message.data.frombytes(np.ascontiguousarray(grid).reshape(-1).view(np.uint8))
            out[camera].publish(message)

    for name in cameras:
        node.create_subscription(Image, f"bare/{topics.color(name)}", hear(name), qos.SENSOR)
    threading.Thread(target=work, daemon=True).start()


def _policy(node: Node, cameras: list[str], noted: Noted) -> None:
    out = node.create_publisher(PoseArray, "bare/pick_place", qos.DECISION)

    def take(message: Image) -> None:
        _note(noted, "policy.receive", message.header.stamp, time.monotonic_ns())
        poses = PoseArray(header=message.header, poses=[Pose(), Pose()])
        _note(noted, "policy.decided", message.header.stamp, time.monotonic_ns())
        out.publish(poses)

    for name in cameras:
        for topic in (topics.color(name), topics.depth(name)):
            node.create_subscription(Image, f"bare/{topic}", lambda _: None, qos.SENSOR)
        node.create_subscription(Image, f"bare/{topics.features(name, cameras)}", take, qos.SENSOR)


def _arm(node: Node, _cameras: list[str], noted: Noted) -> None:
    def take(message: PoseArray) -> None:
        _note(noted, "arm.receive", message.header.stamp, time.monotonic_ns())

    node.create_subscription(PoseArray, "bare/pick_place", take, qos.DECISION)


def _recorder(node: Node, cameras: list[str], noted: Noted) -> None:
    def take(message: Image) -> None:
        _note(noted, "recorder.receive", message.header.stamp, time.monotonic_ns())

    for name in cameras:
        node.create_subscription(Image, f"bare/{topics.color(name)}", lambda _: None, qos.LOG)
        node.create_subscription(Image, f"bare/{topics.depth(name)}", take, qos.LOG)


ROLES = {"encoder": _encoder, "policy": _policy, "arm": _arm, "recorder": _recorder}


def main() -> None:
    """Play one role until SIGTERM."""
    role, output, cameras = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    noted: Noted = {}
    signal.signal(signal.SIGTERM, lambda *_: rclpy.shutdown())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f"bare_{role}")
    ROLES[role](node, cameras, noted)
    node.create_timer(0.5, lambda: None)  # Python sees signals only when the wait for messages ends
    with contextlib.suppress(ExternalShutdownException):
        rclpy.spin(node)
    output.write_text(json.dumps(noted))


if __name__ == "__main__":
    main()

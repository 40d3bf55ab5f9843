"""The hops of the graph without the product: what rclpy and DDS cost alone, under the same load.

Each role is a process. `color`, `features`, `decision` and `depth` have a subscription, by rclpy's defaults, whose
callback notes CLOCK_MONOTONIC and is done. `encoder`, `policy` and `recorder` are the load: they read what the nodes of
these names read, and threads of theirs encode the newest image, decide now and then, and compress every frame. What was
noted, `{stage: [[stamp, clock], …]}`, is written when the process ends.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import Pose, PoseArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from embodied_vision import topics
from embodied_vision.calibration import read_cameras
from embodied_vision.cores import use_cores
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.codecs import BloscChunks, JpegChunks
from embodied_vision.geometry import depth_to_metres
from embodied_vision.nodes import qos
from embodied_vision.policies.locate import locate
from embodied_vision.policies.policy import Policy
from embodied_vision.types import RGBD, Features

TASK = "block-insertion"
DECIDE_S = 4.0
"""Time between two decisions, about as long as one and the motion after it take in the graph."""

Noted = dict[str, list[tuple[int, int]]]
Role = Callable[[Node, list[str], Noted], None]


def _note(noted: Noted, stage: str, stamp: Any, clock: int) -> None:
    noted.setdefault(stage, []).append((stamp.sec * 1_000_000_000 + stamp.nanosec, clock))


def _encoder(node: Node, cameras: list[str], noted: Noted) -> None:
    encoder = load_encoder("default")
    changed, newest = threading.Condition(), dict[str, Image]()
    out = {name: node.create_publisher(Image, f"bare/{topics.features(name, cameras)}", qos.SENSOR) for name in cameras}

    def hear(camera: str) -> Any:
        def take(message: Image) -> None:
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
    encoder = load_encoder("default")
    policy = Policy.load(locate(TASK), encoder)
    pool = ThreadPoolExecutor(1, "policy", use_cores, (1,))
    calibrated = {camera.name: camera for camera in read_cameras(sys.argv[3])}
    newest: dict[str, Image] = {}
    decided_s = 0.0

    def hear(part: str) -> Any:
        def take(message: Image) -> None:
            newest[part] = message

        return take

    def decide(parts: dict[str, Image]) -> None:
        frames, features = [], []
        for name in cameras:
            color, depth, grid = (parts[f"{name}/{part}"] for part in ("color", "depth", "features"))
            pixels = np.frombuffer(color.data, np.uint8).reshape(color.height, color.width, 3)
            metres = depth_to_metres(np.frombuffer(depth.data, np.uint16).reshape(depth.height, depth.width))
            frames.append(RGBD(pixels, metres, calibrated[name], 1))
            values = np.frombuffer(grid.data, np.float32).reshape(grid.height, grid.width, -1)
            stride = (color.height / grid.height, color.width / grid.width)
            features.append(Features(values, stride, encoder.encoder_id, encoder.artefact_id, 1))
        policy.decide(frames, features)

    def take(camera: str) -> Any:
        def take_features(message: Image) -> None:
            nonlocal decided_s
            newest[f"{camera}/features"] = message
            poses = PoseArray(header=message.header, poses=[Pose(), Pose()])
            _note(noted, "policy.decided", message.header.stamp, time.monotonic_ns())
            out.publish(poses)
            if len(newest) == 3 * len(cameras) and time.monotonic() - decided_s > DECIDE_S:
                decided_s = time.monotonic()
                pool.submit(decide, dict(newest))

        return take_features

    for name in cameras:
        for part, topic in (("color", topics.color(name)), ("depth", topics.depth(name))):
            node.create_subscription(Image, f"bare/{topic}", hear(f"{name}/{part}"), qos.SENSOR)
        node.create_subscription(Image, f"bare/{topics.features(name, cameras)}", take(name), qos.SENSOR)


def _ear(kind: type, stage: str, name: Callable[[str, list[str]], str], profile: QoSProfile) -> Role:
    """A role that only hears, of every camera."""

    def role(node: Node, cameras: list[str], noted: Noted) -> None:
        def take(message: Any) -> None:
            clock = time.monotonic_ns()
            _note(noted, stage, message.header.stamp, clock)

        for topic in {f"bare/{name(camera, cameras)}" for camera in cameras}:
            node.create_subscription(kind, topic, take, profile)

    return role


def _recorder(node: Node, cameras: list[str], _noted: Noted) -> None:
    pool = ThreadPoolExecutor(2)
    jpeg, blosc = JpegChunks(90), BloscChunks(2)
    newest: dict[str, Image] = {}

    def compress(color: Image, depth: Image) -> None:
        jpeg.encode(np.frombuffer(color.data, np.uint8).reshape(color.height, color.width, 3))
        blosc.encode(np.frombuffer(depth.data, np.uint16).reshape(depth.height, depth.width))

    def hear(camera: str) -> Any:
        def take(message: Image) -> None:
            newest[camera] = message

        return take

    def take(camera: str) -> Any:
        def take_depth(message: Image) -> None:
            if camera in newest:
                pool.submit(compress, newest.pop(camera), message)

        return take_depth

    for name in cameras:
        node.create_subscription(Image, f"bare/{topics.color(name)}", hear(name), qos.LOG)
        node.create_subscription(Image, f"bare/{topics.depth(name)}", take(name), qos.LOG)


ROLES: dict[str, Role] = {
    "encoder": _encoder,
    "policy": _policy,
    "recorder": _recorder,
    "color": _ear(Image, "encoder.receive", lambda camera, _: topics.color(camera), qos.SENSOR),
    "features": _ear(Image, "policy.receive", topics.features, qos.SENSOR),
    "decision": _ear(PoseArray, "arm.receive", lambda _, __: "pick_place", qos.DECISION),
    "depth": _ear(Image, "recorder.receive", lambda camera, _: topics.depth(camera), qos.LOG),
}


def main() -> None:
    """Play a role until SIGTERM. Arguments: role, where to write, calibration, names of the cameras."""
    role, output, cameras = sys.argv[1], Path(sys.argv[2]), sys.argv[4:]
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

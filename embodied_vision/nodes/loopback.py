"""Do camera images get from one process to another here? `doctor` and the tests ask this pair of processes.

`python -m embodied_vision.nodes.loopback send WIDTHxHEIGHT COUNT` and `… receive WIDTHxHEIGHT COUNT`, which
prints one JSON line: sent, received, median_ms. Best effort, like the drivers of real cameras.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import rclpy
from rclpy.experimental import EventsExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

TOPIC = "loopback/image_raw"
QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
PERIOD_S = 1 / 30
PATIENCE_S = 20.0


def send(width: int, height: int, count: int) -> None:
    """Publish images at 30 Hz to a receiver, as soon as there is one."""
    node = rclpy.create_node("loopback_sender")
    publisher = node.create_publisher(Image, TOPIC, QOS)
    deadline = time.monotonic() + PATIENCE_S
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            sys.exit(f"no receiver within {PATIENCE_S:g} s")
        time.sleep(0.02)
    time.sleep(0.2)  # the receiver's side of the discovery has no event here
    pixels = np.random.default_rng(0).integers(0, 256, 3 * width * height, np.uint8).tobytes()
    for _ in range(count):
        message = Image(width=width, height=height, encoding="rgb8", step=3 * width)
        message.data.frombytes(pixels)
        message.header.frame_id = str(time.monotonic_ns())
        publisher.publish(message)
        time.sleep(PERIOD_S)


def receive(width: int, height: int, count: int) -> None:
    """Count the images that arrive whole, until all have or none came for a second."""
    node = rclpy.create_node("loopback_receiver")
    latencies_ms: list[float] = []

    def take(message: Image) -> None:
        if (message.width, message.height, len(message.data)) == (width, height, 3 * width * height):
            latencies_ms.append((time.monotonic_ns() - int(message.header.frame_id)) / 1e6)

    node.create_subscription(Image, TOPIC, take, QOS)
    executor = EventsExecutor()
    executor.add_node(node)
    deadline = time.monotonic() + PATIENCE_S
    while len(latencies_ms) < count and time.monotonic() < deadline:
        before = len(latencies_ms)
        executor.spin_once(timeout_sec=0.2)
        if len(latencies_ms) > before:
            deadline = time.monotonic() + max(1.0, 2 * count * PERIOD_S)
    median = round(float(np.median(latencies_ms)), 3) if latencies_ms else None
    print(json.dumps({"sent": count, "received": len(latencies_ms), "median_ms": median}))


def main() -> None:
    """Send or receive."""
    role, size, count = sys.argv[1:4]
    width, height = (int(part) for part in size.split("x"))
    rclpy.init()
    {"send": send, "receive": receive}[role](width, height, int(count))
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()

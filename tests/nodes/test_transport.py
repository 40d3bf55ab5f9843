"""Where images get lost without a word, the product says one within a second."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from embodied_vision.launching.process import ManagedProcess
from embodied_vision.nodes import qos
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import write_encoder

PUBLISHER = """
import time, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("driver")
profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "camera/color/image_raw", profile)
image = Image(height=480, width=640, encoding="rgb8", step=1920)
image.data.frombytes(bytes(480 * 1920))
while True:
    image.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(image)
    time.sleep(1 / 30)
"""
TOPIC = "camera/color/image_raw"


@pytest.mark.parametrize("stock", [True, False])
def test_with_the_stock_profile_lost_images_are_told_of_within_a_second(graph: Graph, stock: bool) -> None:
    write_encoder(graph.run_dir / "encoder")
    if stock:
        graph.variables = {k: v for k, v in graph.variables.items() if k != "FASTDDS_DEFAULT_PROFILES_FILE"}
    heard: list[tuple[float, bytes, str, int]] = []

    def hear(message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(TOPIC):
                count = next((int(v.value) for v in status.values if v.key == "Events since startup"), 0)
                heard.append((time.monotonic(), status.level, status.message, count))

    graph.subscribe(DiagnosticArray, "/diagnostics", hear, qos.DIAGNOSTICS)
    driver = ManagedProcess("driver", [sys.executable, "-c", PUBLISHER], graph.variables, Path(graph.run_dir / "d.log"))
    graph.processes.append(driver)
    node = graph.client.node
    until(lambda: node.count_publishers(TOPIC) == 1, what="the driver publishes")
    encoder = graph.start("encoder", wait=False, encoder=str(graph.run_dir / "encoder"))
    until(lambda: node.count_subscribers(TOPIC) == 1, what="the encoder subscribes")
    subscribed = time.monotonic()
    if not stock:
        until(lambda: any(count > 10 and level == DiagnosticStatus.OK for _, level, _, count in heard), what="images")
        assert "best effort only" in encoder.log.read_text()
        return
    until(lambda: any(level == DiagnosticStatus.ERROR for _, level, _, _ in heard), what="the silence is told of")
    at, _, message, count = next(entry for entry in heard if entry[1] == DiagnosticStatus.ERROR)
    assert count == 0
    assert "Fast DDS profile" in message
    assert at - subscribed <= 1.0

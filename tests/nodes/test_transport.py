"""Images that come compressed, and images that get lost without a word, of which the product tells within a second."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.launching.process import ManagedProcess
from embodied_vision.nodes import conversions, qos
from embodied_vision.nodes.images import compress_depth
from embodied_vision.policies.policy import Policy
from embodied_vision.types import RGBD
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import frame, write_encoder, write_policy

PUBLISHER = """
import sys, time, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("driver")
profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "camera/color/image_raw", profile)
rows, columns = int(sys.argv[1]), int(sys.argv[2])
image = Image(height=rows, width=columns, encoding="rgb8", step=3 * columns)
image.data.frombytes(bytes(rows * 3 * columns))
while True:
    image.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(image)
    time.sleep(1 / 30)
"""
TOPIC = "camera/color/image_raw"


@pytest.mark.system
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
    size = ["1080", "1920"] if stock else ["480", "640"]  # of smaller ones some get through on a fast machine
    command = [sys.executable, "-c", PUBLISHER, *size]
    driver = ManagedProcess("driver", command, graph.variables, Path(graph.run_dir / "d.log"))
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
    told = next(at for at, level, _, _ in heard if level in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR))
    _, _, message, count = next(entry for entry in heard if entry[1] == DiagnosticStatus.ERROR)
    assert count == 0
    assert "Fast DDS profile" in message, "told as soon as the encoder has discovered the driver"
    assert told - subscribed <= 1.0


COMPRESSED = {"image_transport": "compressed", "depth_image_transport": "compressedDepth"}


def lossless(one: RGBD) -> tuple[CompressedImage, CompressedImage]:
    """Color as PNG and depth as compressedDepth, as image_transport's plugins publish them."""
    raw = conversions.color_to_image(one.color, one.stamp_ns, "camera_optical_frame")
    color = CompressedImage(header=raw.header, format="rgb8; png compressed bgr8")
    color.data.frombytes(imagecodecs.png_encode(one.color, level=1))
    return color, compress_depth(conversions.depth_to_image(one.depth, one.stamp_ns, "camera_optical_frame"))


def test_the_recorder_logs_what_came_compressed(graph: Graph) -> None:
    store = EpisodeStore(graph.run_dir / "store")
    graph.start("recorder", store=str(store.path), color_codec="lossless", **COMPRESSED)
    colors = graph.publisher(CompressedImage, "camera/color/image_raw/compressed")
    depths = graph.publisher(CompressedImage, "camera/aligned_depth_to_color/image_raw/compressedDepth")
    episode_id = graph.client.trigger("recorder/start")
    frames = [frame(seed, time.time_ns() + seed) for seed in range(5)]
    for one in frames:
        color, depth = lossless(one)
        colors.publish(color)
        depths.publish(depth)
    broken, depth = lossless(frame(9, time.time_ns()))
    broken.data = broken.data[:100]
    colors.publish(broken)
    depths.publish(depth)
    graph.wait("recorder/status", lambda s: s["frames_received"] == 6 and s["frames_bad"] == 1)
    graph.client.trigger("recorder/stop")
    logged = store.open(episode_id).frames("camera")
    assert logged.stamps_ns.tolist() == [one.stamp_ns for one in frames]
    for index, one in enumerate(frames):
        np.testing.assert_array_equal(logged[index].color, one.color)
        np.testing.assert_array_equal(logged[index].depth, one.depth)


@pytest.mark.parametrize("executor", ["single", "events"])
def test_the_policy_decides_the_same_on_images_that_came_compressed(graph: Graph, executor: str) -> None:
    encoder = write_encoder(graph.run_dir / "encoder")
    write_policy(graph.run_dir / "policy", encoder.encoder_id)
    paths = {"encoder": str(graph.run_dir / "encoder"), "checkpoint": str(graph.run_dir / "policy")}
    decided: list[PoseArray] = []
    graph.subscribe(PoseArray, "pick_place", decided.append, qos.DECISION)
    info = graph.client.node.create_publisher(String, "encoder/info", qos.STATUS)
    info.publish(conversions.to_json({"encoder_id": encoder.encoder_id, "artefact_id": encoder.artefact_id}))
    graph.start("policy", executor=executor, **paths, **COMPRESSED)
    publishers = [
        graph.publisher(CompressedImage, "camera/color/image_raw/compressed"),
        graph.publisher(CompressedImage, "camera/aligned_depth_to_color/image_raw/compressedDepth"),
        graph.publisher(CameraInfo, "features/camera_info"),
        graph.publisher(Image, "features"),
    ]
    ended, one = threading.Event(), frame()
    made = encoder.encode(one.color, one.stamp_ns)

    def feed() -> None:
        while not ended.wait(0.1):
            now = replace(one, stamp_ns=time.time_ns())
            features = replace(made, stamp_ns=now.stamp_ns)
            messages = (
                *lossless(now),
                conversions.features_to_info(features, one.camera.K, "camera_optical_frame"),
                conversions.features_to_image(features, "camera_optical_frame"),
            )
            for publisher, message in zip(publishers, messages, strict=True):
                publisher.publish(message)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        graph.client.trigger("policy/predict")
    finally:
        ended.set()
        thread.join()
    until(lambda: decided, what="the decision comes")
    expected = Policy.load(graph.run_dir / "policy", encoder).decide([one], [made])
    action = conversions.poses_to_pick_place(decided[0])
    np.testing.assert_allclose(action.pick, expected.pick, atol=1e-6)
    np.testing.assert_allclose(action.place, expected.place, atol=1e-6)

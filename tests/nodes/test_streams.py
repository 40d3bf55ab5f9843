"""What is said of a stream: its rate, its silence, its stamps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from embodied_vision.nodes import conversions, qos
from embodied_vision.nodes.streams import ERROR, OK, WARN, Receipt, Stream
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import camera, frame, write_encoder


def publishers(count: int) -> Callable[[], int]:
    return lambda: count


def steady(stream: Stream, start_s: float, end_s: float, rate_hz: float, age_s: float | None = 0.0) -> float:
    """Messages at a rate, and looks between them; the time of the last."""
    count = round((end_s - start_s) * rate_hz)
    for number in range(count):
        now_s = start_s + number / rate_hz
        stream.note(Receipt(now_s, age_s, 0.001))
        stream.look(now_s, publishers(1))
    return now_s


def test_a_stream_that_flows_is_well_and_tells_its_rate() -> None:
    stream = Stream("camera/color/image_raw", 0.7, 0.0)
    now_s = steady(stream, 0.0, 4.0, 15.0)
    assert stream.look(now_s, publishers(1)) == (OK, "15.0 Hz")
    values = stream.values(now_s)
    assert values["Actual frequency (Hz)"] == "15.00"
    assert values["Minimum acceptable frequency (Hz)"] == "1.43"
    assert values["Events since startup"] == "60"
    assert values["Transport latency, largest (ms)"] == "1.00"
    assert "Dropped" not in values, "nobody could tell"
    for dropped in (0, 3, 0):
        stream.note(Receipt(now_s), dropped)
    assert stream.values(now_s)["Dropped"] == "3"


def test_silence_is_told_within_a_second_and_ends_with_the_next_message() -> None:
    stream = Stream("joint_states", 0.7, 0.0)
    end_s = steady(stream, 0.0, 2.0, 60.0)
    levels = {step: stream.look(end_s + step * 0.1, publishers(1)) for step in range(1, 10)}
    assert [levels[step][0] for step in (6, 8)] == [OK, ERROR]
    assert "although 1 publish it" in levels[9][1]
    assert stream.rate_hz(end_s + 0.9) < 40.0, "the rate sinks while nothing comes"
    stream.note(Receipt(end_s + 1.0))
    assert stream.look(end_s + 1.0, publishers(1))[0] == OK


def test_what_never_came_says_whether_anybody_publishes_it() -> None:
    nobody, deaf = Stream("camera/color/image_raw", 0.7, 0.0), Stream("camera/color/image_raw", 0.7, 0.0)
    for step in range(1, 9):
        without, with_publisher = nobody.look(step * 0.1, publishers(0)), deaf.look(step * 0.1, publishers(1))
    assert without[0] == WARN
    assert "nobody publishes camera/color/image_raw" in without[1]
    assert with_publisher[0] == ERROR
    assert "Fast DDS profile" in with_publisher[1]


def test_a_node_that_was_held_up_does_not_blame_its_streams() -> None:
    stream = Stream("joint_states", 0.7, 0.0)
    end_s = steady(stream, 0.0, 1.0, 60.0)
    assert stream.look(end_s + 5.0, publishers(1))[0] == OK, "it did not look meanwhile"
    levels = [stream.look(end_s + 5.0 + step * 0.1, publishers(1))[0] for step in range(1, 9)]
    assert levels[-1] == ERROR


@pytest.mark.parametrize(("age_s", "words"), [(3600.0, "3600.00 s old"), (-3600.0, "3600.00 s ahead")])
def test_stamps_of_another_clock_are_a_warning(age_s: float, words: str) -> None:
    stream = Stream("camera/color/image_raw", 0.7, 0.0)
    now_s = steady(stream, 0.0, 1.0, 15.0, age_s)
    level, text = stream.look(now_s, publishers(1))
    assert level == WARN
    assert words in text


def test_a_stream_that_comes_now_and_then_is_never_missed() -> None:
    stream = Stream("pick_place", float("inf"), 0.0)
    for step in range(1, 100):
        assert stream.look(step * 0.1, publishers(0)) == (OK, "no message yet")


def test_a_node_tells_of_each_of_its_streams(graph: Graph) -> None:
    said: dict[str, list[DiagnosticStatus]] = {}

    def hear(message: DiagnosticArray) -> None:
        for status in message.status:
            said.setdefault(status.name, []).append(status)

    graph.subscribe(DiagnosticArray, "/diagnostics", hear, qos.DIAGNOSTICS)
    write_encoder(graph.run_dir / "encoder")
    graph.start("encoder", encoder=str(graph.run_dir / "encoder"))
    name = "/encoder: camera/color/image_raw"
    until(lambda: any(s.level == WARN for s in said.get(name, [])), what="nobody publishes")
    images: Any = graph.publisher(Image, "camera/color/image_raw", QoSProfile(depth=5), 1)
    infos: Any = graph.publisher(CameraInfo, "camera/color/camera_info", qos.SENSOR, 1)
    until(lambda: said[name][-1].level == ERROR, what="a publisher from which nothing arrives")

    def flows() -> bool:
        stamp_ns = graph.client.node.get_clock().now().nanoseconds
        infos.publish(conversions.camera_to_info(camera(), stamp_ns))
        images.publish(conversions.color_to_image(frame().color, stamp_ns, "camera"))
        return said[name][-1].level == OK

    until(flows, what="the images are heard")
    until(lambda: said[name][-1].level == ERROR, 1.0, "the silence")
    values = {value.key: value.value for value in said[name][-1].values}
    assert int(values["Events since startup"]) > 0
    assert values["Dropped"] == "0"


def test_best_effort_is_watched_after_the_change_of_the_reader(graph: Graph) -> None:
    said: dict[str, DiagnosticStatus] = {}
    graph.subscribe(
        DiagnosticArray, "/diagnostics", lambda m: said.update((s.name, s) for s in m.status), qos.DIAGNOSTICS
    )
    driver = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    images: Any = graph.client.node.create_publisher(Image, "camera/color/image_raw", driver)
    write_encoder(graph.run_dir / "encoder")
    graph.start("encoder", encoder=str(graph.run_dir / "encoder"))
    name = "/encoder: camera/color/image_raw"

    def flows() -> bool:
        images.publish(conversions.color_to_image(frame().color, 1, "camera"))
        return name in said and "old on receipt" in said[name].message

    until(flows, what="the stamps of 1970 are noticed")

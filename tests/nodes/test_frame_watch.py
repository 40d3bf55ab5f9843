"""What the encoder's process tells of the images it gets."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import camera_to_info, color_to_image
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import camera, frame, write_encoder


def test_every_image_is_judged_and_infos_without_images_are_noticed(graph: Graph) -> None:
    reports: list[dict[str, object]] = []
    write_encoder(graph.run_dir / "encoder")
    graph.start("encoder", encoder=str(graph.run_dir / "encoder"))
    graph.subscribe(String, "camera/health", lambda m: reports.append(json.loads(m.data)), qos.SENSOR)
    images = graph.publisher(Image, "camera/color/image_raw")
    infos = graph.publisher(CameraInfo, "camera/color/camera_info")
    until(lambda: graph.client.node.count_publishers("camera/health"), what="the encoder tells")

    def tell(image: Image | None) -> dict[str, object]:
        seen = len(reports)
        if image is not None:
            images.publish(image)
        else:
            infos.publish(camera_to_info(camera(), time.time_ns()))
        until(lambda: len(reports) > seen, what="a report")
        return reports[-1]

    def image(color: np.ndarray, stamp_ns: int = 0) -> Image:
        return color_to_image(color, stamp_ns or time.time_ns(), "camera_optical_frame")

    good = frame().color
    first = tell(image(good))
    second = tell(image(good))
    assert (first["problem"], second["problem"]) == ("", "")
    assert second["unchanged_ns"] == first["stamp_ns"] < second["stamp_ns"]
    other = tell(image(good[:, ::-1]))
    assert other["unchanged_ns"] == other["stamp_ns"]
    assert "black" in str(tell(image(np.zeros_like(good)))["problem"])
    assert "went back" in str(tell(image(good, time.time_ns() - 3_000_000_000))["problem"])
    wrong = image(good)
    wrong.encoding = "32FC3"
    assert "32FC3" in str(tell(wrong)["problem"])
    assert tell(image(good))["problem"] == ""

    for _ in range(3):
        infos.publish(camera_to_info(camera(), time.time_ns()))
    assert "no image for 4 periods" in str(tell(None)["problem"])
    assert tell(image(good[::-1]))["problem"] == ""


@pytest.mark.parametrize("size", [(120, 424), (240, 212)])
def test_a_change_of_size_is_a_problem(graph: Graph, size: tuple[int, int]) -> None:
    reports: list[dict[str, object]] = []
    write_encoder(graph.run_dir / "encoder")
    graph.start("encoder", encoder=str(graph.run_dir / "encoder"))
    graph.subscribe(String, "camera/health", lambda m: reports.append(json.loads(m.data)), qos.SENSOR)
    images = graph.publisher(Image, "camera/color/image_raw")
    until(lambda: graph.client.node.count_publishers("camera/health"), what="the encoder tells")
    good = frame().color
    for color in (good, good[: size[0], : size[1]], good):
        seen = len(reports)
        images.publish(color_to_image(np.ascontiguousarray(color), time.time_ns(), "camera_optical_frame"))
        until(lambda: len(reports) > seen, what="a report")  # noqa: B023 called at once
    assert [bool(report["problem"]) for report in reports] == [False, True, False]

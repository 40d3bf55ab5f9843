"""The encoder node on photographs, as a process beside the camera node."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from embodied_vision.nodes import conversions, qos
from embodied_vision.sources import FolderSource, fit
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import camera, frame, write_encoder

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "motorcycle_left.png")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    data = Path(pytest.importorskip("skimage").__file__).parent / "data"
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in PHOTOGRAPHS:
        (folder / name).write_bytes((data / name).read_bytes())
    return folder


def test_every_photograph_is_encoded_exactly_or_counted_as_skipped(graph: Graph, photographs: Path) -> None:
    encoder = write_encoder(graph.run_dir / "encoder")
    published: list[int] = []
    features: dict[int, Image] = {}
    infos: dict[int, CameraInfo] = {}
    graph.subscribe(
        CameraInfo, "camera/color/camera_info", lambda m: published.append(conversions.stamp_to_ns(m.header.stamp))
    )
    graph.subscribe(Image, "features", lambda m: features.update({conversions.stamp_to_ns(m.header.stamp): m}))
    graph.subscribe(
        CameraInfo, "features/camera_info", lambda m: infos.update({conversions.stamp_to_ns(m.header.stamp): m})
    )
    graph.subscribe(Image, "camera/aligned_depth_to_color/image_raw", lambda _: None)
    node = graph.start("encoder", encoder=str(graph.run_dir / "encoder"))
    graph.start("camera", source=str(photographs), resize=True, loop=False, rate=10.0, readers=1)
    status = graph.wait("encoder/status", lambda s: s["received"] == len(PHOTOGRAPHS) and not s["waiting"], node)
    assert status["encoded"] + status["skipped"] == len(PHOTOGRAPHS)
    assert status["failed"] == 0
    until(lambda: len(features) == len(infos) == status["encoded"], what="all features have come")
    info = graph.wait("encoder/info", lambda i: True)
    assert (info["encoder_id"], info["artefact_id"]) == (encoder.encoder_id, encoder.artefact_id)

    cam, pictures = camera(), FolderSource(photographs)
    size = (cam.width, cam.height)
    expected = [encoder.encode(fit(pictures.read(), size)[0]).grid for _ in PHOTOGRAPHS]
    assert len(published) == len(PHOTOGRAPHS)
    for stamp_ns, message in features.items():
        back = conversions.image_to_features(message, infos[stamp_ns], cam.K, encoder_id="", artefact_id="")
        assert back.stride == (8.0, 8.0)
        assert back.grid.tobytes() == expected[published.index(stamp_ns)].tobytes()


@pytest.mark.parametrize("executor", ["single", "events"])
def test_compressed_images_are_encoded_as_well(graph: Graph, executor: str) -> None:
    encoder = write_encoder(graph.run_dir / "encoder")
    folder = graph.run_dir / "pictures"
    folder.mkdir()
    Picture.fromarray(np.kron(frame().color[::8, ::8], np.ones((8, 8, 1), np.uint8))).save(folder / "one.png")
    features: list[Image] = []
    sent: list[CompressedImage] = []
    graph.subscribe(Image, "features", features.append)
    graph.subscribe(CompressedImage, "camera/color/image_raw/compressed", sent.append)
    compressed = {"image_transport": "compressed", "executor": executor}
    node = graph.start("encoder", encoder=str(graph.run_dir / "encoder"), **compressed)
    camera_node = graph.start(
        "camera", source=str(folder), rate=10.0, depth_image_transport="compressedDepth", **compressed
    )
    until(lambda: features and sent, what="features of compressed images")
    expected = encoder.encode(conversions.image_to_color(sent[0])).grid
    grid = np.frombuffer(features[0].data, np.float32).reshape(expected.shape)
    assert grid.tobytes() == expected.tobytes()
    assert graph.end(camera_node) == 0
    assert graph.end(node) == 0


def test_a_node_whose_executor_is_unknown_ends_with_the_place(graph: Graph) -> None:
    node = graph.start("encoder", wait=False, executor="many")
    assert node.wait(30.0)
    assert node.exit_code() == 2
    assert "executor" in node.log.read_text()


def test_features_are_young_although_the_camera_is_faster_than_the_encoder(graph: Graph) -> None:
    node = graph.start("encoder")
    ages: list[float] = []
    heard: list[float] = []

    def hear(message: Image) -> None:
        heard.append(time.monotonic())
        ages.append((time.time_ns() - conversions.stamp_to_ns(message.header.stamp)) * 1e-9)

    graph.subscribe(Image, "features", hear)
    infos = graph.publisher(CameraInfo, "camera/color/camera_info")
    images = graph.publisher(Image, "camera/color/image_raw")
    infos.publish(conversions.camera_to_info(camera(), 1))
    large = conversions.color_to_image(np.tile(frame().color, (4, 4, 1)), 1, "camera")
    sent = 0
    while len(ages) < 6 and sent < 900:
        large.header.stamp = conversions.ns_to_stamp(time.time_ns())
        images.publish(large)
        sent += 1
        time.sleep(1 / 30)
    status = graph.wait("encoder/status", lambda s: s["received"] == sent and not s["waiting"], node)
    assert status["skipped"] > status["encoded"], "the encoder was not too slow"
    assert status["received"] == status["encoded"] + status["skipped"]
    assert len(ages) >= 6
    # A frame waits while one is encoded, and is encoded: two encodings, however many frames came meanwhile.
    assert max(ages) <= 2 * float(np.max(np.diff(heard))) + 0.2
    assert ages[-1] <= 2 * ages[0] + 0.2


def test_non_finite_features_are_never_published(graph: Graph) -> None:
    write_encoder(graph.run_dir / "encoder", poison=True)
    folder = graph.run_dir / "pictures"
    folder.mkdir()
    Picture.fromarray(frame().color).save(folder / "one.png")
    heard: list[Image] = []
    graph.subscribe(Image, "features", heard.append)
    node = graph.start("encoder", wait=False, encoder=str(graph.run_dir / "encoder"))
    graph.start("camera", source=str(folder), rate=20.0)
    status = graph.wait("encoder/status", lambda s: s["failed"] >= 3, node)
    assert "non-finite" in status["trouble"]
    assert status["encoded"] == 0
    assert heard == []
    assert graph.end(node) == 0


def test_a_missing_encoder_ends_the_node_with_a_plain_error(graph: Graph) -> None:
    node = graph.start("encoder", wait=False, encoder=str(graph.run_dir / "nowhere"))
    assert node.wait(30.0)
    assert node.exit_code() == 2
    log = node.log.read_text()
    assert "nowhere" in log
    assert "Traceback" not in log


def test_features_keep_their_frames_stamp_when_the_queue_is_overrun(graph: Graph) -> None:
    write_encoder(graph.run_dir / "encoder")
    node = graph.start("encoder", encoder=str(graph.run_dir / "encoder"))
    stamps: list[int] = []
    graph.subscribe(Image, "features", lambda m: stamps.append(conversions.stamp_to_ns(m.header.stamp)))
    infos = graph.publisher(CameraInfo, "camera/color/camera_info")
    images = graph.publisher(Image, "camera/color/image_raw")
    infos.publish(conversions.camera_to_info(camera(), 1))
    one = frame()
    sent = [np.int64(10**9 + i).item() for i in range(60)]
    for stamp_ns in sent:
        images.publish(conversions.color_to_image(one.color, stamp_ns, "camera"))
    status = graph.wait("encoder/status", lambda s: s["received"] >= 10 and not s["waiting"], node)
    assert status["received"] == status["encoded"] + status["skipped"] + status["failed"]
    assert status["skipped"] > 0
    until(lambda: len(stamps) >= status["encoded"], what="features have come")
    assert set(stamps) <= set(sent)
    assert stamps == sorted(stamps)


def test_while_the_arm_moves_frames_are_skipped_on_purpose(graph: Graph) -> None:
    write_encoder(graph.run_dir / "encoder")
    folder = graph.run_dir / "pictures"
    folder.mkdir()
    Picture.fromarray(frame().color).save(folder / "one.png")
    status = graph.publisher(String, "arm/status", qos.STATUS, readers=0)
    status.publish(conversions.to_json({"state": "moving"}))
    node = graph.start("encoder", encoder=str(graph.run_dir / "encoder"), moving_rate=1.0)
    graph.start("camera", source=str(folder), rate=20.0)
    moving = graph.wait("encoder/status", lambda s: s["received"] >= 20, node)
    assert moving["skipped"] >= 17
    assert moving["encoded"] >= 1
    status.publish(conversions.to_json({"state": "idle"}))
    graph.wait("encoder/status", lambda s: s["encoded"] >= moving["encoded"] + 10, node)


def test_a_node_that_must_know_who_sent_a_message_refuses_the_executor_that_does_not_tell(graph: Graph) -> None:
    node = graph.start("recorder", wait=False, executor="events", store=str(graph.run_dir / "store"))
    assert node.wait(30.0)
    assert node.exit_code() == 2
    assert "set the parameter executor to single" in node.log.read_text()

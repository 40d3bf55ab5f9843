"""The encoder node tells its encoder where the cameras stand."""

from __future__ import annotations

import numpy as np
from PIL import Image as Picture
from sensor_msgs.msg import CameraInfo, Image

from embodied_vision.calibration import read_cameras
from embodied_vision.encoders import load_encoder
from embodied_vision.encoders.region import encode_seen
from embodied_vision.nodes import conversions
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import frame, write_encoder


def test_patches_outside_the_workspace_are_not_computed(graph: Graph) -> None:
    write_encoder(graph.run_dir / "encoder")
    folder = graph.run_dir / "pictures"
    folder.mkdir()
    Picture.fromarray(frame().color).save(folder / "one.png")
    images: list[Image] = []
    features: list[Image] = []
    infos: list[CameraInfo] = []
    graph.subscribe(Image, "camera/color/image_raw", images.append)
    graph.subscribe(Image, "features", features.append)
    graph.subscribe(CameraInfo, "features/camera_info", infos.append)
    name = f"{graph.run_dir / 'encoder'}+region=0.4:0.5,-0.1:0.1,0:0.05"
    graph.start("encoder", encoder=name)
    graph.start("camera", source=str(folder), rate=10.0, resize=True)
    until(lambda: images and features and infos, what="features of the region")
    seen, encoder = read_cameras()[0], load_encoder(name)
    expected = encode_seen(encoder, conversions.image_to_color(images[0]), seen)
    back = conversions.image_to_features(
        features[0], infos[0], seen.K, encoder_id=encoder.encoder_id, artefact_id=encoder.artefact_id
    )
    np.testing.assert_array_equal(back.grid, expected.grid)
    computed = back.grid.any(2).mean()
    assert 0.01 < computed < 0.5

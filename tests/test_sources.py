"""Images from folders and video files, as the camera node publishes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from embodied_vision.errors import BadInput
from embodied_vision.sources import Source, fit, open_source

SIZE = (32, 24)


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8)


def read_all(source: Source) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    images = []
    while (pair := source.read()) is not None:
        images.append(pair)
    return images


def test_a_folder_of_pictures_in_the_order_of_their_names(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        Image.fromarray(picture(index)).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_source(tmp_path, SIZE)
    images = read_all(source)
    assert [np.array_equal(color, picture(i)) for i, (color, _) in enumerate(images)] == [True] * 3
    assert all(depth.dtype == np.float32 and not depth.any() for _, depth in images)
    assert source.rewind()
    assert len(read_all(source)) == 3


def test_grey_pictures_become_color(tmp_path: Path) -> None:
    Image.fromarray(picture(0)[..., 0]).save(tmp_path / "grey.png")
    ((color, _),) = read_all(open_source(tmp_path, SIZE))
    np.testing.assert_array_equal(color, np.repeat(picture(0)[..., :1], 3, axis=2))


def test_depth_beside_color_is_whole_millimetres(tmp_path: Path) -> None:
    depth_mm = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE[1], SIZE[0])
    for kind, image in (("color", picture(0)), ("depth", depth_mm)):
        (tmp_path / kind).mkdir()
        Image.fromarray(image).save(tmp_path / kind / "0.png")
    ((_, depth),) = read_all(open_source(tmp_path, SIZE))
    np.testing.assert_allclose(depth, depth_mm / 1000, rtol=1e-6)
    Image.fromarray(picture(1)).save(tmp_path / "color" / "1.png")
    with pytest.raises(BadInput, match=r"1\.png"):
        open_source(tmp_path, SIZE)


def test_fitting_scales_color_and_keeps_depths_that_exist(tmp_path: Path) -> None:
    depth = np.zeros((SIZE[1], SIZE[0]), np.float32)
    depth[:, 16:] = 1.5
    color, small = fit((picture(0), depth), (16, 12))
    assert color.shape == (12, 16, 3)
    assert set(np.unique(small)) == {0.0, 1.5}
    assert fit((picture(0), depth), SIZE)[1] is depth


def test_a_video_file_and_again_from_its_beginning(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (extra `camera`)")
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 15, SIZE)
    for index in range(4):
        red = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        red[..., 2] = 60 * (index + 1)
        writer.write(red)
    writer.release()
    source = open_source(path, SIZE)
    images = read_all(source)
    assert [int(color[..., 0].mean().round(-1)) for color, _ in images] == [60, 120, 180, 240]
    assert all(color[..., 1:].max() < 20 for color, _ in images)
    assert source.rewind()
    assert len(read_all(source)) == 4
    source.close()


@pytest.mark.parametrize("fault", ["", "missing", "empty folder", "no video"])
def test_what_cannot_be_opened_is_named(tmp_path: Path, fault: str) -> None:
    path = tmp_path / (fault or "x")
    if fault == "empty folder":
        path.mkdir()
    if fault == "no video":
        pytest.importorskip("cv2", reason="OpenCV is not installed (extra `camera`)")
        path.write_text("no video")
    with pytest.raises(BadInput, match=fault or "no source"):
        open_source(path if fault else "", SIZE)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(BadInput, match=r"bad\.png"):
        open_source(tmp_path, SIZE).read()

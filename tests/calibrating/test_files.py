"""What a calibration leaves behind is whole, is read back, and leaves other cameras alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from calibrating.synthetic import BENT, CAMERA, LENS
from embodied_vision.calibrating.files import read_lens, write_lens
from embodied_vision.calibration import put_camera, read_cameras, write_cameras
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.types import Camera


def _camera(name: str) -> Camera:
    return Camera(name, 640, 480, LENS.K, CAMERA["cell"])


def test_a_camera_takes_the_place_of_its_former_self(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cameras.yaml"
    put_camera(_camera("left"), {"residual_px": 0.2}, path)
    put_camera(_camera("right"), {}, path)
    moved = Camera("left", 320, 240, LENS.K / 2, CAMERA["wrist"])
    put_camera(moved, {"residual_px": 0.1}, path)
    left, right = read_cameras(path)
    assert (left.name, left.width, right.name) == ("left", 320, "right")
    assert (left.T_base_camera == CAMERA["wrist"]).all(), "exactly"
    assert yaml.safe_load(path.read_text())["cameras"][0]["calibrated"] == {"residual_px": 0.1}
    assert os.listdir(path.parent) == ["cameras.yaml"], "nothing is left over"


def test_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text("joints: 7\n")
    with pytest.raises(BadInput, match="cannot be used"):
        put_camera(_camera("left"), {}, path)
    assert path.read_text() == "joints: 7\n"


def test_a_full_disk_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cameras.yaml"
    put_camera(_camera("left"), {}, path)
    before = path.read_text()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match=r"No space left on device.*make room"):
        put_camera(_camera("right"), {}, path)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["cameras.yaml"]


def test_intrinsics_survive_both_kinds_of_file(tmp_path: Path) -> None:
    write_lens(BENT, "left", tmp_path / "left_info.yaml")
    read = read_lens(tmp_path / "left_info.yaml", "any")
    assert read.size == BENT.size
    assert (read.K == BENT.K).all()
    assert (read.distortion == BENT.distortion).all()
    write_cameras((_camera("left"),), tmp_path / "cameras.yaml")
    read = read_lens(tmp_path / "cameras.yaml", "left")
    assert (read.K == LENS.K).all()
    assert not read.distortion.any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cameras:\n- {name: right, width: 1, height: 1, K: 1}\n", r"has the cameras \['right'\], not 'left'"),
        ("cameras:\n- {name: left, width: 1, height: 1, K: [1, 2]}\n", "cannot be used"),
        ("distortion_model: equidistant\n", "only plumb_bob"),
        ("image_width: 640\n", "cannot be used: KeyError"),
        ("- 1\n", "cannot be used"),
        ("", "cannot be used"),
        ("a: [", "cannot be used"),
    ],
)
def test_unusable_intrinsics_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "lens.yaml").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_lens(tmp_path / "lens.yaml", "left")


def test_impossible_intrinsics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="do not exist"):
        read_lens(tmp_path / "none.yaml", "left")
    text = {
        "image_width": 640,
        "image_height": 480,
        "camera_matrix": {"data": [float("nan"), 0, 320, 0, 600, 240, 0, 0, 1]},
        "distortion_coefficients": {"data": [0, 0, 0, 0]},
    }
    (tmp_path / "lens.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(BadInput, match="calibrate the lens"):
        read_lens(tmp_path / "lens.yaml", "left")
    text["camera_matrix"] = {"data": LENS.K.ravel().tolist()}
    text["distortion_coefficients"] = {"data": np.full(8, 0.1).tolist()}
    (tmp_path / "lens.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(BadInput, match="8 distortion coefficients"):
        read_lens(tmp_path / "lens.yaml", "left")

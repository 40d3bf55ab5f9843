"""`calibrate` from the command line: from a printed board to a file that nodes read, and its refusals."""

from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from calibrating.synthetic import BENT, BOARD, CAMERA, LENS, board_poses, picture, tip_pose
from PIL import Image

from embodied_vision.calibrating.files import write_lens
from embodied_vision.calibrating.hand_eye import Mount
from embodied_vision.calibrating.lens import Lens
from embodied_vision.calibrating.solve import difference
from embodied_vision.calibration import read_cameras, write_cameras
from embodied_vision.cli.calibrate import app
from embodied_vision.errors import BadInput
from embodied_vision.geometry import pose_to_vector
from embodied_vision.types import Camera
from tests.command_line import prints

HEADER = ["image", "x", "y", "z", "qx", "qy", "qz", "qw"]

_run = partial(prints, app)


def _take(folder: Path, mount: Mount, count: int = 12, lens: Lens = LENS) -> None:
    rng = np.random.default_rng(4)
    rows = []
    for number, T in enumerate(board_poses(count, rng)):
        Image.fromarray(picture(T, lens)).save(folder / f"{number}.png")
        rows.append([f"{number}.png", *pose_to_vector(tip_pose(mount, T)).tolist()])
    _note(folder, rows)


def _note(folder: Path, rows: list[list[Any]]) -> None:
    with open(folder / "poses.csv", "w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures of a camera in the cell."""
    folder = tmp_path_factory.mktemp("taken")
    _take(folder, "cell")
    return folder


@pytest.fixture
def pictures(taken: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return shutil.copytree(taken, tmp_path / "pictures")


def test_a_camera_in_the_cell(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "cameras.yaml"
    write_cameras((Camera("other", 64, 48, LENS.K, np.eye(4)),), output)
    told = _run("hand-eye", pictures, "--mount", "cell", "--output", output, "--camera", "front", "--json")
    report = json.loads(told)
    other, front = read_cameras(output)
    assert (other.name, front.name, front.width, front.height) == ("other", "front", 640, 480)
    mm, deg = difference(np.asarray(front.T_base_camera), CAMERA["cell"])
    assert mm < 2.0
    assert deg < 0.2
    assert np.abs(front.K - LENS.K).max() < 2.0
    assert report["camera"] == front.to_dict()
    assert report["residual_px"] < 0.3
    about = yaml.safe_load(output.read_text())["cameras"][1]["calibrated"]
    assert about["pictures"] == 12
    assert "<svg" in (tmp_path / "front_calibration.html").read_text()
    assert yaml.safe_load((tmp_path / "front_info.yaml").read_text())["image_width"] == 640


def test_a_camera_on_the_wrist_seen_from_a_picture(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    _take(folder, "wrist")
    output = tmp_path / "cameras.yaml"
    lens = tmp_path / "lens.yaml"
    write_lens(LENS, "camera", lens)
    common = ("hand-eye", folder, "--mount", "wrist", "--output", output, "--intrinsics", lens)
    told = _run(*common, "--observe-from", "3.png")
    assert "in the tip frame" in told
    (camera,) = read_cameras(output)
    assert (camera.K == LENS.K).all()
    tip = tip_pose("wrist", board_poses(12, np.random.default_rng(4))[3])
    assert difference(np.asarray(camera.T_base_camera), tip @ CAMERA["wrist"])[0] < 1.0
    about = yaml.safe_load(output.read_text())["cameras"][0]["calibrated"]
    assert about["seen_from"] == "3.png"
    assert difference(np.asarray(about["T_tip_camera"]), CAMERA["wrist"])[0] < 1.0
    assert not (tmp_path / "camera_info.yaml").exists()
    before = output.read_text()
    with pytest.raises(BadInput, match="no such picture"):
        _run(*common, "--observe-from", "33.png")
    assert output.read_text() == before


def test_a_lens_that_distorts_is_told_and_taken_out(tmp_path: Path) -> None:
    bent, straight, output = tmp_path / "bent", tmp_path / "straight", tmp_path / "cameras.yaml"
    bent.mkdir()
    _take(bent, "cell", lens=BENT)
    told = _run("hand-eye", bent, "--mount", "cell", "--output", output)
    assert "take rectified pictures only" in told
    info = tmp_path / "camera_info.yaml"
    assert yaml.safe_load(info.read_text())["distortion_coefficients"]["data"][0] == pytest.approx(-0.2, abs=0.05)
    _run("rectify", bent, straight, "--intrinsics", info)
    shutil.copy(bent / "poses.csv", straight)
    told = _run("hand-eye", straight, "--mount", "cell", "--output", output, "--intrinsics", output)
    assert "rectified" not in told
    (camera,) = read_cameras(output)
    mm, deg = difference(np.asarray(camera.T_base_camera), CAMERA["cell"])
    assert mm < 2.0
    assert deg < 0.6, "decentring trades with the principal point"


def test_pictures_that_do_not_help_are_named(pictures: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((480, 640, 3), np.uint8)).save(pictures / "5.png")
    told = _run("hand-eye", pictures, "--mount", "cell", "--output", tmp_path / "c.yaml")
    assert "left out: 5.png: it is nearly uniform" in told
    assert "from 11 of 12 pictures" in told


def _cut(folder: Path) -> None:
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])


def _shrunk(folder: Path) -> None:
    Image.fromarray(picture(board_poses(1, np.random.default_rng(0))[0])[::2, ::2]).save(folder / "2.png")


def _nan(folder: Path) -> None:
    text = (folder / "poses.csv").read_text().splitlines()
    text[3] = "2.png,nan,0,0,0,0,0,1"
    (folder / "poses.csv").write_text("\n".join(text))


def _blank(folder: Path) -> None:
    for path in folder.glob("*.png"):
        Image.fromarray(np.full((480, 640, 3), 128, np.uint8)).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, r"2\.png cannot be read as a picture"),
        (_shrunk, r"picture 2\.png has 320×240 px, 0\.png has 640×480"),
        (_nan, r"poses\.csv, line 4: the tip pose .* is not finite"),
        (_blank, r"in none of 12 pictures; 0\.png: it is nearly uniform"),
        (lambda folder: (folder / "2.png").unlink(), r"the picture 2\.png, which is not in"),
        (lambda folder: (folder / "poses.csv").unlink(), r"poses\.csv do not exist"),
        (shutil.rmtree, "do not exist"),
    ],
)
def test_spoilt_input_leaves_no_file(pictures: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(pictures)
    with pytest.raises(BadInput, match=message):
        _run("hand-eye", pictures, "--mount", "cell", "--output", tmp_path / "out" / "c.yaml")
    assert not (tmp_path / "out").exists()


def test_a_source_is_needed_and_only_one(tmp_path: Path) -> None:
    out = ("--mount", "cell", "--output", tmp_path / "c.yaml")
    with pytest.raises(BadInput, match="either a folder of pictures or --store"):
        _run("hand-eye", *out)
    with pytest.raises(BadInput, match="hold the joint positions themselves"):
        _run("hand-eye", "--store", tmp_path, "--poses", tmp_path / "p.csv", *out)
    with pytest.raises(BadInput, match="no episode store"):
        _run("hand-eye", "--store", tmp_path / "none", *out)


def test_board_page(tmp_path: Path) -> None:
    told = _run("board", tmp_path / "board.pdf")
    assert f"pattern {1000 * BOARD.size_m[0]:g} × {1000 * BOARD.size_m[1]:g} mm on A4" in told
    assert (tmp_path / "board.pdf").read_bytes().startswith(b"%PDF")


def test_rectify(pictures: Path, tmp_path: Path) -> None:
    info = tmp_path / "info.yaml"
    write_lens(BENT, "camera", info)
    told = _run("rectify", pictures, tmp_path / "straight", "--intrinsics", info)
    assert "12 pictures rectified" in told
    with Image.open(tmp_path / "straight" / "0.png") as straight, Image.open(pictures / "0.png") as bent:
        assert straight.size == bent.size
        assert np.abs(np.asarray(straight, int) - np.asarray(bent, int)).max() > 50
    with pytest.raises(BadInput, match="the pictures themselves"):
        _run("rectify", pictures, pictures, "--intrinsics", info)
    write_cameras((Camera("camera", 64, 48, LENS.K, np.eye(4)),), info)
    with pytest.raises(BadInput, match="640×480 px"):
        _run("rectify", pictures, tmp_path / "straight", "--intrinsics", info)

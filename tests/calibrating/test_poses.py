"""Files of poses: all forms give the same poses, and everything that is wrong in them is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from calibrating.synthetic import pose
from embodied_vision.calibrating.poses import read_poses
from embodied_vision.errors import BadInput
from embodied_vision.geometry import pose_to_vector
from embodied_vision.types import FloatArray


class TwoJoints:
    """A toy arm."""

    joint_names = ("a", "b")

    def forward(self, q: FloatArray) -> FloatArray:
        return pose((0.0, 0.0, float(q[0])), (float(q[1]), 0.0, 0.0))


def _arm() -> TwoJoints:
    return TwoJoints()


def _no_arm() -> TwoJoints:
    raise AssertionError("tip poses need no robot")


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_all_forms_give_the_same(tmp_path: Path) -> None:
    T = pose((0.0, 0.0, 0.3), (0.5, 0.0, 0.0))
    vector = ", ".join(map(repr, pose_to_vector(T).tolist()))
    entry = {"image": "1.png", "tip_pose": T.tolist()}
    tips = [
        _write(tmp_path / "tip.csv", f"image, x, y, z, qx, qy, qz, qw\n1.png, {vector}\n\n"),
        _write(tmp_path / "tip.json", json.dumps([entry])),
        _write(tmp_path / "tip.yaml", yaml.safe_dump([{"image": "1.png", "tip_pose": pose_to_vector(T).tolist()}])),
    ]
    joints = [
        _write(tmp_path / "bom.csv", "\ufeffimage,b,other,a\n1.png,0.5,9,0.3\n"),
        _write(tmp_path / "map.json", json.dumps([{"image": "1.png", "joints": {"b": 0.5, "a": 0.3}}])),
        _write(tmp_path / "list.yml", "- {image: 1.png, joints: [0.3, 0.5]}\n"),
    ]
    for path in (*tips, *joints):
        read = read_poses(path, _no_arm if path in tips else _arm)
        assert list(read) == ["1.png"]
        assert read["1.png"] == pytest.approx(T, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "", r"the first line names each once, `image` among them"),
        ("p.csv", "image,image\n", "names each once"),
        ("p.csv", "image,a,b\n", "are empty"),
        ("p.csv", "image,a,b\n1.png,0.1,0.2\n2.png,0.1", r"p\.csv, line 3 has 2 values .* cut short"),
        ("p.csv", "image,a,b\n1.png,0.1,0.2\n1.png,0.1,0.2\n", "line 3: picture 1.png has a pose already"),
        ("p.csv", "image,a,b\n,0.1,0.2\n", "no `image`"),
        ("p.csv", "image,a,b\n1.png,0.1,nan\n", r"line 2: the joint positions .* not finite; leave this picture out"),
        ("p.csv", "image,a,b\n1.png,0.1,x\n", "no number"),
        ("p.csv", "image,a\n1.png,0.1\n", r"joints \['b'\] are missing"),
        ("p.csv", "image,a,b\n1.png,90,45\n", "radians, not degrees"),
        ("p.csv", "image,x,y,z,qx,qy,qz,qw\n1.png,0.1,inf,0,0,0,0,1\n", "not finite"),
        ("p.csv", "image,x,y,z,qx,qy,qz,qw\n1.png,500,0,0,0,0,0,1\n", "metres, not millimetres"),
        ("p.csv", "image,x,y,z,qx,qy,qz,qw\n1.png,0,0,0,0,0,0,2\n", "norm 2"),
        ("p.csv", "image,x,y,z,qx,qy,qz,qw\n1.png,0,0,0,0,0,0,0\n", "norm 0"),
        ("p.json", '[{"image": "1.png", "tip_pose": [1, 2', "cut short"),
        ("p.json", '{"image": "1.png"}', "no list of mappings"),
        ("p.json", '[{"image": "1.png"}]', "entry 1: give either"),
        ("p.json", '[{"image": 1, "joints": [0, 0]}]', "no `image`"),
        ("p.json", '[{"image": "1.png", "joints": [0, 0, 0]}]', "3 joint positions; the robot has 2: a, b"),
        ("p.json", '[{"image": "1.png", "joints": [0, [0]]}]', "no number"),
        ("p.json", '[{"image": "1.png", "tip_pose": [0, 0, 0]}]', r"shape \(3,\)"),
        ("p.json", '[{"image": "1.png", "tip_pose": [[1, 2], [3]]}]', "no number"),
        ("p.yaml", "- {image: 1.png, tip_pose: [", "cut short"),
        ("p.yaml", "- image\n", "no list of mappings"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_poses(_write(tmp_path / name, text), _arm)


def test_a_left_handed_matrix_is_no_pose(tmp_path: Path) -> None:
    entry = [{"image": "1.png", "tip_pose": np.diag([1.0, 1.0, -1.0, 1.0]).tolist()}]
    with pytest.raises(BadInput, match="is no pose"):
        read_poses(_write(tmp_path / "p.json", json.dumps(entry)), _arm)


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="do not exist"):
        read_poses(tmp_path / "none.csv", _arm)
    (tmp_path / "p.csv").write_bytes(b"image,a\n\xff\xfe")
    with pytest.raises(BadInput, match="cannot be read"):
        read_poses(tmp_path / "p.csv", _arm)

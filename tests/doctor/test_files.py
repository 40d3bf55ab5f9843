"""The files that a launch will use: wrong and damaged ones are found before it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from embodied_vision.calibration import write_cameras
from embodied_vision.control.description import ROBOTS
from embodied_vision.control.robot import RobotModel
from embodied_vision.doctor.check import Check
from embodied_vision.doctor.expected import expected
from embodied_vision.doctor.files import check_files
from embodied_vision.errors import BadInput
from embodied_vision.launching.graph import write_parameters
from embodied_vision.paths import shipped
from tests.doctor.driver import camera


def checks(folder: Path, **nodes: dict[str, object]) -> dict[str, Check]:
    """What is said of a launch with these parameters."""
    file = write_parameters(folder / "params.yaml", {f"/**/{node}": values for node, values in nodes.items()})
    return {check.name: check for check in check_files(expected([file]))}


def test_what_ships_passes(tmp_path: Path) -> None:
    found = checks(tmp_path)
    assert set(found) == {"calibration", "robot", "encoder default", "policy block-insertion"}
    assert all(check.ok for check in found.values()), found


def test_a_calibration_that_is_missing_or_lacks_a_camera_is_found(tmp_path: Path) -> None:
    check = checks(tmp_path, policy={"calibration": str(tmp_path / "none.yaml")})["calibration"]
    assert not check.ok
    assert "none.yaml" in check.value
    write_cameras((camera("front"),), tmp_path / "front.yaml")
    check = checks(tmp_path, policy={"calibration": str(tmp_path / "front.yaml")})["calibration"]
    assert not check.ok
    assert "['camera']" in check.value


def test_nodes_with_two_calibrations_are_found(tmp_path: Path) -> None:
    write_cameras((camera("camera"),), tmp_path / "mine.yaml")
    check = checks(tmp_path, policy={"calibration": str(tmp_path / "mine.yaml")})["calibration"]
    assert not check.ok
    assert "same file" in check.remedy


def robot_with(folder: Path, joint_limits: dict[str, object]) -> str:
    """A Panda whose YAML has these limits besides the URDF's."""
    fields = yaml.safe_load((ROBOTS / "panda.yaml").read_text(encoding="utf-8"))
    fields.pop("joint_limits_file", None)
    fields |= {"urdf": str(ROBOTS / fields["urdf"]), "tool": "suction", "joint_limits": joint_limits}
    (folder / "mine.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    return str(folder / "mine.yaml")


def test_limits_that_are_not_complete_are_found(tmp_path: Path) -> None:
    check = checks(tmp_path, arm={"robot": robot_with(tmp_path, {})})["robot"]
    assert not check.ok
    assert "acceleration" in check.value


def test_limits_that_are_tighter_than_the_urdfs_are_told_and_looser_ones_hinted_at(tmp_path: Path) -> None:
    full = {"has_acceleration_limits": True, "max_acceleration": 5.0, "has_jerk_limits": True, "max_jerk": 500.0}
    limits: dict[str, object] = {joint: dict(full) for joint in RobotModel.load().joint_names}
    first, second = list(limits)[:2]
    limits[first] = {**full, "has_velocity_limits": True, "max_velocity": 0.5}
    limits[second] = {**full, "has_position_limits": True, "min_position": -9.0, "max_position": 0.5}
    check = checks(tmp_path, arm={"robot": robot_with(tmp_path, limits)})["robot"]
    assert check.ok, check
    assert f"tighter than the URDF's: max_velocity of {first}, max_position of {second}" in check.value
    assert f"min_position of {second} is looser" in check.remedy


@pytest.mark.parametrize("what", ["encoder", "policy"])
def test_a_damaged_file_is_found(tmp_path: Path, what: str) -> None:
    source = shipped("encoder" if what == "encoder" else "block-insertion")
    folder = Path(shutil.copytree(source, tmp_path / what))
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    parameters: dict[str, dict[str, object]] = {"policy": {"checkpoint": str(folder)}}
    if what == "encoder":
        parameters = {node: {"encoder": str(folder)} for node in ("encoder", "policy")}
    check = checks(tmp_path, **parameters)[f"{what} {folder}"]
    assert not check.ok
    assert "model.safetensors" in check.value
    assert "copy" in check.remedy


def test_a_policy_and_an_encoder_node_with_different_encoders_are_found(tmp_path: Path) -> None:
    folder = shutil.copytree(shipped("encoder"), tmp_path / "encoder")
    check = checks(tmp_path, encoder={"encoder": str(folder)})["encoder of the policy"]
    assert not check.ok
    assert "same" in check.remedy


def test_a_file_that_is_no_parameter_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("- 1\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"wrong\.yaml"):
        expected([tmp_path / "wrong.yaml"])

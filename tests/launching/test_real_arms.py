"""The example parameter files of real arms hold only what the nodes declare, for robots that ship."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from embodied_vision.control.robot import RobotModel
from embodied_vision.launching.arguments import LAUNCHABLE
from embodied_vision.launching.parameters import check_files
from embodied_vision.paths import PACKAGE

FILES = sorted((PACKAGE / "config").glob("arm_*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_launch_of_an_arm_takes_the_file(path: Path) -> None:
    check_files([path], [node.name for node in LAUNCHABLE["arm"].nodes])
    values = yaml.safe_load(path.read_text())["/**/arm"]["ros__parameters"]
    RobotModel.load(values["robot"])
    assert values["speed"] <= 0.3
    assert values["home_speed"] <= 0.3
    assert values.get("clearance", 0.19) > 0.01
    if values["grasp_check"] == "width":
        low, high = values["held_between"]
        assert low < high
        assert values["finger_joints"]
    if values.get("gripper_interface") == "action":
        assert values["gripper_closed"] < values["held_between"][0] < values["held_between"][1] < values["gripper_open"]


def test_there_is_an_example_for_each_kind() -> None:
    assert [path.stem for path in FILES] == ["arm_fr3", "arm_so101", "arm_ur5e"]

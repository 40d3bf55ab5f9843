"""The shipped description is the Panda, and loads the same everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from embodied_vision.control.description import ROBOTS, TOOLS, read_description, shipped_arms, shipped_tools
from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import BadInput
from embodied_vision.geometry import tool_down


def random_positions(model: RobotModel, count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(model.limits.lower, model.limits.upper, (count, 7))


def test_flange_is_where_the_reference_panda_has_it(model: RobotModel) -> None:
    bullet = pytest.importorskip("pybullet")
    data = pytest.importorskip("pybullet_data")
    client = bullet.connect(bullet.DIRECT)
    try:
        reference = bullet.loadURDF(f"{data.getDataPath()}/franka_panda/panda.urdf", useFixedBase=True)
        tip_from_flange = np.array([0.0, 0.0, 0.1])
        for q in random_positions(model, 50):
            for joint, angle in enumerate(q):
                bullet.resetJointState(reference, joint, angle)
            state = bullet.getLinkState(reference, 7, computeForwardKinematics=True)
            flange = np.array(bullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
            tip = model.forward(q)
            np.testing.assert_allclose(tip[:3, 3], np.array(state[4]) + flange @ tip_from_flange, atol=1e-6)
            np.testing.assert_allclose(tip[:3, :3], flange, atol=1e-5)
    finally:
        bullet.disconnect(client)


@pytest.mark.parametrize("name", [f"{arm}_{tool}" for arm in shipped_arms() for tool in shipped_tools()])
def test_bullet_loads_every_arm_with_every_tool_alike(name: str, tmp_path: Path) -> None:
    model = RobotModel.load(name)
    bullet = pytest.importorskip("pybullet")
    client = bullet.connect(bullet.DIRECT)
    try:
        (tmp_path / "robot.urdf").write_text(model.urdf)
        arm = bullet.loadURDF(str(tmp_path / "robot.urdf"), useFixedBase=True)
        info = [bullet.getJointInfo(arm, joint) for joint in range(len(model.joint_names))]
        assert tuple(i[1].decode() for i in info) == model.joint_names
        entries = read_description(name).fields["joint_limits"]
        own = [not entries[joint].get("has_position_limits") for joint in model.joint_names]
        np.testing.assert_allclose(np.array([i[8] for i in info])[own], model.limits.lower[own])
        np.testing.assert_allclose(np.array([i[9] for i in info])[own], model.limits.upper[own])
        np.testing.assert_allclose([i[11] for i in info], model.limits.velocity)
        links = [bullet.getJointInfo(arm, joint)[12].decode() for joint in range(bullet.getNumJoints(arm))]
        for joint, angle in enumerate(model.home):
            bullet.resetJointState(arm, joint, angle)
        state = bullet.getLinkState(arm, links.index(model.tip_link), computeForwardKinematics=True)
        np.testing.assert_allclose(model.forward(model.home)[:3, 3], state[4], atol=1e-6)
    finally:
        bullet.disconnect(client)


def test_flange_is_where_the_reference_iiwa_has_it() -> None:
    model = RobotModel.load("kuka_iiwa_suction")
    bullet = pytest.importorskip("pybullet")
    data = pytest.importorskip("pybullet_data")
    client = bullet.connect(bullet.DIRECT)
    try:
        reference = bullet.loadURDF(f"{data.getDataPath()}/kuka_iiwa/model.urdf", useFixedBase=True)
        for q in random_positions(model, 50):
            for joint, angle in enumerate(q):
                bullet.resetJointState(reference, joint, angle)
            state = bullet.getLinkState(reference, 6, computeForwardKinematics=True)
            last = np.array(bullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
            origin = bullet.getLinkState(reference, 0)[4]  # of joint 1, 0.1575 m over the foot
            foot = np.array(origin) - (0, 0, 0.1575)
            tip = model.forward(q)
            np.testing.assert_allclose(tip[:3, 3], np.array(state[4]) - foot + last @ (0, 0, 0.145), atol=1e-5)
            np.testing.assert_allclose(tip[:3, :3], last @ np.diag([-1, -1, 1]), atol=1e-5)
    finally:
        bullet.disconnect(client)


def test_home_looks_straight_down_and_is_far_from_limits(model: RobotModel) -> None:
    np.testing.assert_allclose(model.forward(model.home), tool_down(0.3, 0.0, 0.55), atol=1e-5)
    room = np.minimum(model.home - model.limits.lower, model.limits.upper - model.home)
    assert room.min() > 0.5


def test_link_positions_agree_with_forward_kinematics(model: RobotModel) -> None:
    q = random_positions(model, 20)
    expected = [model.forward(each)[:3, 3] for each in q]
    np.testing.assert_allclose(model.link_positions(q)[:, -1], expected, atol=1e-12)


def test_jacobian_is_the_derivative_of_forward(model: RobotModel) -> None:
    step = 1e-6
    for q in random_positions(model, 5):
        J, pose = model.jacobian(q), model.forward(q)
        for joint in range(7):
            moved = q.copy()
            moved[joint] += step
            change = (model.forward(moved)[:3, 3] - pose[:3, 3]) / step
            np.testing.assert_allclose(pose[:3, :3] @ J[:3, joint], change, atol=1e-5)


def write_robot(folder: Path, **changes: object) -> Path:
    description = yaml.safe_load((ROBOTS / "panda.yaml").read_text())
    description["urdf"] = str(ROBOTS / "panda.urdf")
    description["tool"] = str(TOOLS / "suction.yaml")
    description.update(changes)
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in description.items() if v is not None}))
    return path


def test_the_tighter_limit_wins(tmp_path: Path, model: RobotModel) -> None:
    entries = yaml.safe_load((ROBOTS / "panda.yaml").read_text())["joint_limits"]
    entries["panda_joint2"].update(has_velocity_limits=True, max_velocity=0.5)
    entries["panda_joint3"].update(has_velocity_limits=True, max_velocity=99.0)
    limits = RobotModel.load(write_robot(tmp_path, joint_limits=entries)).limits
    assert limits.velocity[1] == 0.5
    assert limits.velocity[2] == model.limits.velocity[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"urdf": "missing.urdf"}, "not there"),
        ({"tool": "claw"}, "claw"),
        ({"tool": None, "tip_link": "claw"}, "claw"),
        ({"flange": "panda_link99"}, "panda_link99"),
        ({"home": {"panda_joint1": 0.0}}, "home"),
        ({"home": None}, "home"),
        ({"joint_limits": {"panda_joint1": {}}}, "acceleration"),
        ({"joint_limits": {"elbow": {}}}, "elbow"),
        ({"reach_m": [0.3]}, "wrong field"),
        ({"tool": None, "tip_link": "panda_link6", "spin": "any"}, "spin any needs"),
        ({"tool": None, "tip_link": "panda_link8", "spin": "twice"}, "'twice' is unknown"),
    ],
)
def test_a_wrong_description_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RobotModel.load(write_robot(tmp_path, **changes))


def test_an_unknown_robot_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"'kuka_iiwa', 'panda'.*\] and one of \[.*'suction'\]"):
        RobotModel.load("fanuc")

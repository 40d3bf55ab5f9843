"""The shipped description is the Panda, and loads the same everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from embodied_vision.control.bodies import read_bodies
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


def test_limits_of_a_file_add_to_those_beside_the_urdf(tmp_path: Path, model: RobotModel) -> None:
    file = {
        "joint_limits": {
            "panda_joint1": {"has_jerk_limits": True, "max_jerk": 100.0, "has_effort_limits": False},
            "panda_joint2": {"has_acceleration_limits": True, "max_acceleration": 1e6},
            "panda_joint3": {"has_deceleration_limits": True, "max_deceleration": 2.0},
            "panda_joint4": {"has_position_limits": True, "min_position": -2.5, "max_position": 3.0},
            "panda_joint5": {"has_velocity_limits": False, "max_velocity": 0.1},
        }
    }
    (tmp_path / "joint_limits.yaml").write_text(yaml.safe_dump(file))
    limits = RobotModel.load(write_robot(tmp_path, joint_limits_file="joint_limits.yaml")).limits
    assert limits.jerk[0] == 100.0
    assert limits.acceleration[1] == model.limits.acceleration[1], "a file never loosens"
    assert limits.acceleration[2] == 2.0
    assert (limits.lower[3], limits.upper[3]) == (-2.5, model.limits.upper[3])
    assert limits.velocity[4] == model.limits.velocity[4], "what its flag switches off does not count"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"has_velocity_limits": True}, "max_velocity is None"),
        ({"has_velocity_limits": True, "max_velocity": float("nan")}, "finite"),
        ({"has_velocity_limits": True, "max_velocity": float("inf")}, "finite"),
        ({"has_velocity_limits": True, "max_velocity": "fast"}, "'fast'"),
        ({"has_velocity_limits": True, "max_velocity": -1.0}, "positive"),
        ({"has_velocity_limits": "yes"}, "true or false"),
        ({"has_position_limits": True, "min_position": 1.0, "max_position": -1.0}, "below the upper"),
        ({"max_speed": 1.0}, "max_speed"),
        ([1.0], "mapping"),
    ],
)
def test_a_wrong_entry_of_joint_limits_is_named(tmp_path: Path, entry: object, message: str) -> None:
    (tmp_path / "joint_limits.yaml").write_text(yaml.safe_dump({"joint_limits": {"panda_joint1": entry}}))
    with pytest.raises(BadInput, match=message):
        RobotModel.load(write_robot(tmp_path, joint_limits_file="joint_limits.yaml"))


def arm_about(axes: list[str], kinds: list[str], gripper: str = "") -> str:
    """A URDF of an arm whose joints turn about these axes, with a jaw that turns as well."""
    parts = ['<robot name="any"><link name="l0"/>']
    for number, (axis, kind) in enumerate(zip(axes, kinds, strict=True), start=1):
        limit = '<limit lower="-2" upper="2" velocity="1" effort="1"/>' if kind != "continuous" else ""
        parts.append(
            f'<link name="l{number}"><collision><geometry><sphere radius="0.02"/></geometry></collision></link>'
            f'<joint name="j{number}" type="{kind}"><parent link="l{number - 1}"/><child link="l{number}"/>'
            f'<origin xyz="0.01 0.02 0.2" rpy="0.1 0.2 0.3"/><axis xyz="{axis}"/>{limit}</joint>'
        )
    return "".join([*parts, gripper, "</robot>"])


JAW = (
    '<link name="jaw"><collision><origin xyz="0.1 0 0"/><geometry><sphere radius="0.01"/></geometry></collision></link>'
    '<joint name="grip" type="revolute"><parent link="l6"/><child link="jaw"/><origin xyz="0 0 0.05"/>'
    '<axis xyz="0 1 0"/><limit lower="0" upper="1.5" velocity="1" effort="1"/></joint>'
)


def load_any(folder: Path, urdf: str, joints: int, **changes: object) -> RobotModel:
    (folder / "any.urdf").write_text(urdf)
    names = [f"j{number}" for number in range(1, joints + 1)]
    flags = {"has_acceleration_limits": True, "has_jerk_limits": True, "has_velocity_limits": True}
    entry = {**flags, "max_acceleration": 5.0, "max_jerk": 100.0, "max_velocity": 2.0}
    fields: dict[str, object] = {
        "urdf": str(folder / "any.urdf"),
        "tool": None,
        "tip_link": f"l{joints}",
        "home": dict.fromkeys(names, 0.1),
        "posture": None,
        "joint_limits": {name: dict(entry) for name in names},
        "disable_collisions": None,
        **changes,
    }
    return RobotModel.load(write_robot(folder, **fields))


def test_joints_about_any_axis_make_an_arm(tmp_path: Path) -> None:
    axes = ["0 0 1", "0 1 0", "1 0 0", "0 0 -1", "0.6 0 0.8", "0 -1 0"]
    kinds = ["continuous", "revolute", "revolute", "revolute", "continuous", "revolute"]
    robot = load_any(tmp_path, arm_about(axes, kinds, JAW), 6, finger_joints=["grip"])
    assert robot.finger_joints == ("grip",)
    assert robot.limits.upper[0] == pytest.approx(2 * np.pi)
    rng = np.random.default_rng(0)
    q = rng.uniform(-1.5, 1.5, (20, 6))
    expected = [robot.forward(each)[:3, 3] for each in q]
    np.testing.assert_allclose(robot.link_positions(q)[:, -1], expected, atol=1e-12)
    goal = robot.forward(q[3])
    np.testing.assert_allclose(robot.forward(robot.inverse(goal, q[3] + 0.05)), goal, atol=1e-5)
    jaw = next(body for body in read_bodies(robot) if body.link == "jaw")
    places = [(0.1 * np.cos(angle), 0.0, 0.05 - 0.1 * np.sin(angle)) for angle in np.linspace(0, 1.5, 50)]
    directions = rng.normal(size=(200, 3))
    reach = (jaw.points @ directions.T).max(axis=0) + jaw.ball_m * np.linalg.norm(directions, axis=1)
    needed = (np.array(places) @ directions.T).max(axis=0) + 0.01 * np.linalg.norm(directions, axis=1)
    assert (reach >= needed - 1e-9).all(), "the jaw is inside its body at every width"
    assert jaw.ball_m < 0.0105


UNHURRIED = {
    f"j{number}": {"has_acceleration_limits": True, "max_acceleration": 5.0, "has_jerk_limits": True, "max_jerk": 100.0}
    for number in range(1, 7)
}


@pytest.mark.parametrize(
    ("urdf", "changes", "message"),
    [
        (arm_about(["0 0 1"] * 6, ["revolute"] * 6, JAW), {}, "home names"),
        (arm_about(["0 0 1"] * 6, ["revolute"] * 6), {"finger_joints": ["claw"]}, "claw"),
        (arm_about(["0 0 1"] * 6, ["revolute"] * 5 + ["planar"]), {}, "planar|j6|home"),
        (arm_about(["0 0 1"] * 6, ["revolute"] * 6, JAW.replace("l6", "l3")), {}, "branch|home names"),
        (arm_about(["0 0 1"] * 6, ["revolute"] * 6), {"spin": "any", "tip_link": "l5"}, "spin any"),
        (arm_about(["0 0 1"] * 6, ["turning"] * 6), {}, "cannot be used"),
        (arm_about(["0 0 1"] * 6, ["continuous"] * 6), {"joint_limits": UNHURRIED}, "velocity limits .* inf"),
    ],
)
def test_what_is_no_arm_is_told(tmp_path: Path, urdf: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_any(tmp_path, urdf, 6, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"urdf": "missing.urdf"}, "not there"),
        ({"joint_limits_file": "missing.yaml"}, "missing.yaml"),
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

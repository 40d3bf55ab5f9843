"""The descriptions of real arms stand for the arms that they are named after, and work as described."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from embodied_vision.control.description import ROBOTS, TOOLS, shipped_robots
from embodied_vision.control.guard import Guard
from embodied_vision.control.inverse import solve_pose
from embodied_vision.control.motion import MotionSettings, plan_pick_place
from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import BadInput, Refused
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace, Workspace

TABLE = (Workspace(), MotionSettings())
DESK = (Workspace(x=(0.05, 0.3), y=(-0.25, 0.25), z=(-0.01, 0.1)), MotionSettings(clearance_m=0.06, approach_m=0.04))
ARMS = {"fr3_parallel_jaw": TABLE, "ur5e_suction": TABLE, "ur5e_parallel_jaw": TABLE, "so101": DESK}


def positions(model: RobotModel, count: int) -> np.ndarray:
    shape = (count, len(model.joint_names))
    return np.random.default_rng(0).uniform(model.limits.lower, model.limits.upper, shape)


def denavit_hartenberg(rows: list[tuple[float, float, float]], q: np.ndarray) -> np.ndarray:
    """Pose (4, 4) of the last frame for rows of (a, d, alpha)."""
    pose = np.eye(4)
    for (a, d, alpha), theta in zip(rows, q, strict=True):
        c, s, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
        pose = pose @ [[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]]
    return pose


def test_the_ur5e_stands_where_its_published_parameters_put_it() -> None:
    h = np.pi / 2
    rows = [(0, 0.1625, h), (-0.425, 0, 0), (-0.3922, 0, 0), (0, 0.1333, h), (0, 0.0997, -h), (0, 0.0996 + 0.1, 0)]
    model = RobotModel.load("ur5e_suction")  # the cup's mouth is 0.1 m off the flange
    about = np.diag([-1.0, -1.0, 1.0, 1.0])  # the parameters hold in the frame `base`, turned against base_link
    for q in positions(model, 30):
        np.testing.assert_allclose(model.forward(q), about @ denavit_hartenberg(rows, q), atol=1e-9)


def test_the_fr3_has_the_links_of_the_panda_and_limits_of_its_own() -> None:
    fr3, panda = RobotModel.load("fr3_suction"), RobotModel.load("panda_suction")
    for q in positions(fr3, 10):
        np.testing.assert_allclose(fr3.forward(q), panda.forward(q), atol=1e-12)
    assert fr3.joint_names == tuple(name.replace("panda", "fr3") for name in panda.joint_names)
    assert fr3.limits.upper[3] == -0.1518
    assert (fr3.limits.velocity <= 3.0).all()
    assert not np.allclose(fr3.limits.upper, panda.limits.upper)


def test_the_so101_has_the_published_lengths() -> None:
    model = RobotModel.load("so101")
    assert model.joint_names == ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
    assert model.finger_joints == ("gripper",)
    pan, lift, elbow, wrist, _, tip = model.link_positions(np.zeros((1, 5)))[0]
    assert np.linalg.norm(elbow - lift) == pytest.approx(0.116, abs=1e-3)
    assert np.linalg.norm(wrist - elbow) == pytest.approx(0.135, abs=1e-3)
    np.testing.assert_allclose(tip - wrist, [0.0611 + 0.0981, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(lift - pan, [0.0304, 0.0, 0.0542], atol=1e-9)
    lowered = model.link_positions(np.array([[0.0, 0.2, 0.3, 0.4, 0.0]]))[0]
    assert lowered[-1, 2] < tip[2]  # positive lift, elbow and wrist lean down


@pytest.mark.parametrize("name", ARMS)
def test_home_looks_straight_down_and_keeps_off_the_limits(name: str) -> None:
    model = RobotModel.load(name)
    np.testing.assert_allclose(model.forward(model.home)[:3, 2], [0, 0, -1], atol=1e-5)
    room = np.minimum(model.home - model.limits.lower, model.limits.upper - model.home)
    assert room.min() > 0.05


@pytest.mark.parametrize("name", ARMS)
def test_inverse_and_forward_kinematics_agree(name: str) -> None:
    model = RobotModel.load(name)
    rng = np.random.default_rng(1)
    for _ in range(25):
        q = model.home + rng.uniform(-0.3, 0.3, len(model.home))
        q = np.clip(q, model.limits.lower + 0.02, model.limits.upper - 0.02)
        found = model.inverse(model.forward(q), model.home)
        np.testing.assert_allclose(model.forward(found), model.forward(q), atol=1e-5)
        assert (found >= model.limits.lower).all()
        assert (found <= model.limits.upper).all()


@pytest.mark.parametrize("name", ARMS)
def test_the_whole_reach_is_reached_from_table_to_travel_height(name: str) -> None:
    model = RobotModel.load(name)
    travel = ARMS[name][1].clearance_m
    for radius in np.linspace(*model.reach_m, 5):
        for angle in (-1.0, 0.0, 0.9):
            for height in (0.01, travel):
                pose = tool_down(radius * np.cos(angle), radius * np.sin(angle), height, 0.4)
                q = solve_pose(model, pose, model.home, free_spin=True)
                np.testing.assert_allclose(model.forward(q)[:3, 2:], pose[:3, 2:], atol=1e-5)


@pytest.mark.parametrize("name", ARMS)
def test_picks_and_places_are_planned_and_pass_the_guard(name: str) -> None:
    model = RobotModel.load(name)
    workspace, settings = ARMS[name]
    guard = Guard(model, workspace)
    rng = np.random.default_rng(5)
    done = 0
    for _ in range(12):
        poses = []
        for _ in range(2):
            radius, angle = rng.uniform(*model.reach_m), rng.uniform(-0.9, 0.9)
            poses.append(tool_down(radius * np.cos(angle), radius * np.sin(angle), 0.02, rng.uniform(-1.5, 1.5)))
        try:
            motion = plan_pick_place(model, model.home, PickPlace(pick=poses[0], place=poses[1]), settings)
        except Refused:  # the last joint cannot turn as far as the object shall
            continue
        guard.check_motion(motion, model.home, 10**9, 10**9)
        taken, let_go = (motion.segments[index].trajectory.positions[-1] for index in (1, 4))
        for q, pose in ((taken, poses[0]), (let_go, poses[1])):
            np.testing.assert_allclose(model.forward(q)[:3, 2:], pose[:3, 2:], atol=1e-5)
        done += 1
    assert done >= 10


def test_an_arm_of_five_joints_refuses_what_it_cannot_do_and_says_why() -> None:
    model = RobotModel.load("so101")
    sideways = tool_down(0.2, 0.0, 0.03)
    c, s = np.cos(0.4), np.sin(0.4)
    sideways[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ sideways[:3, :3]
    for pose in (sideways, tool_down(0.4, 0.0, 0.03), tool_down(0.2, 0.0, 0.15)):
        with pytest.raises(Refused, match="with 5 joints the tool can only lean") as error:
            model.inverse(pose, model.home)
        assert error.value.rule == "unreachable"


def test_an_integrator_names_a_urdf_of_their_own_by_its_path(tmp_path: Path) -> None:
    description = yaml.safe_load((ROBOTS / "ur5e.yaml").read_text())
    description.update(urdf=str(ROBOTS / "ur5e.urdf"), tool=str(TOOLS / "suction.yaml"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(description))
    mine = RobotModel.load(str(tmp_path / "mine.yaml"))
    np.testing.assert_array_equal(mine.forward(mine.home), RobotModel.load("ur5e_suction").forward(mine.home))
    description["urdf"] = "/nowhere/robot.urdf"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(BadInput, match=r"/nowhere/robot\.urdf, which is not there"):
        RobotModel.load(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"home": {"elbow_joint": "bent"}}, "'bent'"),
        ({"home": {"elbow_joint": float("nan")}}, "not finite"),
        ({"home": {"elbow_joint": 5.0}}, "home of elbow_joint is 5 rad, outside its limits 0.05 to 3"),
        ({"gripper_s": "slow"}, "'slow'"),
        ({"gripper_s": -1.0}, "gripper_s is no less than 0"),
        ({"reach_m": [0.7, 0.3]}, "reach_m rises"),
        ({"posture": {"knee": 1.0}}, "posture names the URDF's joints"),
    ],
)
def test_a_number_that_is_none_is_found_on_loading(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    description = yaml.safe_load((ROBOTS / "ur5e.yaml").read_text())
    description.update(urdf=str(ROBOTS / "ur5e.urdf"), tool=str(TOOLS / "suction.yaml"))
    if isinstance(home := changes.get("home"), dict):
        changes = {"home": {**description["home"], **home}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**description, **changes}))
    with pytest.raises(BadInput, match=re.escape(message)):
        RobotModel.load(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("content", [b"urdf: [", b"\xff\xfe\x00"])
def test_a_file_that_is_no_yaml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(BadInput, match=r"mine\.yaml is no YAML"):
        RobotModel.load(str(tmp_path / "mine.yaml"))


def test_a_whole_robot_is_loaded_by_its_name() -> None:
    assert shipped_robots() == ["so101"]
    assert RobotModel.load("so101").tool == ""

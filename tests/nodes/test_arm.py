"""The arm node in front of a robot that is not simulated: its ways out, what it hears of the robot, and its dry run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Bool, Float64, String
from trajectory_msgs.msg import JointTrajectory

from embodied_vision import topics
from embodied_vision.control.robot import RobotModel
from embodied_vision.geometry import tool_down
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from embodied_vision.nodes.conversions import pick_place_to_poses, to_json
from embodied_vision.nodes.trace import Mark, read_marks
from embodied_vision.paths import PACKAGE
from embodied_vision.types import PickPlace
from tests.nodes.conftest import Graph, until
from tests.nodes.fake_robot import FakeRobot
from tests.ros_interfaces.build import build

pytestmark = pytest.mark.system
MODEL = RobotModel.load("panda_suction")
ALONE = {"upstream": [""], "cameras": [""], "resume_within": 0.5}
"""An arm that depends on nobody but the robot."""


class Desk:
    """Somebody who gives decisions to an arm node and watches what it says."""

    def __init__(self, graph: Graph, model: RobotModel = MODEL) -> None:
        self.graph = graph
        self.robot = FakeRobot(graph.client.node, model)
        graph.client.watch("arm/status")
        node = graph.client.node
        self._poses: Publisher[PoseArray] = node.create_publisher(PoseArray, "pick_place", qos.DECISION)
        self._decisions: Publisher[String] = node.create_publisher(String, "policy/decision", qos.DECISION)

    def joined(self) -> None:
        ways = (self._poses, self._decisions, self.robot._joints)
        until(lambda: all(way.get_subscription_count() for way in ways), what="the arm")
        time.sleep(0.5)  # some joint states

    @property
    def status(self) -> dict[str, Any]:
        return (self.graph.client.messages("arm/status") or [{}])[-1]

    @property
    def readers(self) -> set[str]:
        """Nodes that read the arm's trajectories."""
        found = self.graph.client.node.get_subscriptions_info_by_topic("arm/joint_trajectory")
        return {one.node_name for one in found}

    def wait(self, accept: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        return self.graph.wait("arm/status", accept, *self.graph.processes)

    def decide(self, **changes: Any) -> PickPlace:
        pick, place = tool_down(0.5, -0.1, 0.1, 0.0), tool_down(0.5, 0.1, 0.1, 0.0)
        action = replace(PickPlace(pick=pick, place=place, stamp_ns=time.time_ns()), **changes)
        self._decisions.publish(to_json(action.to_dict()))
        self._poses.publish(pick_place_to_poses(action))
        self.wait(lambda s: s["decision_id"] == action.decision_id)
        return action

    def ended(self) -> dict[str, Any]:
        return self.wait(lambda s: s["state"] not in ("moving", "paused"))

    def back(self) -> None:
        """Make the arm ready for the next test."""
        if self.status["state"] == "stopped":
            self.graph.client.trigger("arm/resume")
        self.wait(lambda s: s["state"] == "idle" and not s["lost"])
        self.graph.client.trigger("arm/home", 30)


def test_a_dry_run_does_everything_but_command(graph: Graph) -> None:
    desk = Desk(graph)
    tried: list[JointTrajectory] = []
    gripped: list[float] = []
    graph.subscribe(JointTrajectory, "arm/dry_run/joint_trajectory", tried.append, qos.LOG)
    graph.subscribe(Float64, "arm/dry_run/gripper_command", lambda m: gripped.append(m.data), qos.LOG)
    extra = {"program_running_topic": "running", "grasp_check": "vacuum", "command_interface": "action"}
    graph.start("arm", **ALONE, dry_run=True, **extra)
    desk.joined()
    desk.decide()
    assert desk.wait(lambda s: s["state"] == "moving")["dry_run"]
    status = desk.ended()
    assert (status["done"], status["refusals"], status["dry_run"]) == (True, 0, True)
    assert len(tried) > 20
    assert gripped == [0.0, 1.0]
    lowest = min(MODEL.forward(np.array(p.positions))[2, 3] for m in tried for p in m.points)
    assert lowest == pytest.approx(0.1, abs=2e-3)
    assert (desk.robot.trajectories, desk.robot.grips) == (0, [])
    np.testing.assert_allclose(desk.robot.positions, MODEL.home)
    names = [topic for topic, _ in graph.client.node.get_topic_names_and_types()]
    assert not {name for name in names if name.startswith("/arm/follow_joint_trajectory")}
    desk.decide(pick=tool_down(0.5, 0.0, -0.05))
    assert desk.status["refused"] == "workspace"


@pytest.mark.parametrize(
    ("name", "pick", "place"),
    [
        ("arm_fr3", tool_down(0.5, -0.1, 0.1), tool_down(0.5, 0.1, 0.1)),
        ("arm_ur5e", tool_down(0.5, -0.1, 0.1), tool_down(0.5, 0.1, 0.1)),
        ("arm_so101", tool_down(0.2, -0.05, 0.02), tool_down(0.2, 0.05, 0.02)),
    ],
)
def test_the_examples_of_real_arms_work_dry(graph: Graph, name: str, pick: np.ndarray, place: np.ndarray) -> None:
    example = PACKAGE / "config" / f"{name}.yaml"
    model = RobotModel.load(yaml.safe_load(example.read_text())["/**/arm"]["ros__parameters"]["robot"])
    desk = Desk(graph, model)
    around = str(PACKAGE / "config" / "so101_desk.yaml") if name == "arm_so101" else ""
    quick = {**ALONE, "dry_run": True, "speed": 1.0, "home_speed": 1.0, "gripper_time": 0.1, "surroundings": around}
    graph.start("arm", extra=["--params-file", str(example), "--ros-args", *parameters(quick)])
    desk.joined()
    desk.decide(pick=pick, place=place)
    status = desk.ended()
    assert (status["done"], status["refusals"]) == (True, 0), status["reason"]
    assert desk.robot.trajectories == 0
    desk.decide(pick=tool_down(0.9, 0.0, 0.05), place=place)
    assert desk.status["refused"] in ("workspace", "unreachable")


def parameters(values: dict[str, Any]) -> list[str]:
    """ROS arguments that win over a file, which is for nodes of one name as well."""
    return [part for key, value in values.items() for part in ("-p", f"arm:{key}:={json.dumps(value)}")]


@pytest.fixture(scope="module")
def desk(shared_graph: Graph) -> Desk:
    """An arm that reads all that a robot may say, on topics."""
    desk = Desk(shared_graph)
    topics = {"program_running_topic": "running", "robot_mode_topic": "mode", "speed_scaling_topic": "scaling"}
    shared_graph.start("arm", **ALONE, **topics, grasp_check="vacuum", home_speed=1.0)
    desk.joined()
    node = shared_graph.client.node
    says = {
        "running": node.create_publisher(Bool, "running", qos.STATUS),
        "mode": node.create_publisher(String, "mode", qos.SENSOR),  # a relay that does not latch
    }
    desk.say = {name: publisher.publish for name, publisher in says.items()}  # type: ignore[attr-defined]
    scaling = node.create_publisher(Float64, "scaling", qos.SENSOR)
    holding = node.create_publisher(Bool, "gripper/holding", qos.SENSOR)
    desk.percent, desk.held = None, lambda: False  # type: ignore[attr-defined]

    def tell() -> None:
        percent = desk.percent  # type: ignore[attr-defined]
        scaling.publish(Float64(data=100.0 * desk.robot.pace if percent is None else percent))
        holding.publish(Bool(data=desk.held()))  # type: ignore[attr-defined]

    node.create_timer(0.05, tell)
    return desk


@pytest.fixture
def robot(desk: Desk) -> Any:
    """The desk of an arm whose robot is ready and whose gripper holds whatever it closes on."""
    said: Any = desk
    said.say["running"](Bool(data=True))
    said.say["mode"](String(data="RUNNING"))
    said.held = lambda: bool(desk.robot.grips) and desk.robot.grips[-1] == 0.0
    said.percent, desk.robot.pace = None, 1.0
    desk.back()
    desk.robot.grips.clear()
    return desk


def test_a_robot_that_was_not_heard_is_not_moved(desk: Any) -> None:
    desk.wait(lambda s: s["lost"] == "program_running, robot_mode")
    sent = desk.robot.trajectories
    desk.decide()
    assert desk.status["refused"] == "lost"
    desk.say["running"](Bool(data=True))
    desk.wait(lambda s: s["lost"] == "robot_mode")

    def told() -> bool:
        desk.say["mode"](String(data="IDLE"))
        desk.decide()
        return "the robot's mode is 'IDLE', it moves in RUNNING" in desk.status["reason"]

    until(told, 5.0, "the mode in words")
    assert desk.robot.trajectories == sent


def test_a_decision_is_carried_out_with_its_grasp_confirmed(robot: Any) -> None:
    refusals = robot.status["refusals"]
    robot.decide()
    status = robot.ended()
    assert (status["done"], status["failed"], status["refusals"]) == (True, "", refusals)
    assert robot.robot.grips == [0.0, 1.0]


def test_a_missed_grasp_comes_home_with_the_gripper_open(robot: Any) -> None:
    robot.held = lambda: False
    robot.decide()
    status = robot.ended()
    assert (status["done"], status["aborted"], status["failed"]) == (False, False, "grasp_missed")
    assert robot.robot.grips == [0.0, 1.0, 1.0]
    np.testing.assert_allclose(robot.robot.positions, MODEL.home, atol=1e-3)


@pytest.mark.parametrize(
    ("topic", "message"), [("running", Bool(data=False)), ("mode", String(data="PROTECTIVE_STOP"))]
)
def test_a_robot_that_stops_by_itself_gets_nothing_more(robot: Any, topic: str, message: Any) -> None:
    robot.decide()
    until(lambda: robot.robot.speed > 0.2, what="motion")
    robot.say[topic](message)
    status = robot.wait(lambda s: s["state"] == "stopped")
    assert status["aborted"]
    until(lambda: robot.robot.speed == 0.0, 2.0, "the horizon's own end")
    sent = robot.robot.trajectories
    robot.say["running"](Bool(data=True))
    robot.say["mode"](String(data="RUNNING"))
    robot.wait(lambda s: not s["lost"])
    robot.decide()
    assert robot.status["refused"] == "stopped"
    assert robot.robot.trajectories == sent


def test_a_slow_robot_is_followed_not_chased(robot: Any) -> None:
    robot.robot.pace = 0.5
    robot.wait(lambda s: s["speed_scaling"] == 0.5)
    before = robot.status["refusals"]
    start_s = time.monotonic()
    robot.decide()
    until(lambda: robot.robot.speed > 0.1, what="motion")
    robot.robot.pace = 0.0
    robot.wait(lambda s: s["speed_scaling"] == 0.0)
    sent = robot.robot.trajectories
    until(lambda: time.monotonic() > start_s + 3.0, what="time")
    assert robot.status["state"] == "moving"
    assert robot.robot.trajectories <= sent + 1
    robot.robot.pace = 0.7
    status = robot.ended()
    assert (status["done"], status["refusals"]) == (True, before), status


def test_a_speed_scaling_that_is_none_pauses_the_arm(robot: Any) -> None:
    robot.decide()
    until(lambda: robot.robot.speed > 0.2, what="motion")
    robot.percent = float("nan")
    status = robot.wait(lambda s: s["state"] == "paused")
    assert "speed_scaling" in status["lost"]
    robot.percent = None
    assert not robot.ended()["failed"]


# ---- actions


@pytest.fixture(scope="module")
def actions() -> Iterator[Path]:
    """Folder of control_msgs, importable here and in the nodes."""
    folder = build()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture
def acted(graph: Graph, actions: Path) -> Desk:
    """An arm whose commands go out as actions."""
    import control_msgs.action

    graph.variables = {**graph.variables, "PYTHONPATH": str(actions)}
    desk = Desk(graph)
    desk.robot.fingers = ("finger", 0.0)
    ways = {"command_interface": "action", "gripper_interface": "action", "gripper_joint": "finger"}
    checks = {"grasp_check": "width", "finger_joints": ["finger"], "home_speed": 1.0}
    graph.start("arm", **ALONE, **ways, **checks)
    desk.joined()
    desk.wait(lambda s: s["lost"] == "trajectory action, gripper action")
    desk.robot.serve_actions(control_msgs.action)
    desk.wait(lambda s: not s["lost"])
    return desk


def test_goals_replace_each_other_and_what_goes_wrong_stops_the_arm(acted: Desk) -> None:
    robot = acted.robot
    robot.fingers = ("finger", 0.03)
    acted.decide()
    status = acted.ended()
    assert (status["done"], status["failed"]) == (True, "")
    assert (robot.goals > 20, robot.trajectories, robot.grips) == (True, 0, [0.0, 0.04])
    np.testing.assert_allclose(robot.positions, MODEL.home, atol=1e-3)

    robot.mute = True  # results that never come
    acted.decide()
    assert acted.ended()["done"]
    robot.mute = False

    robot.fingers = ("finger", 0.001)
    acted.decide()
    assert acted.ended()["failed"] == "grasp_missed"
    robot.fingers = ("finger", 0.03)

    acted.decide()
    until(lambda: robot.speed > 0.2, what="motion")
    robot.abort = -4
    status = acted.wait(lambda s: s["state"] == "stopped")
    assert "PATH_TOLERANCE_VIOLATED so it is" in status["reason"]
    until(lambda: robot.speed == 0.0, 2.0, "rest")
    acted.back()

    acted.decide()
    until(lambda: robot.speed > 0.2, what="motion")
    robot.reject = True
    assert "rejected" in acted.wait(lambda s: s["state"] == "stopped")["reason"]
    robot.reject = False
    until(lambda: robot.speed == 0.0, 2.0, "rest")
    acted.back()

    acted.decide()
    until(lambda: robot.speed > 0.2, what="motion")
    acted.graph.client.trigger("arm/stop")
    goals = robot.goals
    assert acted.status["reason"] == "stopped by ~/stop"
    until(lambda: robot.speed == 0.0, 1.0, "the brake")
    assert robot.goals <= goals + 1
    acted.back()

    node = acted.graph.client.node
    rival = node.create_publisher(JointTrajectory, "arm/joint_trajectory", qos.COMMAND)
    assert "arm/joint_trajectory" in acted.wait(lambda s: s["state"] == "stopped")["reason"]
    node.destroy_publisher(rival)
    until(lambda: not node.get_publishers_info_by_topic("arm/joint_trajectory"), what="the rival's end")
    acted.back()

    acted.decide()
    until(lambda: robot.speed > 0.2, what="motion")
    robot.server.destroy()
    assert "no action server" in acted.wait(lambda s: s["state"] == "stopped")["reason"]
    until(lambda: robot.speed == 0.0, 1.0, "the horizon's own end")


DEAF = """
import rclpy
from trajectory_msgs.msg import JointTrajectory
from embodied_vision.nodes import qos
rclpy.init()
node = rclpy.create_node("deaf")
node.create_subscription(JointTrajectory, "arm/joint_trajectory", print, qos.COMMAND)
rclpy.spin(node)
"""


def test_the_arm_moves_once_all_who_read_its_trajectories_have_taken_one(graph: Graph) -> None:
    desk = Desk(graph)
    graph.start("arm", **ALONE, observation_age=10.0)
    desk.joined()
    node = graph.client.node
    node.destroy_subscription(desk.robot.reader)
    desk.decide()
    assert "nobody reads /arm/joint_trajectory" in desk.wait(lambda s: s["state"] == "paused")["reason"]
    assert desk.wait(lambda s: s["state"] == "idle")["aborted"]

    desk.robot.read()
    desk.decide()
    assert desk.ended()["done"]

    marks: list[Mark] = []
    graph.subscribe(DiagnosticArray, "trace", lambda message: marks.extend(read_marks(message)), qos.TRACE)
    deaf = subprocess.Popen([sys.executable, "-c", DEAF], env=dict(graph.variables))
    try:
        until(lambda: "deaf" in desk.readers, what="the deaf reader")
        time.sleep(0.5)  # the arm knows it as well
        deaf.send_signal(signal.SIGSTOP)
        stopped_s, sent = time.monotonic(), desk.robot.trajectories
        action = desk.decide()
        until(lambda: desk.robot.trajectories > sent, what="the first hold")
        until(lambda: desk.robot.speed > 0.1, what=lambda: f"motion once it is forgotten: {desk.status}")
        waited_s = time.monotonic() - stopped_s
    finally:
        deaf.kill()
        deaf.wait()
    assert desk.ended()["done"], desk.status
    assert waited_s > 1.0, waited_s
    took_ns = {mark.stage: mark.monotonic_ns for mark in marks if mark.stamp_ns == action.stamp_ns}
    assert took_ns["arm.publish"] - took_ns["arm.receive"] > 1e9, "a hold was taken for the answer"


def test_a_driver_whose_reader_comes_late_misses_nothing_of_the_motion(graph: Graph) -> None:
    """Others listen already: that they have heard all does not help an arm whose driver has not."""
    desk = Desk(graph)
    graph.start("arm", **ALONE, observation_age=10.0)
    desk.joined()
    node, robot = graph.client.node, desk.robot
    node.destroy_subscription(robot.reader)
    with GraphClient(domain_id=int(graph.variables["ROS_DOMAIN_ID"])) as other:
        moved: list[bool] = []

        def listen(message: JointTrajectory) -> None:
            moved.append(any(abs(v) > 0 for point in message.points for v in point.velocities))

        other.node.create_subscription(JointTrajectory, "arm/joint_trajectory", listen, qos.COMMAND)
        until(lambda: len(desk.readers) == 1, what="the other reader")
        desk.decide()
        until(lambda: moved, what="the first hold")
        assert not any(moved), "it moves although its driver does not read"
        robot.read()
        until(lambda: robot.speed > 0.1, what=lambda: f"motion: {desk.status}")
        assert desk.ended()["done"], desk.status
        node.destroy_subscription(robot.reader)
        desk.decide()  # a driver whose joints are told by another process is waited for in vain
        del moved[:]
        until(lambda: any(moved), 3.0, what="a motion all the same")


class QuickCamera:
    """A camera whose every picture is told of at once, before the joints have said where they were then.

    Attributes:
        live: whether its pictures change.
    """

    def __init__(self, graph: Graph, live: bool) -> None:
        node = graph.client.node
        self.live, self._row_ns = live, time.time_ns()
        self._infos = node.create_publisher(CameraInfo, topics.color_info("camera"), qos.SENSOR)
        self._health = node.create_publisher(String, topics.health("camera"), qos.SENSOR)
        node.create_timer(0.05, self._tell)

    def _tell(self) -> None:
        stamp_ns = time.time_ns() + 20_000_000
        self._row_ns = stamp_ns if self.live else self._row_ns
        self._infos.publish(CameraInfo())
        self._health.publish(to_json({"stamp_ns": stamp_ns, "problem": "", "unchanged_ns": self._row_ns}))


def test_a_quick_camera_that_freezes_pauses_the_arm_until_its_picture_changes(graph: Graph) -> None:
    desk = Desk(graph)
    camera = QuickCamera(graph, live=True)
    graph.start("arm", **{**ALONE, "cameras": ["camera"], "resume_within": 5.0})
    desk.joined()
    desk.decide()
    desk.wait(lambda s: s["segment"] == "transfer")
    camera.live = False
    reason = desk.wait(lambda s: s["state"] == "paused")["reason"]
    assert "stays the same" in reason
    until(lambda: desk.robot.speed == 0.0, what="the arm stands")
    stands = desk.robot.positions
    time.sleep(1.0)
    assert desk.status["state"] == "paused"
    np.testing.assert_array_equal(desk.robot.positions, stands)
    camera.live = True
    assert desk.ended()["done"]


def test_without_control_msgs_it_says_what_to_install(graph: Graph) -> None:
    process = graph.start("arm", wait=False, **ALONE, command_interface="action")
    until(lambda: process.exit_code() is not None, what="the end")
    assert process.exit_code() == 2
    said = process.last_lines(30)
    assert "control_msgs" in said
    assert "set command_interface to 'topic'" in said


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"grasp_check": "hope"}, "give one of none, vacuum, width"),
        ({"grasp_check": "width"}, "give finger_joints"),
        ({"command_interface": "serial"}, "give topic or action"),
        ({"held_between": [0.1, 0.1]}, "held_between"),
        ({"trajectory_action": ""}, "give the name of an action"),
    ],
)
def test_wrong_parameters_end_the_node_by_name(graph: Graph, parameters: dict[str, Any], message: str) -> None:
    process = graph.start("arm", wait=False, **ALONE, **parameters)
    until(lambda: process.exit_code() is not None, what="the end")
    assert process.exit_code() == 2
    assert message in process.last_lines(30)

"""The simulated robot's driver as a process: topic and actions, tolerances, replacing, cancelling, its own limits."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory

from embodied_vision.control.planning import Pace, plan_joint
from embodied_vision.control.robot import RobotModel
from embodied_vision.launching.graph import NodeSpec
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import JointSamples, ns_to_stamp, samples_to_trajectory
from tests.ros_interfaces.build import build
from tests.system.rig import CELL, START_S, Rig, until

pytestmark = pytest.mark.system
DRIVER = NodeSpec("driver", "embodied_vision_sim.driver_node", 1)
TASK, SEED = "block-insertion", 2_000_010
MODEL = RobotModel.load()
HOME = np.asarray(MODEL.home, float)
AT_HOME_RAD = 2e-4


def swing(turn: float, first: int = 0) -> np.ndarray:
    goal = HOME.copy()
    goal[first] += turn
    return goal


def move(start: np.ndarray, goal: np.ndarray, *, stretch: float = 1.0) -> JointTrajectory:
    """A planned motion as a message; `stretch` below 1 hurries it beyond what was planned."""
    path = plan_joint(MODEL, start, goal, Pace())
    rows = path.times_s > 0.03
    samples = JointSamples(
        path.times_s[rows] * stretch,
        path.positions[rows],
        path.velocities[rows] / stretch,
        path.accelerations[rows] / stretch**2,
    )
    return samples_to_trajectory(MODEL.joint_names, samples)


def reach(goal: np.ndarray, time_s: float) -> JointTrajectory:
    """From wherever the arm is."""
    still = np.zeros((1, len(goal)))
    return samples_to_trajectory(MODEL.joint_names, JointSamples(np.array([time_s]), goal[None], still, still))


class Bench:
    """The rig with its action clients.

    Attributes:
        rig: processes and their topics.
        actions, messages: modules of control_msgs.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.actions: Any = importlib.import_module("control_msgs.action")
        self.messages: Any = importlib.import_module("control_msgs.msg")
        node = rig.client.node
        self._follow: Any = ActionClient(node, self.actions.FollowJointTrajectory, "arm/follow_joint_trajectory")
        self._gripper: Any = ActionClient(node, self.actions.ParallelGripperCommand, "gripper/gripper_cmd")
        self.commands = node.create_publisher(JointTrajectory, "arm/joint_trajectory", qos.COMMAND)
        self.gripper_commands = node.create_publisher(Float64, "gripper/command", qos.COMMAND)
        self.feedback: list[Any] = []
        rig.client.watch("driver/status")
        assert self._follow.wait_for_server(20.0)
        assert self._gripper.wait_for_server(20.0)
        until(self.commands.get_subscription_count, 20, "the driver to listen")
        self.account()

    def wait(self, future: Future[Any], what: str) -> Any:
        until(future.done, 15, what)
        return future.result()

    def send(self, trajectory: JointTrajectory, **tolerances: Any) -> Any:
        """Send a goal; its handle."""
        goal = self.actions.FollowJointTrajectory.Goal(trajectory=trajectory, **tolerances)
        self.feedback = heard = []
        return self.wait(self._follow.send_goal_async(goal, lambda m: heard.append(m.feedback)), "the goal's answer")

    def result(self, handle: Any) -> tuple[int, Any]:
        """Status and result of a goal."""
        assert handle.accepted
        answer = self.wait(handle.get_result_async(), "the goal's result")
        return answer.status, answer.result

    def grip(self, position: float) -> Any:
        goal = self.actions.ParallelGripperCommand.Goal(command=JointState(position=[position]))
        return self.wait(self._gripper.send_goal_async(goal), "the gripper's answer")

    def tolerance(self, position: float) -> list[Any]:
        return [self.messages.JointTolerance(name=name, position=position) for name in MODEL.joint_names]

    def account(self) -> dict[str, Any]:
        """What the driver counts, told after this call."""
        now_ns = time.time_ns()
        return self.rig.client.wait("driver/status", lambda s: s["stamp_ns"] > now_ns, 5)

    def rest_at(self, goal: np.ndarray) -> None:
        """Wait until the arm rests there."""
        rig = self.rig
        until(lambda: np.abs(rig.positions - goal).max() < 1e-3 and rig.speeds[-1][1] < 1e-3, 10, "the arm to arrive")

    def go_home(self) -> None:
        """An arm that was halted near by is not at home: a trajectory from there would have to make up for it."""
        until(lambda: self.rig.speeds[-1][1] < 1e-3, 10, "the arm to rest")
        start = self.rig.positions.copy()
        off = np.abs(start - HOME).max()
        if off > AT_HOME_RAD:
            way = reach(HOME, 0.3) if off < 1e-2 else move(start, HOME)
            assert self.result(self.send(way))[0] == GoalStatus.STATUS_SUCCEEDED
            self.rest_at(HOME)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = str(build())
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(folder)
    patch.setenv("PYTHONPATH", folder)
    parameters = {"cell": {"driven": True, "seed": SEED, "camera_rate": 5.0}}
    try:
        with Rig(tmp_path_factory.mktemp("driver"), (CELL, DRIVER), parameters) as rig:
            rig.cell.wait_active(START_S)
            until(lambda: rig.frames and rig.speeds and rig.depth, 20, "frames and joint states")
            yield Bench(rig)
    finally:
        patch.undo()


@pytest.fixture(autouse=True)
def at_home(bench: Bench) -> Iterator[None]:
    """Every test begins at home, and none makes the stream break a limit."""
    bench.go_home()
    yield
    assert bench.account()["violations"] == {}


def test_a_trajectory_on_the_topic_is_followed_and_judged(bench: Bench) -> None:
    motions = bench.rig.status("outcome")["motions"]
    bench.commands.publish(move(HOME, swing(0.4)))
    bench.rest_at(swing(0.4))
    bench.rig.client.wait("outcome", lambda o: o["motions"] == motions + 1, 10)


def test_a_goal_is_reached_with_feedback(bench: Bench) -> None:
    handle = bench.send(move(HOME, swing(0.6)))
    assert handle.accepted
    status, result = bench.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_SUCCEEDED, result.SUCCESSFUL)
    np.testing.assert_allclose(bench.rig.positions, swing(0.6), atol=0.02)
    assert len(bench.feedback) >= 5
    middle = bench.feedback[len(bench.feedback) // 2]
    assert list(middle.joint_names) == list(MODEL.joint_names)
    np.testing.assert_allclose(
        np.array(middle.desired.positions) - middle.actual.positions, middle.error.positions, atol=1e-9
    )
    assert np.abs(middle.error.positions).max() < 0.1


def test_a_new_goal_replaces_the_running_one(bench: Bench) -> None:
    first = bench.send(move(HOME, swing(1.0)))
    bench.rig.wait_moving()
    goal = swing(0.5)
    second = bench.send(reach(goal, 2.0))
    status, result = bench.result(first)
    assert status == GoalStatus.STATUS_CANCELED
    assert "took its place" in result.error_string
    assert bench.result(second)[0] == GoalStatus.STATUS_SUCCEEDED
    bench.rest_at(goal)


def test_a_cancelled_goal_leaves_the_arm_standing(bench: Bench) -> None:
    handle = bench.send(move(HOME, swing(1.2)))
    bench.rig.wait_moving()
    asked_ns = time.time_ns()
    answer = bench.wait(handle.cancel_goal_async(), "the cancellation")
    assert len(answer.goals_canceling) == 1
    assert bench.rig.still_after_s(asked_ns) < 0.5
    assert bench.result(handle)[0] == GoalStatus.STATUS_CANCELED
    assert np.abs(bench.rig.positions - swing(1.2)).max() > 0.2


def test_a_goal_that_cannot_be_reached_so_exactly_is_aborted(bench: Bench) -> None:
    goal = {"goal_tolerance": bench.tolerance(1e-9)}
    handle = bench.send(move(HOME, swing(0.3)), **goal)
    status, result = bench.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, result.GOAL_TOLERANCE_VIOLATED)
    assert "rad away" in result.error_string


def test_an_arm_that_leaves_its_path_is_halted(bench: Bench) -> None:
    handle = bench.send(move(HOME, swing(1.2)), path_tolerance=bench.tolerance(1e-5))
    status, result = bench.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, result.PATH_TOLERANCE_VIOLATED)
    assert bench.rig.still_after_s(time.time_ns()) < 0.5
    assert np.abs(bench.rig.positions - swing(1.2)).max() > 0.2


def test_what_breaks_the_drivers_limits_is_refused(bench: Bench) -> None:
    before = bench.account()
    start = len(bench.rig.speeds)
    assert not bench.send(move(HOME, swing(1.0), stretch=0.5)).accepted
    bench.commands.publish(move(HOME, swing(1.0), stretch=0.5))
    until(lambda: sum(bench.account()["refused"].values()) == sum(before["refused"].values()) + 2, 5, "two refusals")
    assert bench.account()["accepted"] == before["accepted"]
    assert max(speed for _, speed in bench.rig.speeds[start:]) < 0.02


@pytest.mark.parametrize("damage", ["non_finite", "other_joints", "empty", "late", "unknown_tolerance"])
def test_what_no_driver_could_follow_is_rejected(bench: Bench, damage: str) -> None:
    message, tolerances = move(HOME, swing(0.3)), {}
    if damage == "non_finite":
        message.points[3].positions[2] = float("nan")
    elif damage == "other_joints":
        message.joint_names[0] = "joint_a"
    elif damage == "empty":
        message.points = []
    elif damage == "late":
        message.header.stamp = ns_to_stamp(time.time_ns() - 10_000_000_000)
    else:
        tolerances["path_tolerance"] = [bench.messages.JointTolerance(name="elbow", position=0.1)]
    start = len(bench.rig.speeds)
    assert not bench.send(message, **tolerances).accepted
    time.sleep(0.3)
    assert max(speed for _, speed in bench.rig.speeds[start:]) < 0.02


def test_a_stamped_trajectory_is_entered_midway(bench: Bench) -> None:
    """Two messages with one start: the second, sent later, changes nothing."""
    before = bench.account()["acceleration_share"]
    message = move(HOME, swing(0.8))
    message.header.stamp = ns_to_stamp(time.time_ns() + 200_000_000)
    first = bench.send(message)
    for _ in range(5):
        time.sleep(0.05)
        last = bench.send(message)
        assert last.accepted
    assert bench.result(first)[0] == GoalStatus.STATUS_CANCELED
    assert bench.result(last)[0] == GoalStatus.STATUS_SUCCEEDED
    assert bench.account()["acceleration_share"] <= max(before, 0.8)


def test_the_gripper_follows_goals_and_commands(bench: Bench) -> None:
    assert not bench.grip(0.5).accepted
    assert not bench.grip(float("nan")).accepted
    status, result = bench.result(bench.grip(0.0))
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert (result.reached_goal, result.stalled) == (True, False)
    until(bench.gripper_commands.get_subscription_count, 10, "the driver to listen")
    bench.gripper_commands.publish(Float64(data=1.0))


def test_a_second_driver_does_not_move_the_arm(bench: Bench) -> None:
    rig = bench.rig
    command = [sys.executable, "-m", DRIVER.module, "--ros-args", "-r", "__node:=other", "-r", "__ns:=/elsewhere"]
    for topic in ("joint_states", "driver/setpoints"):
        command += ["-r", f"{topic}:=/{topic}"]
    assert rig.status("cell/status")["setpoints_left_out"] == 0
    bench.commands.publish(move(HOME, swing(0.5)))
    rig.wait_moving()
    other = subprocess.Popen(command, env=dict(rig.cell.environment.variables), stdout=subprocess.DEVNULL)
    try:
        until(lambda: rig.status("cell/status")["setpoints_left_out"] > 0, 30, "setpoints left out")
        bench.rest_at(swing(0.5))
        bench.commands.publish(move(swing(0.5), HOME))
        bench.rest_at(HOME)
    finally:
        other.kill()
        other.wait()


def test_a_new_cell_finds_its_arm_held_where_it_is(bench: Bench) -> None:
    """A cell that died comes back with its arm at home; the driver must not pull it to where it was."""
    rig = bench.rig
    bench.commands.publish(move(HOME, swing(0.8)))
    bench.rest_at(swing(0.8))
    rig.cell.kill("cell", signal.SIGKILL)
    until(lambda: rig.cell.states["cell"] == "dead", 10, "its death")
    start = len(rig.speeds)
    rig.cell.wait_active(START_S)
    until(lambda: len(rig.speeds) > start + 90, 20, "joint states")
    np.testing.assert_allclose(rig.positions, HOME, atol=0.003)
    assert max(speed for _, speed in rig.speeds[start:]) < 0.05


def test_a_driver_that_is_killed_leaves_the_arm_standing_and_comes_back(bench: Bench) -> None:
    bench.commands.publish(move(HOME, swing(1.2)))
    bench.rig.wait_moving()
    killed_ns = time.time_ns()
    bench.rig.cell.kill("driver", signal.SIGKILL)
    assert bench.rig.still_after_s(killed_ns) < 0.5
    where = bench.rig.positions.copy()
    bench.rig.cell.wait_active(START_S)
    bench.account()
    np.testing.assert_allclose(bench.rig.positions, where, atol=0.005)
    until(lambda: bench._follow.server_is_ready(), 20, "the driver to be back")

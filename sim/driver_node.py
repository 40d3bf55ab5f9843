"""A robot's driver in a process of its own, between the arm node and the simulated cell.

It takes what ros2_control's joint trajectory and parallel gripper controllers take: trajectories on
`arm/joint_trajectory` and, where control_msgs can be imported, as goals of `arm/follow_joint_trajectory`; the gripper
on `gripper/command` and `gripper/gripper_cmd`. It keeps limits of its own, and moves a cell whose parameter `driven` is
set by `driver/setpoints` and `driver/gripper`.
"""

from __future__ import annotations

import importlib
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from action_msgs.msg import GoalStatus
from numpy.typing import NDArray
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import BadInput, Refused
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import (
    joint_state_message,
    joint_state_to_positions,
    ns_to_stamp,
    stamp_to_ns,
    to_json,
)
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode
from embodied_vision.nodes.paired_clocks import PairedClocks
from embodied_vision.nodes.running import run
from embodied_vision_sim.driver import LIMITS, Driver, DriverLimits, Ending, Goal, Result
from embodied_vision_sim.node import to_path

NS = 1e-9
SILENT_S = 0.2
"""A driver that does not know where its arm is for so long brakes, and then asks nothing of it."""


def control_actions() -> Any:
    """The module control_msgs.action, None where it cannot be imported."""
    try:
        return importlib.import_module("control_msgs.action")
    except ImportError:
        return None


class DriverNode(ManagedNode):
    """Streams setpoints to the cell; takes trajectories, goals and gripper commands within its own limits."""

    def __init__(self) -> None:
        super().__init__("driver")
        self.param("robot", "panda_suction", "arm and tool, as the cell's", read_only=True)
        self.param("limits", "", "YAML with the driver's own joint limits; empty: driver_limits.yaml", read_only=True)
        self.param("rate", 120.0, "setpoints a second", (20.0, 240.0), read_only=True)
        self.param("feedback_rate", 20.0, "feedback messages a second while a goal runs", (1.0, 120.0), read_only=True)
        self.param("path_tolerance", 0.2, "how far a joint may be off on its way, rad; 0: any", (0.0, 3.0))
        self.param("goal_tolerance", 0.02, "how far a joint may be off at the end, rad; 0: any", (0.0, 3.0))
        self.param("goal_time", 1.0, "how long after its end a goal may be reached, s; 0: any", (0.0, 60.0))
        self.param("gripper_closed", 0.0, "position of a gripper's goal that closes it, m or rad")
        self.param("gripper_open", 0.04, "position of a gripper's goal that opens it, m or rad")
        self.param("gripper_time", 0.1, "how long the gripper takes, s", (0.0, 5.0))
        self._setpoints = self.create_publisher(JointState, "driver/setpoints", qos.SENSOR)
        self._grip = self.create_publisher(Float64, "driver/gripper", qos.COMMAND)
        self._status = self.create_publisher(String, "driver/status", qos.STATUS)
        self._actions = control_actions()
        self._driver: Driver | None = None
        self._limits: DriverLimits | None = None
        self._heard_s = -math.inf
        self._blind = False
        self._clocks = PairedClocks(self.now_ns)
        self._actual: tuple[NDArray[np.float64], float] | None = None
        self._sent_s = -math.inf
        self._held = False
        self._goal: ServerGoalHandle[Any, Any, Any] | None = None
        self._ended: Future[Result] | None = None
        self._endings: dict[bytes, Future[Result]] = {}
        self._servers: list[ActionServer[Any, Any, Any]] = []

    # ---- life cycle

    def setup(self) -> None:
        names = RobotModel.load(self.value("robot")).joint_names
        self._limits = DriverLimits.read(names, Path(self.value("limits") or LIMITS))
        if self._actions is None:
            self.get_logger().info("control_msgs cannot be imported: topics alone, no actions")

    def start(self) -> None:
        self.subscribe(JointState, "joint_states", qos.SENSOR, self._on_joints)
        self.subscribe(Bool, "gripper/holding", qos.SENSOR, self._on_holding)
        self.subscribe(JointTrajectory, "arm/joint_trajectory", qos.COMMAND, self._on_trajectory)
        self.subscribe(Float64, "gripper/command", qos.COMMAND, self._on_gripper)
        if self._actions is not None:
            self._servers = [
                ActionServer(
                    self,
                    self._actions.FollowJointTrajectory,
                    "arm/follow_joint_trajectory",
                    self._follow,
                    goal_callback=self._on_goal,
                    handle_accepted_callback=self._on_accepted,
                    cancel_callback=self._on_cancel,
                ),
                ActionServer(
                    self,
                    self._actions.ParallelGripperCommand,
                    "gripper/gripper_cmd",
                    self._move_gripper,
                    goal_callback=self._on_gripper_goal,
                ),
            ]
        self.every(1.0 / self.value("rate"), self._tick)
        self.every(1.0 / self.value("feedback_rate"), self._publish_feedback)
        self.every(0.5, self._say)

    def halt(self) -> None:
        if self._driver is not None:
            self._driver.cancel(time.monotonic())
            self._conclude()
            self._say()
        for server in self._servers:
            server.destroy()
        self._servers = []

    def teardown(self) -> None:
        self._driver = None

    # ---- the arm

    def _on_joints(self, message: JointState) -> None:
        assert self._limits is not None
        q = joint_state_to_positions(message, self._limits.joint_names)
        if not np.isfinite(q).all():
            raise BadInput(f"joint states hold {q.tolist()}; look for what measures them")
        now_s = time.monotonic()
        if self._driver is None:
            self._driver = Driver(self._limits, q)
        elif now_s - self._heard_s > SILENT_S:
            self._driver.find(q, now_s)
        self._heard_s, self._blind = now_s, False
        measured_s = self._clocks.steady_s(stamp_to_ns(message.header.stamp))
        self._actual = (q, measured_s)
        self._driver.measure(q, measured_s, now_s)
        self._conclude()

    def _tick(self) -> None:
        """The next setpoint. Ticks that a busy machine held back are not made up for: the arm goes on in time."""
        now_s, now_ns = self._clocks.now()
        if self._driver is None or now_s - self._sent_s < 0.25 / self.value("rate"):
            return
        if now_s - self._heard_s > SILENT_S:
            if not self._driver.desired(now_s).velocities.any():
                return  # it may have been moved: nothing is asked of it before it is seen
            if not self._blind:
                self._blind = True
                self.get_logger().error("no joint states: the arm brakes")
                self._driver.cancel(now_s)
                self._conclude()
        self._sent_s = now_s
        point = self._driver.setpoint(now_s)
        assert self._limits is not None
        self._setpoints.publish(
            joint_state_message(self._limits.joint_names, point.positions, point.velocities, now_ns)
        )

    def _offer(self, message: JointTrajectory, goal: Goal | None = None) -> None:
        """Have a trajectory followed: from its stamp on, or from now on where that is 0.

        Raises:
            BadInput, Refused: it is not followed; the arm goes on as before.
        """
        if self._driver is None:
            raise BadInput("the driver has heard no joint states yet; start the cell")
        now_s, stamp_ns = time.monotonic(), stamp_to_ns(message.header.stamp)
        start_s = now_s if stamp_ns == 0 else self._clocks.steady_s(stamp_ns)
        self._driver.offer(to_path(message, self._driver.limits.joint_names), start_s, now_s, goal)

    def _on_trajectory(self, message: JointTrajectory) -> None:
        try:
            self._offer(message)
        except (BadInput, Refused) as error:
            self.get_logger().error(f"trajectory rejected, the arm goes on as before: {error}")
        self._conclude()

    # ---- goals

    def _tolerances(self, asked: Any, default_rad: float) -> NDArray[np.float64]:
        """Tolerances (J,) in rad, as control_msgs/JointTolerance says: 0 is the default, −1 is none."""
        assert self._limits is not None
        names = list(self._limits.joint_names)
        found = np.full(len(names), default_rad if default_rad > 0 else math.inf)
        for tolerance in asked:
            if tolerance.name not in names:
                raise BadInput(f"a tolerance is for {tolerance.name!r}, the arm has {names}")
            if tolerance.position < 0:
                found[names.index(tolerance.name)] = math.inf
            elif tolerance.position > 0:
                found[names.index(tolerance.name)] = tolerance.position
        return found

    def _on_goal(self, request: Any) -> GoalResponse:
        try:
            duration = request.goal_time_tolerance
            goal_s = duration.sec + duration.nanosec * NS or self.value("goal_time") or math.inf
            goal = Goal(
                self._tolerances(request.path_tolerance, self.value("path_tolerance")),
                self._tolerances(request.goal_tolerance, self.value("goal_tolerance")),
                goal_s,
            )
            self._offer(request.trajectory, goal)
        except (BadInput, Refused) as error:
            self.get_logger().error(f"goal rejected, the arm goes on as before: {error}")
            return GoalResponse.REJECT
        self._conclude()
        return GoalResponse.ACCEPT

    def _on_accepted(self, goal: ServerGoalHandle[Any, Any, Any]) -> None:
        self._goal, self._ended = goal, Future()
        self._endings[bytes(goal.goal_id.uuid)] = self._ended
        goal.execute()

    def _on_cancel(self, goal: ServerGoalHandle[Any, Any, Any]) -> CancelResponse:
        if self._driver is None or self._goal is None or goal.goal_id != self._goal.goal_id:
            return CancelResponse.REJECT
        self._driver.cancel(time.monotonic())
        self._conclude()
        return CancelResponse.ACCEPT

    def _conclude(self) -> None:
        """Tell who waits how its goal ended."""
        result = None if self._driver is None else self._driver.result()
        if result is not None and self._ended is not None:
            self._ended.set_result(result)
            self._goal = self._ended = None

    async def _follow(self, goal: ServerGoalHandle[Any, Any, Any]) -> Any:
        """Wait for the end of a goal that was accepted, and say how it went."""
        result = await self._endings[bytes(goal.goal_id.uuid)]
        del self._endings[bytes(goal.goal_id.uuid)]
        assert result is not None
        content = self._actions.FollowJointTrajectory.Result
        codes: dict[Ending, int] = {
            "reached": content.SUCCESSFUL,
            "path_tolerance": content.PATH_TOLERANCE_VIOLATED,
            "goal_tolerance": content.GOAL_TOLERANCE_VIOLATED,
            "replaced": content.INVALID_GOAL,
            "cancelled": content.INVALID_GOAL,
        }
        if result.ending == "reached":
            goal.succeed()
        elif result.ending in ("path_tolerance", "goal_tolerance"):
            self.get_logger().error(f"goal aborted: {result.reason}")
            goal.abort()
        else:
            if goal.status == GoalStatus.STATUS_EXECUTING:  # nobody asked for it, and rclpy has no word for that
                goal._update_state(_rclpy.GoalEvent.CANCEL_GOAL)
            goal.canceled()
        return content(error_code=codes[result.ending], error_string=result.reason)

    def _publish_feedback(self) -> None:
        if self._goal is None or self._driver is None or self._actual is None or not self._goal.is_active:
            return
        q, measured_s = self._actual
        desired = self._driver.desired(measured_s)
        feedback = self._actions.FollowJointTrajectory.Feedback(joint_names=list(self._driver.limits.joint_names))
        feedback.header.stamp = ns_to_stamp(self.now_ns())
        feedback.desired = JointTrajectoryPoint(
            positions=desired.positions.tolist(), velocities=desired.velocities.tolist()
        )
        feedback.actual = JointTrajectoryPoint(positions=q.tolist())
        feedback.error = JointTrajectoryPoint(positions=(desired.positions - q).tolist())
        self._goal.publish_feedback(feedback)

    # ---- the gripper

    def _on_holding(self, message: Bool) -> None:
        self._held = message.data

    def _on_gripper(self, message: Float64) -> None:
        if not 0.0 <= message.data <= 1.0:
            raise BadInput(f"gripper command {message.data}; send 0 (closed) … 1 (open)")
        self._grip.publish(message)

    def _opening(self, command: JointState) -> float:
        """What share of its way a gripper's goal opens it, 0 closed … 1 open."""
        closed, opened = self.value("gripper_closed"), self.value("gripper_open")
        if len(command.position) != 1 or not math.isfinite(command.position[0]):
            raise BadInput(f"gripper goal with positions {list(command.position)}; send one finite number")
        share = (command.position[0] - closed) / (opened - closed)
        if not -0.01 <= share <= 1.01:
            raise BadInput(f"gripper goal {command.position[0]}; send {closed} (closed) … {opened} (open)")
        return float(np.clip(share, 0.0, 1.0))

    def _on_gripper_goal(self, request: Any) -> GoalResponse:
        try:
            self._grip.publish(Float64(data=self._opening(request.command)))
        except BadInput as error:
            self.get_logger().error(f"gripper goal rejected: {error}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    async def _move_gripper(self, goal: ServerGoalHandle[Any, Any, Any]) -> Any:
        """Give the gripper its time; something between closed fingers stops them before they are there."""
        done: Future[bool] = Future()
        wait_s = max(self.value("gripper_time"), 1e-3)
        timer = self.create_timer(wait_s, lambda: done.set_result(True), clock=self._steady)
        await done
        self.destroy_timer(timer)
        command = goal.request.command
        stalled = self._held and self._opening(command) < 0.5
        goal.succeed()
        result = self._actions.ParallelGripperCommand.Result(stalled=stalled, reached_goal=not stalled)
        result.state = JointState(name=command.name, position=command.position)
        result.state.header.stamp = ns_to_stamp(self.now_ns())
        return result

    # ---- what it says

    def _say(self) -> None:
        if self._driver is None:
            self.health(WARN, "no joint states yet; start the cell")
            return
        account = self._driver.account.to_dict()
        self._status.publish(to_json({**account, "actions": self._actions is not None, "stamp_ns": self.now_ns()}))
        broken, refused = sum(account["violations"].values()), sum(account["refused"].values())
        if broken:
            self.health(ERROR, f"{broken} setpoints broke a limit: {account['last']}", **account)
        elif refused or account["malformed"]:
            self.health(WARN, f"refused {refused + account['malformed']}: {account['last']}", **account)
        else:
            self.health(OK, "following", **account)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(DriverNode))


if __name__ == "__main__":
    main()

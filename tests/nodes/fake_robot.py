"""A robot on ROS topics and actions for tests of the arm node: an ideal arm whose driver can be made to misbehave."""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

import numpy as np
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory

from embodied_vision.control.robot import RobotModel
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import joint_state_message, trajectory_to_samples

RATE_HZ = 100.0

Ending = Literal["succeed", "abort", "cancel"]


class FakeRobot:
    """Follows trajectories from the topic and the action alike, from the state in which they find it.

    Attributes:
        trajectories, goals: how many came by topic and by action.
        grips: commands of the gripper, by topic and by action.
        pace: how fast its own time runs.
        reject, abort: what the next goal meets, or the running one at the next moment: an error code.
        mute: goals are followed, but their results never come.
        server: of the trajectory action, once it is offered.
        reader: of the trajectories' topic.
        cancelled: how many goals were cancelled on request.
        fingers: (name, position) told with the joints, None for none.
    """

    def __init__(self, node: Node, model: RobotModel) -> None:
        self._node, self._model = node, model
        self._lock = threading.Lock()
        self._q0, self._qd0 = model.home.copy(), np.zeros_like(model.home)
        self._path: Trajectory | None = None
        self._own_s = self._start_s = 0.0
        self._seen_s = time.monotonic()
        self._goal: tuple[Any, Future[tuple[Ending, int]]] | None = None
        self.trajectories = self.goals = self.cancelled = 0
        self.grips: list[float] = []
        self.pace = 1.0
        self.reject, self.abort, self.mute = False, 0, False
        self.fingers: tuple[str, float] | None = None
        self._joints = node.create_publisher(JointState, "joint_states", qos.SENSOR)
        self.read()
        node.create_subscription(Float64, "gripper/command", lambda m: self.grips.append(m.data), qos.COMMAND)
        node.create_timer(1.0 / RATE_HZ, self._tick)

    def read(self) -> None:
        """Take trajectories by topic from now on."""
        self.reader = self._node.create_subscription(
            JointTrajectory, "arm/joint_trajectory", self._on_trajectory, qos.COMMAND
        )

    @property
    def positions(self) -> np.ndarray:
        """Where it is, (J,)."""
        with self._lock:
            return self._state()[0]

    @property
    def speed(self) -> float:
        """Of its fastest joint, rad/s."""
        with self._lock:
            return float(np.abs(self._state()[1]).max()) * self.pace

    def _state(self) -> tuple[np.ndarray, np.ndarray]:
        if self._path is None:
            return self._q0, self._qd0
        q, qd, _ = self._path.sample(self._own_s - self._start_s)
        return q, qd

    def _follow(self, message: JointTrajectory) -> None:
        samples = trajectory_to_samples(message, self._model.joint_names)
        with self._lock:
            q, qd = self._state()
            zero = np.zeros_like(q)
            first = samples.times_s[0] > 0
            rows = [(q, qd, zero)] if first else []
            rows += list(zip(samples.positions, samples.velocities, samples.accelerations, strict=True))
            times = np.concatenate([[0.0], samples.times_s]) if first else samples.times_s
            self._path = Trajectory(np.asarray(times), *(np.array(part) for part in zip(*rows, strict=True)))
            self._start_s = self._own_s

    def _on_trajectory(self, message: JointTrajectory) -> None:
        self.trajectories += 1
        self._follow(message)

    def _tick(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._own_s += (now_s - self._seen_s) * self.pace
            self._seen_s = now_s
            q, qd = self._state()
            over = self._path is not None and self._own_s - self._start_s >= self._path.duration
        message = joint_state_message(self._model.joint_names, q, qd * self.pace, time.time_ns())
        if self.fingers is not None:
            message.name.append(self.fingers[0])
            message.position.append(self.fingers[1])
            message.velocity.append(0.0)
        self._joints.publish(message)
        if self.abort:
            self._end("abort", self.abort)
        elif over:
            self._end("succeed", 0)

    # ---- actions

    def serve_actions(self, actions: Any) -> None:
        """Offer FollowJointTrajectory and ParallelGripperCommand, types out of control_msgs.action."""
        self._actions = actions
        self.server: ActionServer[Any, Any, Any] = ActionServer(
            self._node,
            actions.FollowJointTrajectory,
            "arm/follow_joint_trajectory",
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )
        ActionServer(self._node, actions.ParallelGripperCommand, "gripper/gripper_cmd", self._grip)

    def _on_goal(self, _goal: Any) -> GoalResponse:
        return GoalResponse.REJECT if self.reject else GoalResponse.ACCEPT

    def _on_cancel(self, _handle: Any) -> CancelResponse:
        self.cancelled += 1
        with self._lock:
            self._q0, self._qd0 = self._state()[0], np.zeros_like(self._q0)
            self._path = None
        self._end("cancel", 0)
        return CancelResponse.ACCEPT

    def _end(self, how: Ending, code: int) -> None:
        if self._goal is None:
            return
        if how == "abort" and code == self.abort:
            self.abort = 0
        goal, self._goal = self._goal, None
        if not self.mute:
            goal[1].set_result((how, code))

    async def _execute(self, handle: Any) -> Any:
        self.goals += 1
        self._end("abort", -1)  # replaced
        ended: Future[tuple[Ending, int]] = Future()
        self._goal = (handle, ended)
        self._follow(handle.request.trajectory)
        feedback = self._actions.FollowJointTrajectory.Feedback()
        feedback.error.positions = [0.0, -0.003]
        handle.publish_feedback(feedback)
        how, code = await ended
        {"succeed": handle.succeed, "abort": handle.abort, "cancel": handle.canceled}[how]()
        return self._actions.FollowJointTrajectory.Result(error_code=code, error_string="so it is" if code else "")

    def _grip(self, handle: Any) -> Any:
        goal = handle.request.command
        self.grips.append(goal.position[0])
        result = self._actions.ParallelGripperCommand.Result()
        result.state = JointState(name=list(goal.name), position=list(goal.position))
        handle.succeed()
        return result

"""The actions of ros2_control as a way to arm and gripper: FollowJointTrajectory and ParallelGripperCommand.

Every horizon is a goal of its own. The controller puts a new goal in the place of the running one, which it then
cancels, aborts as INVALID_GOAL, or never answers; a goal that nothing replaces ends at rest by itself.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from embodied_vision.errors import BadInput

ANSWER_S = 1.0
"""A goal that is neither accepted nor rejected for so long is a fault."""

RESULTS = 8
"""Results of replaced goals that are waited for at the same time."""

_TOLERANCES = {-4: "PATH_TOLERANCE_VIOLATED", -5: "GOAL_TOLERANCE_VIOLATED"}
_CODES = {-1: "INVALID_GOAL", -2: "INVALID_JOINTS", -3: "OLD_HEADER_TIMESTAMP", **_TOLERANCES}


def action_type(name: str, parameter: str) -> Any:
    """An action of control_msgs.

    Raises:
        BadInput: it cannot be imported.
    """
    try:
        return getattr(importlib.import_module("control_msgs.action"), name)
    except (ImportError, AttributeError) as error:
        raise BadInput(
            f"{parameter} is 'action', but control_msgs.action.{name} cannot be imported ({error}); control_msgs is "
            f"not on PyPI: run the arm node where a ROS with it is installed (Debian: ros-DISTRO-control-msgs), or set "
            f"{parameter} to 'topic'"
        ) from error


class Goals:
    """Sends goals to one action server, the newest replacing the others, and says what went wrong with one.

    Args:
        node: that spins it.
        action: type of the action.
        name: of the action server.
        on_result: gets the result of a goal that was not replaced or cancelled by us.
        on_fault: gets the reason, in words, why a goal was not carried out.
        on_feedback: gets the feedback.
    """

    def __init__(
        self,
        node: Node,
        action: Any,
        name: str,
        on_result: Callable[[Any], None],
        on_fault: Callable[[str], None],
        on_feedback: Callable[[Any], None],
    ) -> None:
        self._action, self.name = action, name
        self._on_result, self._on_fault, self._on_feedback = on_result, on_fault, on_feedback
        self._client: ActionClient[Any, Any, Any] = ActionClient(node, action, name)
        self._number = 0
        self._handle: Any = None
        self._unanswered: dict[int, float] = {}
        self._results: deque[Future[Any]] = deque()

    @property
    def busy(self) -> bool:
        """Whether a goal is under way."""
        return self._handle is not None or bool(self._unanswered)

    def problem(self, now_s: float) -> str:
        """Why goals get nowhere, in words; empty when all is well."""
        if not self._client.server_is_ready():
            return f"there is no action server {self.name}; start the controller or correct the name"
        if any(now_s - sent_s > ANSWER_S for sent_s in self._unanswered.values()):
            return f"{self.name} has left a goal unanswered for {ANSWER_S:g} s"
        return ""

    def send(self, goal: Any, now_s: float) -> None:
        """Send a goal in place of the one before."""
        self._number += 1
        number, known = self._number, len(self._client._futures)
        future = self._client.send_goal_async(goal, lambda message: self._on_feedback(message.feedback))
        for twin in self._client._futures[known:-1]:  # rclpy 9.1 adds a second future, which nobody would ever complete
            self._client.remove_future(twin)
        self._unanswered[number] = now_s
        future.add_done_callback(lambda answer: self._take_answer(number, answer))

    def cancel(self) -> None:
        """Cancel what runs, and what was sent and is not accepted yet as soon as it is."""
        self._number += 1
        self._unanswered.clear()
        if self._handle is not None:
            self._handle.cancel_goal_async()
            self._handle = None

    def close(self) -> None:
        """Let go. What is under way ends at rest by itself: a cancelled goal would end it with a jerk."""
        self._client.destroy()

    def _take_answer(self, number: int, future: Future[Any]) -> None:
        wanted = number in self._unanswered
        self._unanswered.pop(number, None)
        handle: Any = future.result()
        if not handle.accepted:
            if wanted:
                self._on_fault(f"{self.name} rejected a goal; its log says why")
            return
        if not wanted:
            handle.cancel_goal_async()
            return
        self._handle = handle
        results = handle.get_result_async()
        results.add_done_callback(lambda result: self._take_result(number, result))
        self._results.append(results)
        while len(self._results) > RESULTS:
            self._results.popleft().cancel()

    def _take_result(self, number: int, future: Future[Any]) -> None:
        if future.cancelled():
            return
        self._results = deque(other for other in self._results if other is not future)
        answer: Any = future.result()
        newest = number == self._number
        if newest:
            self._handle = None
        stalled = getattr(answer.result, "stalled", False)  # fingers that an object stops: some controllers abort then
        violated = getattr(answer.result, "error_code", 0) in _TOLERANCES
        if answer.status == GoalStatus.STATUS_ABORTED and not stalled and (newest or violated):
            self._on_fault(f"{self.name} aborted a goal: {_words(answer.result)}")
        elif newest and answer.status == GoalStatus.STATUS_CANCELED:
            self._on_fault(f"somebody else cancelled the goal of {self.name}")
        elif newest:
            self._on_result(answer.result)


def _words(result: Any) -> str:
    """What a result says about its failure."""
    if hasattr(result, "error_code"):
        return f"{_CODES.get(result.error_code, result.error_code)} {result.error_string}".strip()
    return "it did not reach its goal"


class TrajectoryGoals(Goals):
    """FollowJointTrajectory: joint trajectories as goals.

    Attributes:
        error_rad: greatest distance between desired and actual positions that the controller told last.
    """

    def __init__(self, node: Node, name: str, on_fault: Callable[[str], None]) -> None:
        action = action_type("FollowJointTrajectory", "command_interface")
        super().__init__(node, action, name, lambda _result: None, on_fault, self._take_feedback)
        self.error_rad = 0.0

    def follow(self, trajectory: JointTrajectory, now_s: float) -> None:
        """Follow this trajectory from now on."""
        self.send(self._action.Goal(trajectory=trajectory), now_s)

    def _take_feedback(self, feedback: Any) -> None:
        self.error_rad = max((abs(value) for value in feedback.error.positions), default=0.0)


@dataclass(frozen=True)
class GripperJoint:
    """How 0 (closed) … 1 (open) maps to a gripper's joint.

    Attributes:
        name: of the joint; may be empty where the controller has one joint alone.
        closed, opened: its positions, m or rad.
        effort: greatest force or torque, N or Nm; 0 leaves it to the controller.
    """

    name: str
    closed: float
    opened: float
    effort: float

    def command(self, share: float) -> JointState:
        """The command for a share of opening."""
        message = JointState(position=[self.closed + share * (self.opened - self.closed)])
        if self.name:
            message.name = [self.name]
        if self.effort > 0:
            message.effort = [self.effort]
        return message


class GripperGoals(Goals):
    """ParallelGripperCommand: the gripper's opening as a goal.

    Args:
        node: that spins it.
        name: of the action server.
        joint: of the gripper.
        on_fault: gets the reason why the gripper did not do as it was told.
        on_state: gets the gripper's joints as feedback and result say.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        joint: GripperJoint,
        on_fault: Callable[[str], None],
        on_state: Callable[[JointState], None],
    ) -> None:
        action = action_type("ParallelGripperCommand", "gripper_interface")
        super().__init__(node, action, name, self._take, on_fault, self._take)
        self._joint, self._on_state = joint, on_state

    def open_to(self, share: float, now_s: float) -> None:
        """Open to a share, 0 closed … 1 open. Fingers that an object stops are as good as there."""
        self.send(self._action.Goal(command=self._joint.command(share)), now_s)

    def _take(self, message: Any) -> None:
        self._on_state(message.state)

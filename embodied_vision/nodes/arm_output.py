"""Where the arm node's commands go: topics, actions of ros2_control, or topics that no driver reads."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable
from pathlib import PurePosixPath

from rclpy.duration import Duration
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory

from embodied_vision.errors import BadInput
from embodied_vision.nodes import qos
from embodied_vision.nodes.arm_actions import GripperGoals, GripperJoint, TrajectoryGoals
from embodied_vision.nodes.exclusive import Exclusive
from embodied_vision.nodes.lifecycle import ManagedNode

_TRAJECTORY = {"topic": "arm/joint_trajectory", "action": "arm/action/joint_trajectory"}
_GRIPPER = {"topic": "gripper/command", "action": "gripper/action/command"}
_DRY = ("arm/dry_run/joint_trajectory", "arm/dry_run/gripper_command")

PAIR_S = 1.5
"""How long after readers came or went a motion waits for one in a process that tells the joints."""

_PARTICIPANT = slice(12)
"""Of an endpoint's global identifier: its process, or the context in it (RTPS, 9.3.1)."""


class ArmOutput:
    """Sends what the guard let through, by the parameters `command_interface`, `gripper_interface` and `dry_run`.

    Every command is published, for the log. What goes out as an action, and all of a dry run, is published on a topic
    that no driver reads.

    Args:
        node: the arm node.
        exclusive: who else publishes on the topics.
        on_fault: gets the reason, in words, why a driver did not carry out what it was sent.
        on_gripper: gets the gripper's joints, where its action tells them.

    Raises:
        BadInput: an interface is unknown.
    """

    def __init__(
        self,
        node: ManagedNode,
        exclusive: Exclusive,
        on_fault: Callable[[str], None],
        on_gripper: Callable[[JointState], None],
    ) -> None:
        self._node, self._on_fault, self._on_gripper = node, on_fault, on_gripper
        self._exclusive = exclusive
        for name in ("command_interface", "gripper_interface"):
            if node.value(name) not in _TRAJECTORY:
                raise BadInput(f"{name} is {node.value(name)!r}; give topic or action")
        for name in ("trajectory_action", "gripper_action"):
            if not PurePosixPath(node.value(name)).name:
                raise BadInput(f"{name} is {node.value(name)!r}; give the name of an action")
        self._dry_run = bool(node.value("dry_run"))
        trajectory, gripper = _TRAJECTORY[node.value("command_interface")], _GRIPPER[node.value("gripper_interface")]
        if self._dry_run:
            trajectory, gripper = _DRY
        self._trajectories = exclusive.publisher(JointTrajectory, trajectory, qos.COMMAND)
        self._gripper = exclusive.publisher(Float64, gripper, qos.COMMAND)
        if node.value("command_interface") == "action" and not self._dry_run:
            # A controller of ros2_control listens to this topic as well: nobody may command the arm there.
            exclusive.watch(str(PurePosixPath(node.value("trajectory_action")).with_name("joint_trajectory")))
        self._readers, self._since_s = 0, 0.0
        self._sent = self._heard = False
        self._arm_goals: TrajectoryGoals | None = None
        self._gripper_goals: GripperGoals | None = None

    def open(self) -> None:
        """Make the action clients that the parameters ask for.

        Raises:
            BadInput: control_msgs cannot be imported, or the gripper's joint does not move.
        """
        self.close()
        value = self._node.value
        if self._dry_run:
            return
        if value("command_interface") == "action":
            self._arm_goals = TrajectoryGoals(self._node, value("trajectory_action"), self._on_fault)
            # The joint trajectory controller listens to a topic beside its action, whoever publishes there.
            self._exclusive.watch(posixpath.join(posixpath.dirname(value("trajectory_action")), "joint_trajectory"))
        if value("gripper_interface") == "action":
            closed, opened = value("gripper_closed"), value("gripper_open")
            if closed == opened:
                raise BadInput(f"gripper_closed and gripper_open are both {closed}; give the joint's two ends")
            joint = GripperJoint(value("gripper_joint"), closed, opened, value("gripper_effort"))
            self._gripper_goals = GripperGoals(
                self._node, value("gripper_action"), joint, self._on_fault, self._on_gripper
            )

    def close(self) -> None:
        """Let go of the action clients."""
        for goals in (self._arm_goals, self._gripper_goals):
            if goals is not None:
                goals.close()
        self._arm_goals = self._gripper_goals = None

    @property
    def tracking_error_rad(self) -> float:
        """Greatest distance between desired and actual positions that the controller told last; 0 without an action."""
        return 0.0 if self._arm_goals is None else self._arm_goals.error_rad

    @property
    def sources(self) -> list[str]:
        """Names of the actions in use, the keys of `problems`."""
        return [name for name, goals in self._goals() if goals is not None]

    def problems(self, now_s: float) -> dict[str, str]:
        """Each action with what is wrong with it, in words; empty when nothing is."""
        return {name: goals.problem(now_s) for name, goals in self._goals() if goals is not None}

    def look(self) -> None:
        """Notice who begins or ends to read our trajectories; call it at every tick."""
        readers = self._trajectories.get_subscription_count()
        if readers != self._readers:
            self._readers, self._sent, self._heard = readers, False, False
            self._since_s = time.monotonic()

    def unheard(self) -> str:
        """Who reads our trajectories and has taken none, in words; empty once all have, and where goals are answered.

        DDS pairs a writer with a reader on each side by itself. What is sent while only ours has done so is lost, with
        no word to anybody: no acknowledgement is the one sign of it. Of a reader that this side does not know yet there
        is none at all; a driver's is looked for in the process that tells the joints, but not for long, as these may be
        told by another one.
        """
        if self._dry_run or self._arm_goals is not None:
            return ""
        self.look()
        topic = self._trajectories.topic_name
        if self._readers == 0:
            return f"nobody reads {topic}: start the arm's driver, or remap the topic to the one that it reads"
        if not self._heard and time.monotonic() < self._since_s + PAIR_S and not self._driver_reads():
            return f"nobody who tells the joints reads {topic} yet"
        self._heard = self._heard or (self._sent and self._trajectories.wait_for_all_acked(Duration()))
        if self._heard:
            return ""
        found = self._node.get_subscriptions_info_by_topic(topic)
        names = ", ".join(sorted({one.node_name for one in found}))
        return f"not all of those who read {topic} acknowledge what is sent ({names}): end or start anew who does not"

    def _driver_reads(self) -> bool:
        """Whether a process that publishes joint states is known to read our trajectories."""
        node = self._node
        told = [one for topic in node.value("joint_state_topics") for one in node.get_publishers_info_by_topic(topic)]
        read = node.get_subscriptions_info_by_topic(self._trajectories.topic_name)
        tellers, readers = ({bytes(one.endpoint_gid[_PARTICIPANT]) for one in side} for side in (told, read))
        return not tellers.isdisjoint(readers)

    def send(self, message: JointTrajectory, now_s: float) -> None:
        """Replace the running trajectory."""
        self._trajectories.publish(message)
        self._sent = True
        if self._arm_goals is not None:
            self._arm_goals.follow(message, now_s)

    def grip(self, share: float, now_s: float) -> None:
        """Open the gripper to a share, 0 closed … 1 open."""
        self._gripper.publish(Float64(data=share))
        if self._gripper_goals is not None:
            self._gripper_goals.open_to(share, now_s)

    def cancel(self) -> None:
        """Take back the trajectory that is under way, where the way to the arm can do that."""
        if self._arm_goals is not None and self._arm_goals.busy:
            self._arm_goals.cancel()

    def _goals(self) -> list[tuple[str, TrajectoryGoals | GripperGoals | None]]:
        return [("trajectory action", self._arm_goals), ("gripper action", self._gripper_goals)]

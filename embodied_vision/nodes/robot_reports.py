"""What robot and gripper say about themselves on standard topics: may it move, how fast does it run, does it hold."""

from __future__ import annotations

import math
import time

from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, String

from embodied_vision.control.driver import DriverState
from embodied_vision.control.holding import Holding
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.watchdog import Watchdog
from embodied_vision.errors import BadInput
from embodied_vision.nodes import qos
from embodied_vision.nodes.lifecycle import ManagedNode

_CHECKS = ("none", "vacuum", "width")


class RobotReports:
    """Reads the topics that the parameters name, and keeps `driver` and `holding` by them.

    Args:
        node: the arm node; its parameters say what is there.
        model: of the robot.

    Attributes:
        driver: whether the arm may be moved, and how fast it runs.
        holding: sensor of the gripper, None where grasps are not checked.
        limits_s: who has to be heard how often, for the watchdog.

    Raises:
        BadInput: a parameter cannot be used.
    """

    def __init__(self, node: ManagedNode, model: RobotModel) -> None:
        self._node = node
        value = node.value
        check = value("grasp_check")
        if check not in _CHECKS:
            raise BadInput(f"grasp_check is {check!r}; give one of {', '.join(_CHECKS)}")
        self._low, self._high = (float(bound) for bound in value("held_between"))
        if not self._low < self._high:
            raise BadInput(f"held_between is {[self._low, self._high]}; give the lower and the upper bound")
        self._fingers = tuple(name for name in value("finger_joints") if name) or model.finger_joints
        if check == "width" and not self._fingers:
            raise BadInput(f"grasp_check is 'width', but {model.name} has no sliding fingers; give finger_joints")
        self._watchdog: Watchdog | None = None
        dry_run = bool(value("dry_run"))
        topics = {name: value(f"{name}_topic") for name in ("program_running", "robot_mode", "speed_scaling")}
        self._topics = {} if dry_run else {name: topic for name, topic in topics.items() if topic}
        self._check = "none" if dry_run else check
        self.driver = DriverState(name for name in self._topics if name != "speed_scaling")
        self.holding = None if self._check == "none" else Holding()
        self.limits_s: dict[str, float] = {}
        if "speed_scaling" in self._topics:
            self.limits_s["speed_scaling"] = float(value("report_timeout"))
        if self.holding is not None:
            self.limits_s["gripper"] = float(value("report_timeout"))

    def start(self, watchdog: Watchdog) -> None:
        """Subscribe while the node is active, and feed the watchdog."""
        self._watchdog = watchdog
        silent_s = float(self._node.value("report_timeout"))
        # Drivers latch what seldom changes; a relay that does not is heard from its next message on.
        kinds = {
            "program_running": (Bool, self._take_program, qos.STATUS, math.inf),
            "robot_mode": (String, self._take_mode, qos.STATUS, math.inf),
            "speed_scaling": (Float64, self._take_scaling, qos.SENSOR, silent_s),
        }
        for name, topic in self._topics.items():
            kind, take, profile, longest_s = kinds[name]
            self._node.subscribe_sensor(kind, topic, take, profile, silent_s=longest_s)
        if self._check == "vacuum":
            self._node.subscribe_sensor(Bool, "gripper/holding", self._take_holding, silent_s=silent_s)

    def take_joints(self, message: JointState) -> None:
        """Any joint state; those of the fingers tell whether something is between them."""
        if self._check != "width":
            return
        known = dict(zip(message.name, message.position, strict=False))
        if all(math.isfinite(known.get(name, math.nan)) for name in self._fingers):
            self._hold(self._low < sum(known[name] for name in self._fingers) < self._high)

    def _take_program(self, message: Bool) -> None:
        self.driver.report("program_running", "" if message.data else "the robot's program is not running")

    def _take_mode(self, message: String) -> None:
        ready = [mode for mode in self._node.value("ready_modes") if mode]
        words = f"the robot's mode is {message.data!r}, it moves in {' and '.join(ready)}"
        self.driver.report("robot_mode", "" if message.data in ready else words)

    def _take_scaling(self, message: Float64) -> None:
        assert self._watchdog is not None
        self.driver.set_speed_scaling(message.data)
        self._watchdog.feed("speed_scaling", time.monotonic())

    def _take_holding(self, message: Bool) -> None:
        self._hold(bool(message.data))

    def _hold(self, held: bool) -> None:
        assert self._watchdog is not None
        if self.holding is not None:
            now_s = time.monotonic()
            self.holding.feed(held, now_s)
            self._watchdog.feed("gripper", now_s)

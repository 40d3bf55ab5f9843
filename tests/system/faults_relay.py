"""Stands between cell, policy and the rest of the graph, and spoils what it passes on as its parameter `fault` says.

`python -m faults_relay --ros-args -r __node:=relay`; see `faults_behind` for who speaks to it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String

from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import ns_to_stamp, stamp_to_ns, to_json
from embodied_vision.nodes.lifecycle import ManagedNode
from embodied_vision.nodes.running import run

TOPICS: dict[str, tuple[Any, str, Any]] = {
    "color": (Image, "camera/color/image_raw", qos.SENSOR),
    "depth": (Image, "camera/aligned_depth_to_color/image_raw", qos.SENSOR),
    "info": (CameraInfo, "camera/color/camera_info", qos.SENSOR),
    "joints": (JointState, "joint_states", qos.SENSOR),
    "poses": (PoseArray, "pick_place", qos.DECISION),
    "decision": (String, "policy/decision", qos.DECISION),
    "clock": (Clock, "/clock", qos.SENSOR),
}
MORE_JOINTS = "more_joint_states"
CAMERA = ("color", "depth", "info")
BACK_NS = 10_000_000_000
HASTE_S = 0.02


class Relay(ManagedNode):
    """Passes everything on, but for what the fault spoils. `relay/onset` tells since when, on the steady clock."""

    def __init__(self) -> None:
        super().__init__("relay")
        self.param("fault", "", "what is wrong from now on; empty for nothing")
        self._fault = ""
        self._good: dict[str, Any] = {}
        self._passed_ns: dict[str, int] = {}
        self._hasty = 0
        self._onset = self.create_publisher(String, "relay/onset", qos.STATUS)
        self._more_joints = self.create_publisher(JointState, MORE_JOINTS, qos.SENSOR)
        self._out = {
            part: self.create_publisher(kind, topic, profile) for part, (kind, topic, profile) in TOPICS.items()
        }
        self.add_on_set_parameters_callback(self._set)

    def start(self) -> None:
        for part, (kind, topic, profile) in TOPICS.items():
            raw = f"/raw{topic}" if topic.startswith("/") else f"raw/{topic}"
            self.subscribe(kind, raw, profile, self._taker(part))
        self.every(HASTE_S, self._hurry)

    def _set(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "fault":
                self._fault = parameter.value
                self._onset.publish(to_json({"fault": self._fault, "at_s": time.monotonic()}))
        return SetParametersResult(successful=True)

    def _taker(self, part: str) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            for passed in self._pass(part, message):
                self._out[part].publish(passed)

        return take

    def _pass(self, part: str, message: Any) -> list[Any]:
        """What goes on of a message."""
        fault = self._fault
        if not fault:
            self._good[part] = message
        if part in CAMERA and fault.startswith("camera"):
            return self._camera(fault.removeprefix("camera "), part, message)
        if part == "joints" and fault.startswith("joints"):
            return self._joints(fault.removeprefix("joints "), message)
        if part == "poses" and fault == "policy nan":
            message.poses[1].position.y = math.nan
        if part == "poses" and fault == "policy outside":
            message.poses[0].position.x = 2.0
        cut_off = fault == "cell unreachable" and part in (*CAMERA, "joints", "clock")
        return [] if cut_off or (fault == "clock stands" and part == "clock") else [message]

    def _camera(self, fault: str, part: str, message: Any) -> list[Any]:
        good = self._good[part]
        match fault, part:
            case "silent", _:
                return []
            case "image silent", "color" | "depth":
                return []
            case "frozen", "color" | "depth":
                good.header = message.header
                return [good]
            case "stuck", _:
                return [good]
            case "black", "color":
                message.data = bytes(len(message.data))
            case "depthless", "depth":
                message.data = bytes(len(message.data))
            case "cropped", "color" | "depth":
                message.height //= 2
                message.data = message.data[: message.step * message.height]
            case "encoding", "color":
                message.encoding = "32FC3"
            case "truncated", "color":
                message.data = message.data[: len(message.data) // 2]
            case "back", _:
                message.header.stamp = ns_to_stamp(stamp_to_ns(message.header.stamp) - BACK_NS)
            case "slow", _:
                stamp_ns = stamp_to_ns(message.header.stamp)
                passed_ns = max(self._passed_ns.get(part, 0), stamp_to_ns(good.header.stamp))
                if stamp_ns - passed_ns < 1_000_000_000:
                    return []
                self._passed_ns[part] = stamp_ns
        return [message]

    def _joints(self, fault: str, message: JointState) -> list[JointState]:
        count = len(message.name)
        match fault:
            case "silent":
                return []
            case "nan":
                message.position[2] = math.nan
            case "missing":
                return [part_of(message, range(count - 1))]
            case "unknown":
                message.name = [f"left_{name}" for name in message.name]
            case "back":
                message.header.stamp = ns_to_stamp(stamp_to_ns(message.header.stamp) - BACK_NS)
            case "permuted":
                return [part_of(message, range(count - 1, -1, -1))]
            case "split":
                finger = JointState(header=message.header, name=["finger"], position=[0.02], velocity=[0.0])
                return [part_of(message, range(3)), finger, part_of(message, range(3, count))]
            case "two topics":
                self._more_joints.publish(part_of(message, range(3)))
                return [part_of(message, range(3, count))]
        return [message]

    def _hurry(self) -> None:
        """The decision that came last, again and again under new names."""
        if self._fault != "policy hasty" or "decision" not in self._good:
            return
        self._hasty += 1
        decision = {**json.loads(self._good["decision"].data), "decision_id": f"hasty-{self._hasty}"}
        self._out["decision"].publish(to_json(decision))
        self._out["poses"].publish(self._good["poses"])


def part_of(message: JointState, indices: range) -> JointState:
    """Some joints of a joint state, in this order."""
    part = JointState(header=message.header)
    for key in ("name", "position", "velocity"):
        setattr(part, key, [getattr(message, key)[index] for index in indices])
    return part


if __name__ == "__main__":
    sys.exit(run(Relay))

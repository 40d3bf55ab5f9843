"""Listens to a running graph for a while and prints what it saw as one line of JSON, for `doctor` to judge.

`python -m embodied_vision.nodes.observe SECONDS COLOR DEPTH CAMERA…`: COLOR and DEPTH tell how images travel, as the
parameters of encoder and policy do, which win where those run. The content is that of `doctor.observation`.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image, JointState

from embodied_vision import topics
from embodied_vision.errors import BadInput
from embodied_vision.messages import info_to_K, stamp_to_ns
from embodied_vision.nodes import qos
from embodied_vision.nodes.image_transport import stream_of
from embodied_vision.nodes.images import image_to_color, image_to_raw_depth

DISCOVERY_S, SETTLED_S = 5.0, 1.0
"""Longest wait for the graph, which is complete when nothing new was seen for the second time."""

ANSWER_S = 2.0
COMMANDS = ("arm/joint_trajectory", "gripper/command", "pick_place", "policy/decision")
"""Topics on which one node alone may speak."""

NODES = ("cell", "camera", "encoder", "policy", "arm", "recorder", "task")
"""Nodes that are asked for their parameters."""

_FASTDDS = b"\x01\x0f"
_CAMERA = re.compile(r"(.+)/color/(?:image_raw|image_raw/compressed|camera_info)")


class Stream:
    """What is known of one topic."""

    def __init__(self, kind: str, publishers: list[dict[str, Any]]) -> None:
        self.kind, self.publishers = kind, publishers
        self.received_s: list[float] = []
        self.stamps_ns: list[int] = []
        self.ages_s: list[float] = []
        self.details: dict[str, Any] = {}

    def note(self, header: Any, now_ns: int) -> None:
        """A message came."""
        stamp_ns = stamp_to_ns(header.stamp)
        self.received_s.append(time.monotonic())
        self.stamps_ns.append(stamp_ns)
        self.ages_s.append((now_ns - stamp_ns) * 1e-9)
        self.details["frame_id"] = header.frame_id

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "type": self.kind,
            "publishers": self.publishers,
            "received_s": self.received_s,
            "stamps_ns": self.stamps_ns,
            "ages_s": self.ages_s,
            "details": self.details,
        }


class Observer(Node):
    """Finds the nodes, asks them for their parameters, and listens to cameras and joint states."""

    def __init__(self) -> None:
        super().__init__("doctor")
        self.streams: dict[str, Stream] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def discover(self) -> list[str]:
        """Full names of all nodes but this one, when the graph has been quiet for a while."""
        seen: list[str] = []
        quiet_s = deadline_s = time.monotonic()
        while time.monotonic() < deadline_s + DISCOVERY_S and time.monotonic() < quiet_s + SETTLED_S:
            self._executor.spin_once(timeout_sec=0.05)
            names = sorted(f"{space.rstrip('/')}/{name}" for name, space in self.get_node_names_and_namespaces())
            if names != seen:
                seen, quiet_s = names, time.monotonic()
        return [name for name in seen if name != self.get_fully_qualified_name()]

    def parameters(self, nodes: list[str]) -> dict[str, dict[str, Any]]:
        """Node of this namespace → its parameters, of those that answer in time."""
        spaces = {name: self.resolve_node_name(name) for name in NODES}
        known = {name: full for name, full in spaces.items() if full in nodes}
        listed = self._ask(ListParameters, "list_parameters", {f: ListParameters.Request() for f in known.values()})
        asked = {full: GetParameters.Request(names=list(answer.result.names)) for full, answer in listed.items()}
        values = self._ask(GetParameters, "get_parameters", asked)
        return {
            name: dict(zip(asked[full].names, map(parameter_value_to_python, values[full].values), strict=True))
            for name, full in known.items()
            if full in values
        }

    def _ask(self, kind: Any, service: str, requests: dict[str, Any]) -> dict[str, Any]:
        clients: dict[str, Any] = {full: self.create_client(kind, f"{full}/{service}") for full in requests}
        deadline_s = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline_s and not all(client.service_is_ready() for client in clients.values()):
            self._executor.spin_once(timeout_sec=0.05)
        futures = {full: clients[full].call_async(request) for full, request in requests.items()}
        while time.monotonic() < deadline_s and not all(future.done() for future in futures.values()):
            self._executor.spin_once(timeout_sec=0.05)
        return {full: future.result() for full, future in futures.items() if future.done() and future.result()}

    def resolve_node_name(self, name: str) -> str:
        """Full name of a node in this namespace."""
        return f"{self.get_namespace().rstrip('/')}/{name}"

    def listen(self, seconds: float, cameras: list[str], transports: tuple[str, str], *, sim_time: bool) -> None:
        """Take part in the graph for so long, hearing every camera that is known or seen, and the joint states."""
        prefix = self.resolve_node_name("")
        seen = [topic.removeprefix(prefix) for topic, _ in self.get_topic_names_and_types() if topic.startswith(prefix)]
        cameras = sorted({*cameras, *(found[1] for topic in seen if (found := _CAMERA.fullmatch(topic)))})
        for camera in cameras:
            kind, topic = stream_of(transports[0], topics.color(camera))
            self._hear(kind, topic, self._image(image_to_color))
            kind, topic = stream_of(transports[1], topics.depth(camera))
            self._hear(kind, topic, self._image(image_to_raw_depth))
            self._hear(CameraInfo, topics.color_info(camera), self._info)
        self._hear(JointState, "joint_states", self._joints)
        clock = self.get_clock() if sim_time else Clock(clock_type=ClockType.SYSTEM_TIME)
        self._now_ns = lambda: int(clock.now().nanoseconds)
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def speakers(self) -> dict[str, list[str]]:
        """Topic → full names of those who publish on it, of the topics that take one voice."""
        found = {topic: self.get_publishers_info_by_topic(topic) for topic in COMMANDS}
        return {topic: [_full_name(one) for one in publishers] for topic, publishers in found.items()}

    def _hear(self, kind: Any, topic: str, take: Callable[[Stream, Any], None]) -> None:
        publishers = self.get_publishers_info_by_topic(topic)
        own = self._own_host()
        stream = Stream(
            publishers[0].topic_type if publishers else "",
            [
                {
                    "node": _full_name(one),
                    "reliable": one.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
                    "elsewhere": bool(own) and _host(bytes(one.endpoint_gid)) not in ("", own),
                }
                for one in publishers
            ],
        )
        self.streams[topic] = stream
        if not publishers or stream.kind != f"sensor_msgs/msg/{kind.__name__}":
            return
        best_effort = not all(one["reliable"] for one in stream.publishers)
        profile: QoSProfile = qos.best_effort(qos.SENSOR) if best_effort else qos.SENSOR

        def hear(message: Any) -> None:
            stream.note(message.header, self._now_ns())
            take(stream, message)

        self.create_subscription(kind, topic, hear, profile)

    def _own_host(self) -> str:
        own = self.get_publishers_info_by_topic("/rosout")
        return next((_host(bytes(one.endpoint_gid)) for one in own if one.node_name == self.get_name()), "")

    @staticmethod
    def _image(pixels: Callable[[Any], NDArray[Any]]) -> Callable[[Stream, Any], None]:
        """Reads the first image of each encoding as our nodes do."""

        def take(stream: Stream, message: Any) -> None:
            encoding = message.encoding if isinstance(message, Image) else message.format
            if stream.details.get("encoding") == encoding:
                return
            stream.details |= {"encoding": encoding, "problem": "", "width": 0, "height": 0}
            try:
                height, width = pixels(message).shape[:2]
            except BadInput as error:
                stream.details["problem"] = str(error)
            else:
                stream.details |= {"width": int(width), "height": int(height)}

        return take

    @staticmethod
    def _info(stream: Stream, message: Any) -> None:
        stream.details |= {
            "width": int(message.width),
            "height": int(message.height),
            "K": info_to_K(message).tolist(),
            "D": [float(value) for value in message.d],
        }

    @staticmethod
    def _joints(stream: Stream, message: Any) -> None:
        joints = stream.details.setdefault("joints", {})
        velocities = len(message.velocity) == len(message.name)
        for name, position in zip(message.name, message.position, strict=False):
            value = float(position)
            joints[name] = {"position": value if np.isfinite(value) else None, "velocity": velocities}


def _full_name(endpoint: Any) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def _host(gid: bytes) -> str:
    """Mark of the machine in a GID, where the middleware is Fast DDS; empty otherwise."""
    return gid[2:4].hex() if gid.startswith(_FASTDDS) else ""


def main() -> None:
    """Print one JSON line."""
    seconds, color, depth, *cameras = remove_ros_args(sys.argv)[1:]
    rclpy.init()
    node = Observer()
    nodes = node.discover()
    parameters = node.parameters(nodes)
    sim_time = any(values.get("use_sim_time") for values in parameters.values())
    if sim_time:
        node.set_parameters([rclpy.parameter.Parameter("use_sim_time", value=True)])
    color = parameters.get("encoder", {}).get("image_transport", color)
    depth = parameters.get("policy", {}).get("depth_image_transport", depth)
    node.listen(float(seconds) if nodes else 0.0, cameras, (color, depth), sim_time=sim_time)
    streams = {topic: stream.to_dict() for topic, stream in node.streams.items()}
    found = {"nodes": nodes, "parameters": parameters, "streams": streams, "speakers": node.speakers()}
    print(json.dumps({**found, "sim_time": sim_time}))
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()

"""What a camera sees and where the arm is, for programs that are no node, such as `calibrate collect`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image, JointState

from embodied_vision.control.joint_parts import JointParts
from embodied_vision.errors import BadInput
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from embodied_vision.nodes.conversions import image_to_color, stamp_to_ns

Heard = tuple[int, NDArray[np.uint8] | NDArray[np.float64]]
"""Stamp in ns, and a picture uint8 (H, W, 3) or joint positions (J,) in rad."""


class Views:
    """Subscribes to pictures and joint states; what cannot be used is counted and passed over.

    Args:
        client: of the graph.
        color: topic of the pictures.
        joints: topic of the joint states.
        joint_names: of the arm.

    Attributes:
        problem: what was wrong with the last message that could not be used, in words.
    """

    def __init__(self, client: GraphClient, color: str, joints: str, joint_names: Sequence[str]) -> None:
        self.problem = ""
        self._parts = JointParts(joint_names)
        self._heard: queue.Queue[Heard] = queue.Queue()
        self._kinds: set[str] = set()
        self._lock = threading.Lock()
        profile = qos.best_effort(qos.SENSOR)  # hears drivers of either kind
        client.node.create_subscription(Image, color, self._on_color, profile)
        client.node.create_subscription(JointState, joints, self._on_joints, profile)

    def silent(self) -> list[str]:
        """Which of `pictures` and `joint states` have never been heard."""
        with self._lock:
            return [kind for kind in ("pictures", "joint states") if kind not in self._kinds]

    def take(self) -> Iterator[Heard]:
        """All that was heard since the last call, oldest first."""
        while True:
            try:
                yield self._heard.get_nowait()
            except queue.Empty:
                return

    def _on_color(self, message: Image) -> None:
        try:
            color = image_to_color(message)
        except BadInput as error:
            self.problem = str(error)
            return
        self._put("pictures", (stamp_to_ns(message.header.stamp), color))

    def _on_joints(self, message: JointState) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        try:
            joints = self._parts.add(message.name, message.position, message.velocity, stamp_ns)
        except BadInput as error:
            self.problem = str(error)
            return
        if joints is None:
            self.problem = f"joint states lack {self._parts.wanted}; is --robot the right one?"
        else:
            self._put("joint states", (joints.stamp_ns, joints.positions))

    def _put(self, kind: str, heard: Heard) -> None:
        with self._lock:
            self._kinds.add(kind)
        self._heard.put(heard)

"""A node's sign of life, and whether it still hears that of the supervisor's monitor."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from rclpy.node import Node
from std_msgs.msg import String

from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import from_json, to_json

DEAF_S = 8.0
"""A node that hears nothing of the monitor for so long, although the monitor lives, ends."""


class Heartbeat:
    """Publishes `heartbeat/NODE` and keeps account of the monitor's beats.

    Args:
        node: publishes.
        give_up: told why, when the process has lost its way into the graph.

    Attributes:
        publisher: of the beats; they end with it.
    """

    def __init__(self, node: Node, give_up: Callable[[str], None]) -> None:
        self._name, self._give_up = node.get_name(), give_up
        self.publisher = node.create_publisher(String, f"heartbeat/{self._name}", qos.HEARTBEAT)
        self._monitor_pid = 0
        self._beats_unheard = 0

    def beat(self, state: str) -> None:
        """Tell the state; to be called every `qos.HEARTBEAT_PERIOD_S`."""
        self.publisher.publish(to_json({"node": self._name, "state": state, "pid": os.getpid()}))
        self._beats_unheard += 1  # beats, not seconds: time in which this process stood still does not count
        if self._beats_unheard * qos.HEARTBEAT_PERIOD_S > DEAF_S and _lives(self._monitor_pid):
            self._beats_unheard = 0
            self._give_up(
                f"nothing heard of the supervisor's monitor for {DEAF_S:g} s, although it lives: this process has lost "
                "its way into the graph and ends, so that it is started again"
            )

    def hear_monitor(self, message: String) -> None:
        """Take a beat of the monitor."""
        beat = from_json(message, qos.MONITOR_TOPIC)
        self._beats_unheard = 0
        self._monitor_pid = int(beat.get("pid", 0)) if beat.get("host") == socket.gethostname() else 0


def _lives(pid: int) -> bool:
    return pid > 0 and os.path.exists(f"/proc/{pid}")

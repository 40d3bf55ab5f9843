"""Writes the heartbeats of nodes and their diagnostics as JSON lines, for the supervisor to read.

`python -m embodied_vision.nodes.monitor NODE… --ros-args …`; it is no lifecycle node, so that it
sees the others from their first moment on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from std_msgs.msg import String

from embodied_vision.nodes import qos

TICK_S = 0.5
QUIET_S = 10.0
_QOS = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
_LEVELS = {
    DiagnosticStatus.OK: "well again",
    DiagnosticStatus.WARN: "warning",
    DiagnosticStatus.ERROR: "error",
    DiagnosticStatus.STALE: "stale",
}


class Monitor(Node):
    """Hears the heartbeats of the named nodes in its namespace, and everybody's diagnostics."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("monitor")
        self._diagnostics: dict[str, tuple[Any, str, float]] = {}
        for name in names:
            self.create_subscription(String, f"heartbeat/{name}", self._hear(name), _QOS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._hear_diagnostics, _QOS)
        self._heartbeat = self.create_publisher(String, qos.MONITOR_TOPIC, qos.MONITOR)
        self._beat = String(data=json.dumps({"node": "monitor", "pid": os.getpid(), "host": socket.gethostname()}))
        self.create_timer(TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _tick(self) -> None:
        self._write({})
        self._heartbeat.publish(self._beat)

    def _write(self, content: dict[str, Any]) -> None:
        print(json.dumps({"time_s": time.monotonic(), **content}), flush=True)

    def _hear(self, name: str) -> Any:
        def hear(message: String) -> None:
            self._write({"node": name, **json.loads(message.data)})

        return hear

    def _hear_diagnostics(self, message: DiagnosticArray) -> None:
        """Report errors when they come, change and go; warnings that flutter, only now and then."""
        for status in message.status:
            level, text, since_s = self._diagnostics.get(status.name, (DiagnosticStatus.OK, "", 0.0))
            failed = DiagnosticStatus.ERROR in (status.level, level)
            changed = status.level != level or (failed and status.message != text)
            if not changed or not (failed or time.monotonic() - since_s > QUIET_S):
                continue
            self._diagnostics[status.name] = (status.level, status.message, time.monotonic())
            self._write({"node": status.name, "diagnostic": f"{_LEVELS[status.level]}: {status.message}"})


def main() -> None:
    """Run until the supervisor ends it."""
    names = remove_ros_args(sys.argv)[1:]
    rclpy.init()
    node = Monitor(names)
    executor = EventsExecutor()
    executor.add_node(node)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        while rclpy.ok():
            executor.spin_once(timeout_sec=1.0)  # spin() of this executor never dispatches in rclpy 9.1.2


if __name__ == "__main__":
    main()

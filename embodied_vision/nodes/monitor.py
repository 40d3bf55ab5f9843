"""Hears the heartbeats and diagnostics of a graph, tells their sum on `health`, and prints it as JSON lines.

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
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from std_msgs.msg import String

from embodied_vision.collection import TIDY_S, settle, tidy
from embodied_vision.launching.health import Health, Summary
from embodied_vision.nodes import qos

TICK_S = 0.5
QUIET_S = 10.0
"""A warning that changes is told again after so long."""

LASTING_S = 3.0
"""A warning is told when it has lasted so long: while a graph starts, everybody waits for somebody."""

_QOS = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
_LEVELS = {
    DiagnosticStatus.OK: "well again",
    DiagnosticStatus.WARN: "warning",
    DiagnosticStatus.ERROR: "error",
    DiagnosticStatus.STALE: "stale",
}


@dataclass
class _Said:
    """What a status said, since when, and what was told of it."""

    level: bytes = DiagnosticStatus.OK
    since_s: float = 0.0
    told_level: bytes = DiagnosticStatus.OK
    told_text: str = ""
    told_s: float = 0.0


class Monitor(Node):
    """Hears the named nodes in its namespace."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("monitor")
        self._health = Health(names)
        self._summary: Summary | None = None
        self._said: dict[str, _Said] = {}
        self._prefix = self.get_namespace().rstrip("/") + "/"
        for name in names:
            self.create_subscription(String, f"heartbeat/{name}", self._hear(name), _QOS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._hear_diagnostics, _QOS)
        self._heartbeat = self.create_publisher(String, qos.MONITOR_TOPIC, qos.MONITOR)
        self._beat = String(data=json.dumps({"node": "monitor", "pid": os.getpid(), "host": socket.gethostname()}))
        self._sum = self.create_publisher(DiagnosticStatus, "health", qos.STATUS)
        self.create_timer(TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _tick(self) -> None:
        summary = self._health.summary(time.monotonic())
        changed = summary != self._summary
        self._summary = summary
        self._write({"health": summary.to_dict()} if changed else {})
        if changed:
            self._sum.publish(self._status(summary))
        self._heartbeat.publish(self._beat)

    def _status(self, summary: Summary) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=bytes([summary.level]),
            name=f"{self._prefix}health",
            message=summary.words,
            values=[KeyValue(key=name, value=state) for name, state in summary.nodes.items()],
        )

    def _write(self, content: dict[str, Any]) -> None:
        print(json.dumps({"time_s": time.monotonic(), **content}), flush=True)

    def _hear(self, name: str) -> Any:
        def hear(message: String) -> None:
            beat = json.loads(message.data)
            self._health.beat(name, beat["state"], time.monotonic())
            self._write({"node": name, **beat})

        return hear

    def _hear_diagnostics(self, message: DiagnosticArray) -> None:
        """Take what nodes of this namespace say; others share the topic."""
        for status in message.status:
            full, _, about = status.name.partition(": ")
            name = full.removeprefix(self._prefix)
            if full.startswith(self._prefix) and "/" not in name:
                self._health.status(name, about, status.level[0], status.message, time.monotonic())
                self._tell(status)

    def _tell(self, status: DiagnosticStatus) -> None:
        """Report errors when they come, change and go; warnings when they last, and if they flutter, now and then."""
        now_s = time.monotonic()
        said = self._said.setdefault(status.name, _Said())
        if status.level != said.level:
            said.level, said.since_s = status.level, now_s
        failed = DiagnosticStatus.ERROR in (status.level, said.told_level)
        changed = status.level != said.told_level or (failed and status.message != said.told_text)
        lasting = status.level == DiagnosticStatus.OK or now_s - said.since_s > LASTING_S
        if not changed or not (failed or (lasting and now_s - said.told_s > QUIET_S)):
            return
        said.told_level, said.told_text, said.told_s = status.level, status.message, now_s
        self._write({"node": status.name, "diagnostic": f"{_LEVELS[status.level]}: {status.message}"})


def main() -> None:
    """Run until the supervisor ends it."""
    names = remove_ros_args(sys.argv)[1:]
    rclpy.init()
    node = Monitor(names)
    executor = EventsExecutor()
    executor.add_node(node)
    settle()
    node.create_timer(TIDY_S, lambda: tidy(give_back=False), clock=Clock(clock_type=ClockType.STEADY_TIME))
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        while rclpy.ok():
            executor.spin_once(timeout_sec=1.0)  # spin() of this executor never dispatches in rclpy 9.1.2


if __name__ == "__main__":
    main()

"""Latency is read on the `trace` topic: each stage stamps CLOCK_MONOTONIC beside the stamp of the frame it handles.

One DiagnosticArray a mark: its header carries the frame's stamp, its status the stage's name and the clock in ns.
The clock is shared by all processes of one machine, so that differences between marks are latencies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import ns_to_stamp, stamp_to_ns

_CLOCK_KEY = "monotonic_ns"


@dataclass(frozen=True)
class Mark:
    """A stage handled the frame stamped `stamp_ns` when CLOCK_MONOTONIC showed `monotonic_ns`."""

    stage: str
    stamp_ns: int
    monotonic_ns: int


class Tracer:
    """Publishes marks of one node.

    Stages are named `<node>.<verb>`: cell.publish, encoder.receive, encoder.publish, policy.receive, policy.decide,
    arm.receive, arm.publish; and within them encoder.begin (a frame is taken up), encoder.converted (its pixels are
    there), encoder.encoded (its features are), policy.begin, policy.converted, policy.decided in the same way.
    """

    def __init__(self, node: Node) -> None:
        self._name = node.get_name()
        self._publisher = node.create_publisher(DiagnosticArray, "trace", qos.TRACE)

    def mark(self, stage: str, stamp_ns: int, monotonic_ns: int | None = None) -> None:
        """Say that `stage` handled the frame stamped `stamp_ns`, now or at `monotonic_ns`."""
        self.marks(stamp_ns, {stage: time.monotonic_ns() if monotonic_ns is None else monotonic_ns})

    def marks(self, stamp_ns: int, clocks: Mapping[str, int]) -> None:
        """Say when several stages handled the frame stamped `stamp_ns`, each by CLOCK_MONOTONIC in ns."""
        message = DiagnosticArray()
        message.header.stamp = ns_to_stamp(stamp_ns)
        message.status = [
            DiagnosticStatus(
                level=DiagnosticStatus.OK,
                name=stage,
                hardware_id=self._name,
                values=[KeyValue(key=_CLOCK_KEY, value=str(clock))],
            )
            for stage, clock in clocks.items()
        ]
        self._publisher.publish(message)


def read_marks(message: DiagnosticArray) -> list[Mark]:
    """The marks in one message of `trace`."""
    stamp_ns = stamp_to_ns(message.header.stamp)
    return [
        Mark(status.name, stamp_ns, int(value.value))
        for status in message.status
        for value in status.values
        if value.key == _CLOCK_KEY
    ]

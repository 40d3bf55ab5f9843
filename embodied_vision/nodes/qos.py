"""Quality of service of every topic: the one table.

Sensor streams are offered reliably, so that a recorder misses nothing; our readers ask for what the publisher
offers (`ManagedNode.subscribe_sensor`), so that a driver that publishes best effort works as well.
"""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

HEARTBEAT_LEASE_S = 0.2
"""A process that was killed or stopped is noticed after this time."""

HEARTBEAT_PERIOD_S = 0.2
"""Time between two heartbeat messages; a main thread that hangs is noticed by their absence."""


def _reliable(depth: int, *, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


COMMAND = _reliable(1)
"""`arm/joint_trajectory`, `gripper/command`: only the newest command counts."""

DECISION = _reliable(1)
"""`pick_place`, `policy/decision`: one at a time."""

SENSOR = _reliable(10)
"""Images, camera info, joint states, features: publishers, and readers that want the newest few."""

LOG = _reliable(120)
"""The recorder's side of the sensor streams: deep enough to sit out a slow disk for some seconds."""

STATUS = _reliable(1, latched=True)
"""`encoder/info`, `policy/info`, `arm/status`, `outcome`, …: who comes late gets the last one."""

EVENT = _reliable(20, latched=True)
"""`episode/event`: none may be lost; each carries `stamp_ns`, so that a late reader can tell old ones."""

TRACE = _reliable(200)
"""`trace`: small and frequent."""

DIAGNOSTICS = _reliable(10)
"""`/diagnostics`, read by the usual tools."""

MONITOR_TOPIC = "heartbeat/monitor"
MONITOR = _reliable(1)
"""`heartbeat/monitor`, by which a node knows that it still hears."""

HEARTBEAT = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Duration(nanoseconds=int(HEARTBEAT_LEASE_S * 1e9)),
)
"""`heartbeat/<node>`, both sides."""


def best_effort(profile: QoSProfile) -> QoSProfile:
    """What a reader falls back to when the driver offers no more."""
    return QoSProfile(history=profile.history, depth=profile.depth, reliability=ReliabilityPolicy.BEST_EFFORT)

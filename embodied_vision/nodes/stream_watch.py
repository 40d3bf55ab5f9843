"""The streams that a node reads: subscriptions that count what came, and what /diagnostics says about each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import MessageInfo, Subscription

from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import stamp_to_ns
from embodied_vision.nodes.losses import Losses
from embodied_vision.nodes.streams import Receipt, Stream

STREAM_CHECK_S = 0.1
"""Time between two looks at the streams that a node reads."""


@dataclass(eq=False)
class _Read:
    """A stream that a node reads."""

    stream: Stream
    subscription: Subscription[Any]
    level: bytes = DiagnosticStatus.OK
    message: str = "no message yet"


class StreamWatch:
    """Subscribes to streams and watches them.

    Args:
        node: subscribes.
        passes_info: whether the node's executor passes a MessageInfo beside a message.
        tell: publishes statuses; called when the level of a stream changes.
    """

    def __init__(self, node: Node, passes_info: bool, tell: Callable[[list[DiagnosticStatus]], None]) -> None:
        self._node, self._passes_info, self._tell = node, passes_info, tell
        self._reads: list[_Read] = []

    @property
    def empty(self) -> bool:
        """Whether no stream is read."""
        return not self._reads

    def read(
        self,
        message_type: type[Any],
        topic: str,
        callback: Callable[..., None],
        profile: QoSProfile,
        *,
        silent_s: float,
        with_info: bool,
    ) -> Callable[[], None]:
        """Subscribe as `profile` says, or best effort where no more is offered; returns what ends the subscription.

        Args:
            message_type: class of the messages.
            topic: relative name.
            callback: takes the message, or with `with_info` it and its MessageInfo.
            profile: depth, and durability.
            silent_s: longest silence of the stream, s.
            with_info: what `callback` takes.
        """
        stream = Stream(topic, silent_s, time.monotonic())
        take = self._watched(stream, callback, with_info)

        def fall_back(_event: object) -> None:
            self._node.get_logger().warning(
                f"{topic} is offered best effort only; frames may be lost on the way (set the Fast DDS profile)"
            )
            self._node.destroy_subscription(read.subscription)
            read.subscription = self._node.create_subscription(message_type, topic, take, qos.best_effort(profile))

        events = SubscriptionEventCallbacks(incompatible_qos=fall_back)
        subscription = self._node.create_subscription(message_type, topic, take, profile, event_callbacks=events)
        read = _Read(stream, subscription)
        self._reads.append(read)

        def end() -> None:
            self._node.destroy_subscription(read.subscription)
            self._reads.remove(read)

        return end

    def check(self) -> None:
        """Look at every stream, to be called every `STREAM_CHECK_S`; what changes its level is told at once."""
        now_s = time.monotonic()
        changed = []
        for read in self._reads:
            level, read.message = read.stream.look(now_s, read.subscription.get_publisher_count)
            if level != read.level:
                read.level = level
                changed.append(self._status(read))
        if changed:
            self._tell(changed)

    def statuses(self) -> list[DiagnosticStatus]:
        """What is to be said about every stream."""
        return [self._status(read) for read in self._reads]

    def _status(self, read: _Read) -> DiagnosticStatus:
        values = read.stream.values(time.monotonic())
        return DiagnosticStatus(
            level=read.level,
            name=f"{self._node.get_fully_qualified_name()}: {read.stream.topic}",
            message=read.message,
            hardware_id=self._node.get_name(),
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )

    def _watched(self, stream: Stream, callback: Callable[..., None], with_info: bool) -> Callable[..., None]:
        """`callback`, after the message was counted."""
        losses, clock = Losses(), self._node.get_clock()

        def take(message: Any, info: MessageInfo) -> None:
            header = getattr(message, "header", None)
            stamp_ns = 0 if header is None else stamp_to_ns(header.stamp)
            sent, received = info.get("source_timestamp") or 0, info.get("received_timestamp") or 0
            receipt = Receipt(
                time.monotonic(),
                (int(clock.now().nanoseconds) - stamp_ns) * 1e-9 if stamp_ns else None,
                (received - sent) * 1e-9 if sent and received else None,
            )
            stream.note(receipt, losses.before(info) if info else None)
            callback(message, info) if with_info else callback(message)

        if self._passes_info:
            return take
        return lambda message: take(message, cast(MessageInfo, {}))  # rclpy 9.1.2: the events executor passes none

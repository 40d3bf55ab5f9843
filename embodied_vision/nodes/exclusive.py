"""Notices who else publishes on the topics that only one node may speak on: our commands, and the decisions we follow.

The graph is asked, which costs microseconds; nothing is subscribed to. What follows is the caller's business.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import MessageInfo

from embodied_vision.control.speakers import UNKNOWN, Deciders, Intruder, OwnTopics, Speaker
from embodied_vision.errors import RunFailed

_MessageT = TypeVar("_MessageT")

_TRIES, _APPEAR_S = 3, 1.0
_NAMELESS = "_NODE_NAME_UNKNOWN_"


class Exclusive:
    """The publishers of one node's command topics, and the senders of what it follows.

    Args:
        node: whose commands and decisions they are.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._name = node.get_fully_qualified_name()
        self._own: dict[str, list[bytes]] = {}
        self._topics: dict[str, OwnTopics] = {}
        self._deciders: dict[str, Deciders] = {}

    def publisher(self, kind: type[_MessageT], topic: str, profile: QoSProfile) -> Publisher[_MessageT]:
        """A publisher of the node, on a topic where nobody else may publish.

        Raises:
            RunFailed: the graph does not tell which publisher is ours.
        """
        resolved = self._node.resolve_topic_name(topic)
        for _ in range(_TRIES):
            before = frozenset(speaker.gid for speaker in self._speakers(resolved))
            made: Publisher[_MessageT] = self._node.create_publisher(kind, topic, profile)
            new = self._appeared(resolved, before)
            if len(new) == 1:
                self._own.setdefault(resolved, []).extend(new)
                self.watch(topic)
                return made
            self._node.destroy_publisher(made)  # a namesake was discovered in this very moment: which one are we?
        raise RunFailed(
            f"the graph does not tell which publisher of {resolved} is that of {self._name}; is another {self._name} "
            "being started? End it, and start this one again"
        )

    def _appeared(self, topic: str, before: frozenset[bytes]) -> list[bytes]:
        """GIDs of new publishers of our name: at once with Fast DDS, a moment later with others."""
        until_s = time.monotonic() + _APPEAR_S
        while True:
            new = [one.gid for one in self._speakers(topic) if one.gid not in before and one.node == self._name]
            if new or time.monotonic() > until_s:
                return new
            time.sleep(0.001)

    def watch(self, topic: str) -> None:
        """Let nobody else publish on a topic, whether or not the node does itself."""
        resolved = self._node.resolve_topic_name(topic)
        self._topics[resolved] = OwnTopics(self._name, self._own.get(resolved, ()))

    def intruder(self) -> Intruder | None:
        """Who publishes on a command topic beside us; one that surely lives before one that may be dead."""
        now_s = time.monotonic()
        found = [own.look(topic, self._speakers(topic), now_s) for topic, own in self._topics.items()]
        return max((one for one in found if one is not None), key=lambda one: one.lives, default=None)

    def rival(self, topic: str, info: MessageInfo) -> str:
        """Who the sender of this message competes with, in words; empty when it is the only one."""
        sender = info["publisher_gid"]
        if sender is None:
            return ""
        resolved = self._node.resolve_topic_name(topic)
        deciders = self._deciders.setdefault(resolved, Deciders())
        return deciders.heard(resolved, bytes(sender["data"]), self._speakers(resolved))

    def forget(self) -> None:
        """Take whoever decides next for the one that decides, as after a stop that a person has ended."""
        self._deciders.clear()

    def _speakers(self, topic: str) -> list[Speaker]:
        found: list[Any] = self._node.get_publishers_info_by_topic(topic)
        return [Speaker(bytes(one.endpoint_gid), _full_name(one.node_namespace, one.node_name)) for one in found]


def _full_name(namespace: str, name: str) -> str:
    return UNKNOWN if name in ("", _NAMELESS) else f"{namespace.rstrip('/')}/{name}"

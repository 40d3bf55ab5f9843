"""Calls from other threads, for the thread that spins a node."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rclpy.node import Node


class Inbox:
    """Runs what is posted soon, in turn, on the thread that spins a node.

    Args:
        node: spun by an executor.
        guarded: whether that executor knows guard conditions; the events executor does not.
    """

    def __init__(self, node: Node, guarded: bool) -> None:
        self._node = node
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = node.create_guard_condition(self._drain) if guarded else None

    def post(self, call: Callable[[], None]) -> None:
        """Have `call` run soon; may be called from any thread."""
        self._calls.append(call)
        if self._wake is not None:
            self._wake.trigger()
        elif (executor := self._node.executor) is not None:
            executor.create_task(self._drain)

    def _drain(self) -> None:
        while self._calls:
            self._calls.popleft()()

"""A Trigger service that answers when the work is done, while its node goes on spinning.

The coroutine way of rclpy does not do here: its single-threaded executor starves the rest while a coroutine waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.service import Service
from std_srvs.srv import Trigger


class Answer:
    """What one caller waits for; call `give` once, on the thread that spins the node."""

    def __init__(self) -> None:
        self._send: Callable[[Trigger.Response], None] | None = None
        self._response: Trigger.Response | None = None

    def give(self, success: bool, message: str) -> None:
        """Answer the caller; a second answer is ignored."""
        if self._response is not None:
            return
        self._response = Trigger.Response(success=success, message=message)
        if self._send is not None:
            self._send(self._response)

    def _bind(self, send: Callable[[Trigger.Response], None]) -> None:
        self._send = send
        if self._response is not None:
            send(self._response)


class DeferredTrigger:
    """Serves `name`; `handle` gets an `Answer` that it may give at once or later."""

    def __init__(self, node: Node, name: str, handle: Callable[[Answer], None]) -> None:
        self._handle = handle
        self._service: Service[Any, Any] = node.create_service(Trigger, name, self._call)
        self._send = self._service.send_response
        self._service.send_response = self._intercept  # type: ignore[method-assign,assignment]

    def _call(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        answer = Answer()
        self._handle(answer)
        response.message = ""
        self._current = answer
        return response

    def _intercept(self, _response: Trigger.Response, header: Any) -> None:
        self._current._bind(lambda response: self._send(response, header))

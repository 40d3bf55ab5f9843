"""Talk to a running graph from an ordinary program: call triggers, set parameters, wait for status topics.

For the demo, the benches and the system tests; nothing on the control path uses it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, cast

import rclpy
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodied_vision.errors import RunFailed

STATUS_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class GraphClient:
    """A node in this process that spins in its own thread; use it as a context manager.

    Args:
        namespace: namespace of the graph to talk to.
        domain_id: ROS domain of the graph; None takes ROS_DOMAIN_ID.
    """

    def __init__(self, namespace: str = "", domain_id: int | None = None) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node("client", namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._changed = threading.Condition()
        self._status: dict[str, list[dict[str, Any]]] = {}
        self._services: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def __enter__(self) -> GraphClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=10.0)
        self._thread.join(timeout=10.0)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def watch(self, *topics: str) -> None:
        """Start to keep the JSON messages of latched status topics, see `messages` and `wait`."""
        for topic in topics:
            if topic not in self._status:
                self._status[topic] = []
                self.node.create_subscription(String, topic, self._keeper(topic), STATUS_QOS)

    def _keeper(self, topic: str) -> Callable[[String], None]:
        def keep(message: String) -> None:
            with self._changed:
                self._status[topic].append(json.loads(message.data))
                self._changed.notify_all()

        return keep

    def messages(self, topic: str) -> list[dict[str, Any]]:
        """All messages of a watched topic so far, oldest first."""
        with self._changed:
            return list(self._status[topic])

    def wait(
        self,
        topic: str,
        accept: Callable[[dict[str, Any]], bool],
        timeout_s: float,
        alive: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """The newest message of a watched topic, as soon as it is accepted.

        Args:
            alive: called every half second; raises to give up early, for instance when a process died.

        Raises:
            RunFailed: nothing acceptable came in time; the message shows the last one.
        """
        deadline = time.monotonic() + timeout_s
        self.watch(topic)
        while True:
            with self._changed:
                seen = self._status[topic]
                if seen and accept(seen[-1]):
                    return seen[-1]
                left = deadline - time.monotonic()
                if left <= 0:
                    last = seen[-1] if seen else "nothing; is the node active?"
                    raise RunFailed(f"waited {timeout_s:.0f} s for {topic}; it last said: {last}")
                self._changed.wait(min(left, 0.5))
            alive()

    def _found(self, kind: Any, service: str, timeout_s: float) -> Any:
        """The client of a service, the same one every time."""
        with self._changed:
            if service not in self._services:
                self._services[service] = self.node.create_client(kind, service)
            client = self._services[service]
        if not client.wait_for_service(timeout_sec=timeout_s):
            raise RunFailed(f"service {service} is not there after {timeout_s:.0f} s; is its node active?")
        return client

    def _call(self, kind: Any, service: str, request: Any, timeout_s: float) -> Any:
        client = self._found(kind, service, timeout_s)
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_s):
            client.remove_pending_request(future)
            raise RunFailed(f"service {service} did not answer within {timeout_s:.0f} s")
        return future.result()

    def find(self, service: str, timeout_s: float = 20.0) -> None:
        """Find a `std_srvs/Trigger` now, so that a call that must be quick, such as of `arm/stop`, need not.

        Raises:
            RunFailed: it is not there in time.
        """
        self._found(Trigger, service, timeout_s)

    def trigger(self, service: str, timeout_s: float = 20.0) -> str:
        """Call a `std_srvs/Trigger` and return its message.

        Raises:
            RunFailed: no service, no answer in time, or `success` is false.
        """
        answer = self._call(Trigger, service, Trigger.Request(), timeout_s)
        if not answer.success:
            raise RunFailed(f"{service} refused: {answer.message}")
        return str(answer.message)

    def set_parameters(
        self,
        node: str,
        values: Mapping[str, bool | int | float | str | list[int] | list[str]],
        timeout_s: float = 10.0,
    ) -> None:
        """Set parameters of a node of this graph.

        Raises:
            RunFailed: the node refused a value; the message holds its reason.
        """
        request = SetParameters.Request()
        parameters: list[ParameterMessage] = [
            Parameter(name, value=cast(Any, value)).to_parameter_msg() for name, value in values.items()
        ]
        request.parameters = parameters
        answer = self._call(SetParameters, f"{node}/set_parameters", request, timeout_s)
        for name, result in zip(values, answer.results, strict=True):
            if not result.successful:
                raise RunFailed(f"{node} refused {name} = {values[name]!r}: {result.reason}")

"""What all nodes share: a life cycle that says what went wrong, a heartbeat, diagnostics, parameters and streams."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import partial, wraps
from inspect import signature
from typing import Any, ClassVar, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from std_msgs.msg import String

from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import from_json
from embodied_vision.nodes.declaring import Declarations
from embodied_vision.nodes.heartbeat import Heartbeat
from embodied_vision.nodes.inbox import Inbox
from embodied_vision.nodes.stream_watch import STREAM_CHECK_S, StreamWatch

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

LAST_WORDS_S = 0.5
"""How long a node that ends waits for its readers: what they have not taken by then is lost with its memory."""

_MessageT = TypeVar("_MessageT")


class ManagedNode(LifecycleNode):
    """A lifecycle node. A subclass declares parameters in its constructor and fills in four steps.

    Each step may raise: the error is logged (with its traceback unless it is one of ours) and the transition fails.
    Timers and subscriptions made in `start` through `every`, `subscribe` and `subscribe_sensor` end by themselves when
    the node is deactivated. Publishers and services are best made in the constructor or in `setup`.
    """

    HANDLES_IMAGES: ClassVar[bool] = True
    """Whether it holds large blocks for a while, and gives their memory back."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._heartbeat = Heartbeat(self, self.give_up)
        self.exit_code = 0
        self._declarations = Declarations(self)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._active_parts: list[Callable[[], object]] = []
        self._stop: Callable[[], None] | None = None
        self._configured: Callable[[], None] | None = None
        self._health = DiagnosticStatus(level=OK, message="unconfigured", hardware_id=self.get_name())
        self._health.name = self.get_fully_qualified_name()
        self.param(
            "executor",
            "single",
            "what runs the callbacks; events takes less processor time, counts no losses, not for arm and recorder",
            choices=("single", "events"),
            read_only=True,
        )
        self._passes_info = self.value("executor") != "events"
        self._inbox = Inbox(self, guarded=self._passes_info)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._streams = StreamWatch(self, self._passes_info, self._publish_statuses)
        hear = self._tolerant(qos.MONITOR_TOPIC, self._heartbeat.hear_monitor)
        self.create_subscription(String, qos.MONITOR_TOPIC, hear, qos.MONITOR)
        self.create_timer(qos.HEARTBEAT_PERIOD_S, lambda: self._heartbeat.beat(self.state), clock=self._steady)
        self.create_timer(1.0, self._publish_health, clock=self._steady)
        self.param("autostart", True, "configure and activate by itself after the start")
        self.param(
            "after", [""], "with autostart: nodes that must be active before this one becomes it", read_only=True
        )
        self.param(
            "stream_timeout",
            0.7,
            "longest silence of a stream that flows, before /diagnostics says ERROR, s",
            (0.1, 60.0),
        )

    # ---- the four steps

    def setup(self) -> None:
        """Load and check; called by configure."""

    def start(self) -> None:
        """Subscribe and act; called by activate."""

    def halt(self) -> None:
        """Stop acting; called by deactivate, by a failed activate, and before `teardown`. May be called twice."""

    def teardown(self) -> None:
        """Let go of what `setup` took; called by cleanup, shutdown and a failed configure. May be called twice."""

    # ---- parameters

    def param(
        self,
        name: str,
        default: Any,
        description: str,
        bounds: tuple[float, float] | None = None,
        *,
        choices: tuple[str, ...] = (),
        read_only: bool = False,
    ) -> None:
        """Declare a parameter; `bounds` are inclusive, of `choices` it must be one. Read it with `value`."""
        self._declarations.declare(name, default, description, bounds, choices, read_only)

    def choices(self, name: str) -> tuple[str, ...]:
        """What a parameter must be one of; empty where it is free."""
        return self._declarations.choices.get(name, ())

    def value(self, name: str) -> Any:
        """Current value of a parameter."""
        return self.get_parameter(name).value

    # ---- health

    @property
    def state(self) -> str:
        """`unconfigured`, `inactive`, `active` or `finalized` (or a transition between them)."""
        return str(self._state_machine.current_state[1])

    @property
    def is_active(self) -> bool:
        """Whether the node acts."""
        return self.state == "active"

    def health(self, level: bytes, message: str, **values: object) -> None:
        """What this node says on /diagnostics from now on; published at once when the level changes."""
        changed = level != self._health.level
        self._health = DiagnosticStatus(
            level=level,
            name=self.get_fully_qualified_name(),
            message=message,
            hardware_id=self.get_name(),
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        if changed:
            self._publish_health()

    def now_ns(self) -> int:
        """The node's clock, in ns: system time, or simulated time under `use_sim_time`."""
        return int(self.get_clock().now().nanoseconds)

    def _publish_health(self) -> None:
        self._publish_statuses([self._health, *self._streams.statuses()])

    def _publish_statuses(self, statuses: list[DiagnosticStatus]) -> None:
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def post(self, call: Callable[[], None]) -> None:
        """Have `call` run soon on the thread that spins the node; may be called from any thread."""
        self._inbox.post(call)

    # ---- what lives while the node is active

    def every(self, period_s: float, callback: Callable[[], None]) -> Timer:
        """A timer on the steady clock, which ticks even where simulated time stands still."""
        timer = self.create_timer(period_s, callback, clock=self._steady)
        self._active_parts.append(lambda: self.destroy_timer(timer))
        return timer

    def subscribe(
        self,
        message_type: type[_MessageT],
        topic: str,
        profile: QoSProfile,
        callback: Callable[..., None],
        *,
        event_callbacks: SubscriptionEventCallbacks | None = None,
    ) -> Subscription[Any]:
        """A subscription with a fixed quality of service; `callback` takes the message, or it and its MessageInfo."""
        self._can_have_info(topic, callback)
        subscription = self.create_subscription(
            message_type, topic, self._tolerant(topic, callback), profile, event_callbacks=event_callbacks
        )
        self._active_parts.append(lambda: self.destroy_subscription(subscription))
        return subscription

    def subscribe_sensor(
        self,
        message_type: type[_MessageT],
        topic: str,
        callback: Callable[..., None],
        profile: QoSProfile = qos.SENSOR,
        *,
        silent_s: float | None = None,
    ) -> None:
        """A watched subscription that asks for reliable delivery and takes best effort where no more is offered.

        Args:
            message_type: class of the messages.
            topic: relative name.
            callback: takes the message, or it and its MessageInfo.
            profile: depth, and durability.
            silent_s: longest silence before /diagnostics says ERROR, s; None takes the parameter `stream_timeout`,
                infinite is for streams that come only now and then.
        """
        longest_s = self.value("stream_timeout") if silent_s is None else silent_s
        with_info = self._can_have_info(topic, callback)
        if self._streams.empty:
            self.every(STREAM_CHECK_S, self._streams.check)
        end = self._streams.read(
            message_type, topic, self._tolerant(topic, callback), profile, silent_s=longest_s, with_info=with_info
        )
        self._active_parts.append(end)

    def _can_have_info(self, topic: str, callback: Callable[..., None]) -> bool:
        """Whether a callback takes the MessageInfo.

        Raises:
            BadInput: it does, but the executor passes none.
        """
        takes_info = _takes_info(callback)
        if takes_info and not self._passes_info:
            raise BadInput(
                f"{self.get_name()} must know who sent a message on {topic}, and when, which the executor `events` "
                "does not tell; set the parameter executor to single"
            )
        return takes_info

    def _tolerant(self, topic: str, callback: Callable[..., None]) -> Callable[..., None]:
        """`callback`, but a message that cannot be used is reported and left out instead of ending the node."""

        @wraps(callback)
        def tolerant(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except BadInput as error:
                self.get_logger().error(f"message on {topic} left out: {error}")
                self.health(WARN, f"message on {topic} left out: {error}")

        return tolerant

    def _end_active_parts(self) -> None:
        while self._active_parts:
            self._active_parts.pop()()

    # ---- transitions

    def bring_up(self) -> bool:
        """Configure, and activate as soon as those that come first are active; whether that can still succeed."""
        if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
            return False
        waiting = {name for name in self.value("after") if name}
        if not waiting:
            return bool(self.trigger_activate() == TransitionCallbackReturn.SUCCESS)
        self.health(OK, f"configured, waits for {', '.join(sorted(waiting))}")

        def hear(name: str, message: String) -> None:
            if name in waiting and from_json(message, f"heartbeat/{name}").get("state") == "active":
                waiting.discard(name)
                if not waiting:
                    self.post(done)

        def done() -> None:
            for subscription in subscriptions:
                self.destroy_subscription(subscription)
            if self.state == "inactive" and self.trigger_activate() != TransitionCallbackReturn.SUCCESS:
                self.stop()

        subscriptions = []
        for name in sorted(waiting):
            topic = f"heartbeat/{name}"
            take = self._tolerant(topic, partial(hear, name))
            subscriptions.append(self.create_subscription(String, topic, take, qos.MONITOR))
        return True

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.exit_code = 0  # a new attempt: an earlier failure no longer decides how the process ends
        if not self._attempt("configure", self.setup):
            self._attempt("clean up", self.teardown)
            return TransitionCallbackReturn.FAILURE
        self.health(OK, "configured")
        if self._configured is not None:
            self._configured()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.exit_code = 0
        if not self._attempt("activate", self.start):
            self._attempt("deactivate", self.halt)
            self._end_active_parts()
            return TransitionCallbackReturn.FAILURE
        if self._health.message.startswith("configured"):
            self.health(OK, "active")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = self._attempt("deactivate", self.halt)
        self._end_active_parts()
        result = super().on_deactivate(state)
        return result if done else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = self._attempt("clean up", self.teardown)
        result = super().on_cleanup(state)
        return result if done else TransitionCallbackReturn.ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if state.label == "active":
            self._attempt("deactivate", self.halt)
            self._end_active_parts()
        self._attempt("clean up", self.teardown)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._end_active_parts()
        self._attempt("clean up", self.teardown)
        super().on_error(state)
        return TransitionCallbackReturn.SUCCESS

    def _attempt(self, what: str, step: Callable[[], None]) -> bool:
        """Run one step; log and remember what it raised."""
        try:
            step()
        except EmbodiedVisionError as error:
            self._record_failure(f"cannot {what}: {error}", error.exit_code)
        except Exception as error:
            self._record_failure(f"cannot {what}: {error!r}\n{traceback.format_exc()}", 1)
        else:
            return True
        return False

    def _record_failure(self, message: str, exit_code: int) -> None:
        self.get_logger().error(message)
        self.health(ERROR, message)
        self._publish_health()  # also where the level was that already: it is the last word
        self.exit_code = self.exit_code or exit_code

    def give_up(self, message: str, exit_code: int = 1) -> None:
        """End the process from within: log, shut down cleanly, exit with `exit_code`."""
        self._record_failure(message, exit_code)
        self.stop()

    def stop(self) -> None:
        """End the process from within, its work being done."""
        if self._stop is not None:
            self._stop()

    def destroy_node(self) -> None:
        """Leave the graph, DDS participant and all, once those who listen have its last words.

        The state machine holds on to the node, and rclpy leaves it be: the threads of Fast DDS would go on until the
        process ends, and now and then one of them would find the library's constants gone.
        """
        self.destroy_publisher(self._heartbeat.publisher)  # who needs this node stops at once
        end_s = time.monotonic() + LAST_WORDS_S
        for publisher in self.publishers:
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, end_s - time.monotonic())))
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Have `stop` end the process; called by what spins the node."""
        self._stop = stop

    def on_configured(self, call: Callable[[], None]) -> None:
        """Have `call` made whenever `setup` has loaded what the node needs; called by what spins the node."""
        self._configured = call


def _takes_info(callback: Callable[..., None]) -> bool:
    """Whether a callback wants the MessageInfo beside the message."""
    try:
        signature(callback).bind(object(), object())
    except TypeError:
        return False
    return True

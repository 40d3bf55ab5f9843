"""What all nodes share: a life cycle that says what went wrong, a heartbeat, diagnostics, parameters, and main()."""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from types import FrameType
from typing import Any, TypeVar, cast

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.experimental import EventsExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import MessageInfo, Subscription
from rclpy.task import Future
from rclpy.timer import Timer
from std_msgs.msg import String

from embodied_vision.allocation import keep_large_blocks
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.launching.security import require_enforced
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import from_json, stamp_to_ns, to_json
from embodied_vision.nodes.given import Given
from embodied_vision.nodes.losses import Losses
from embodied_vision.nodes.streams import Receipt, Stream

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE

DEAF_S = 8.0
"""A node that hears nothing of the monitor for so long, although the monitor lives, ends."""

STREAM_CHECK_S = 0.1
"""Time between two looks at the streams that a node reads."""

SWITCH_S = 0.001
"""How long a thread that computes may keep the others of its node from messages; Python's own 5 ms are many hops."""

_MessageT = TypeVar("_MessageT")


@dataclass
class _Read:
    """A stream that a node reads."""

    stream: Stream
    subscription: Subscription[Any]
    level: bytes = OK
    message: str = "no message yet"


class ManagedNode(LifecycleNode):
    """A lifecycle node. A subclass declares parameters in its constructor and fills in four steps.

    Each step may raise: the error is logged (with its traceback unless it is one of ours) and the transition fails.
    Timers and subscriptions made in `start` through `every`, `subscribe` and `subscribe_sensor` end by themselves when
    the node is deactivated. Publishers and services are best made in the constructor or in `setup`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.exit_code = 0
        self._choices: dict[str, tuple[str, ...]] = {}
        self.add_on_set_parameters_callback(_refuse_non_finite)
        self.add_on_set_parameters_callback(self._refuse_other_choices)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._active_parts: list[Callable[[], object]] = []
        self._stop: Callable[[], None] | None = None
        self._health = DiagnosticStatus(level=OK, message="unconfigured", hardware_id=self.get_name())
        self._health.name = self.get_fully_qualified_name()
        self._streams: dict[str, _Read] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self.param(
            "executor",
            "single",
            "what runs the callbacks; events takes less processor time, counts no losses, not for arm and recorder",
            choices=("single", "events"),
            read_only=True,
        )
        events = self.value("executor") == "events"  # whose executor knows no guard conditions
        self._wake = None if events else self.create_guard_condition(self._drain)
        self._heartbeat = self.create_publisher(String, f"heartbeat/{self.get_name()}", qos.HEARTBEAT)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._monitor_pid = 0
        self._beats_unheard = 0
        hear = self._tolerant(qos.MONITOR_TOPIC, self._hear_monitor)
        self.create_subscription(String, qos.MONITOR_TOPIC, hear, qos.MONITOR)
        self.create_timer(qos.HEARTBEAT_PERIOD_S, self._beat, clock=self._steady)
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
        descriptor = ParameterDescriptor(name=name, description=description, read_only=read_only)
        if choices:
            self._choices[name] = choices
            descriptor.additional_constraints = f"one of {', '.join(choices)}"
        if bounds is not None and isinstance(default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(bounds[0]), to_value=int(bounds[1]))]
        elif bounds is not None:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(bounds[0]), to_value=float(bounds[1]))
            ]
        self.declare_parameter(name, default, descriptor)

    def _refuse_other_choices(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            choices = self._choices.get(parameter.name, ())
            if choices and parameter.value not in choices:
                reason = f"{parameter.name} must be one of {', '.join(choices)}, not {parameter.value!r}"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

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

    def _beat(self) -> None:
        self._heartbeat.publish(to_json({"node": self.get_name(), "state": self.state, "pid": os.getpid()}))
        self._beats_unheard += 1  # beats, not seconds: time in which this process stood still does not count
        if self._beats_unheard * qos.HEARTBEAT_PERIOD_S > DEAF_S and _lives(self._monitor_pid):
            self._beats_unheard = 0
            self.give_up(
                f"nothing heard of the supervisor's monitor for {DEAF_S:g} s, although it lives: this process has lost "
                "its way into the graph and ends, so that it is started again"
            )

    def _hear_monitor(self, message: String) -> None:
        beat = from_json(message, qos.MONITOR_TOPIC)
        self._beats_unheard = 0
        self._monitor_pid = int(beat.get("pid", 0)) if beat.get("host") == socket.gethostname() else 0

    def _publish_health(self) -> None:
        self._publish_statuses([self._health, *(self._stream_status(read) for read in self._streams.values())])

    def _publish_statuses(self, statuses: list[DiagnosticStatus]) -> None:
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    # ---- streams

    def _check_streams(self) -> None:
        """Look at every stream; what changes its level is published at once."""
        now_s = time.monotonic()
        changed = []
        for read in self._streams.values():
            level, read.message = read.stream.look(now_s, read.subscription.get_publisher_count)
            if level != read.level:
                read.level = level
                changed.append(self._stream_status(read))
        if changed:
            self._publish_statuses(changed)

    def _stream_status(self, read: _Read) -> DiagnosticStatus:
        values = read.stream.values(time.monotonic())
        return DiagnosticStatus(
            level=read.level,
            name=f"{self.get_fully_qualified_name()}: {read.stream.topic}",
            message=read.message,
            hardware_id=self.get_name(),
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )

    def _watched(self, stream: Stream, callback: Callable[..., None]) -> Callable[..., None]:
        """`callback`, after the message was counted."""
        losses = Losses()
        with_info = self._can_have_info(stream.topic, callback)

        def take(message: Any, info: MessageInfo) -> None:
            header = getattr(message, "header", None)
            stamp_ns = 0 if header is None else stamp_to_ns(header.stamp)
            sent, received = info.get("source_timestamp") or 0, info.get("received_timestamp") or 0
            receipt = Receipt(
                time.monotonic(),
                (self.now_ns() - stamp_ns) * 1e-9 if stamp_ns else None,
                (received - sent) * 1e-9 if sent and received else None,
            )
            stream.note(receipt, losses.before(info) if info else None)
            callback(message, info) if with_info else callback(message)

        if self._wake is not None:
            return take
        return lambda message: take(message, cast(MessageInfo, {}))  # rclpy 9.1.2: the events executor passes none

    def _can_have_info(self, topic: str, callback: Callable[..., None]) -> bool:
        """Whether a callback takes the MessageInfo.

        Raises:
            BadInput: it does, but the executor passes none.
        """
        takes_info = _takes_info(callback)
        if takes_info and self._wake is None:
            raise BadInput(
                f"{self.get_name()} must know who sent a message on {topic}, and when, which the executor `events` "
                "does not tell; set the parameter executor to single"
            )
        return takes_info

    # ---- other threads

    def post(self, call: Callable[[], None]) -> None:
        """Have `call` run soon on the thread that spins the node; may be called from any thread."""
        self._inbox.append(call)
        self._kick()

    def _kick(self) -> None:
        """Have `_drain` run soon."""
        if self._wake is not None:
            self._wake.trigger()
        elif (executor := self.executor) is not None:
            executor.create_task(self._drain)

    def _drain(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

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
        stream = Stream(topic, longest_s, time.monotonic())
        take = self._watched(stream, self._tolerant(topic, callback))

        def fall_back(_event: object) -> None:
            self.get_logger().warning(
                f"{topic} is offered best effort only; frames may be lost on the way (set the Fast DDS profile)"
            )
            self.destroy_subscription(read.subscription)
            read.subscription = self.create_subscription(message_type, topic, take, qos.best_effort(profile))

        events = SubscriptionEventCallbacks(incompatible_qos=fall_back)
        read = _Read(stream, self.create_subscription(message_type, topic, take, profile, event_callbacks=events))
        if not self._streams:
            self.every(STREAM_CHECK_S, self._check_streams)
        key = f"{topic} {len(self._streams)}"
        self._streams[key] = read

        def end() -> None:
            self.destroy_subscription(read.subscription)
            del self._streams[key]

        self._active_parts.append(end)

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

    def _bring_up(self) -> bool:
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
        self.exit_code = self.exit_code or exit_code

    def give_up(self, message: str, exit_code: int = 1) -> None:
        """End the process from within: log, shut down cleanly, exit with `exit_code`."""
        self._record_failure(message, exit_code)
        self.stop()

    def stop(self) -> None:
        """End the process from within, its work being done."""
        if self._stop is not None:
            self._stop()


def _refuse_non_finite(parameters: list[Parameter[Any]]) -> SetParametersResult:
    """Ranges refuse NaN; lists and numbers without a range would take it."""
    for parameter in parameters:
        values = parameter.value if isinstance(parameter.value, list | array) else [parameter.value]
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            return SetParametersResult(
                successful=False, reason=f"{parameter.name} must be a finite number, not {parameter.value}"
            )
    return SetParametersResult(successful=True)


def _takes_info(callback: Callable[..., None]) -> bool:
    """Whether a callback wants the MessageInfo beside the message."""
    try:
        signature(callback).bind(object(), object())
    except TypeError:
        return False
    return True


def _lives(pid: int) -> bool:
    return pid > 0 and os.path.exists(f"/proc/{pid}")


class _Host:
    """A node, the executor that spins it, and the way to end it."""

    def __init__(self, make_node: Callable[[], ManagedNode], stop_all: Callable[[], None]) -> None:
        self.node = make_node()
        self.node._stop = stop_all
        self._events = self.node.value("executor") == "events"
        self._executor: Executor = EventsExecutor() if self._events else SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._stopped: Future[None] = Future(executor=self._executor)

    def work(self) -> int:
        """Bring the node up where `autostart` asks for it, and spin it until `stop`; returns the exit code."""
        if self.node.value("autostart") and not self.node._bring_up():
            return self.node.exit_code or 1
        if self._events:
            while not self._stopped.done():
                self._executor.spin_once(timeout_sec=0.2)  # spin() of this executor never dispatches in rclpy 9.1.2
        else:
            self._executor.spin_until_future_complete(self._stopped)
        return self.node.exit_code

    def stop(self) -> None:
        """Have `work` return soon; may be called from any thread, and from signal handlers."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    def close(self) -> None:
        """Shut the node down."""
        if self.node.state in ("unconfigured", "inactive", "active"):
            self.node.trigger_shutdown()
        self._executor.shutdown()
        self.node.destroy_node()


def _work(hosts: Sequence[_Host], stop_all: Callable[[], None]) -> int:
    """Spin all nodes, each in a thread of its own, until the first ends; the exit code is that of a failure, if any."""
    if len(hosts) == 1:
        return hosts[0].work()
    codes: list[int] = []

    def work(host: _Host) -> None:
        try:
            codes.append(host.work())
        except ExternalShutdownException:
            codes.append(0)
        except Exception:
            traceback.print_exc()
            codes.append(1)
        stop_all()

    threads = [threading.Thread(target=work, args=(host,), name=host.node.get_name(), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next((code for code in codes if code), 0)


def run(make_node: Callable[[], ManagedNode], args: list[str] | None = None) -> int:
    """main() of a node: spin it until SIGINT, SIGTERM or `give_up`; returns the exit code.

    With `autostart` a node that cannot configure or activate ends with its error's code: 2 for bad input, 1 otherwise.
    """
    return run_together((make_node,), args)


def run_together(makers: Sequence[Callable[[], ManagedNode]], args: list[str] | None = None) -> int:
    """Like `run`, for several nodes in one process: all end with the first."""
    hosts: list[_Host] = []
    asked = threading.Event()

    def stop(_signal: int = 0, _frame: FrameType | None = None) -> None:
        asked.set()
        for host in hosts:
            host.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    keep_large_blocks()
    sys.setswitchinterval(SWITCH_S)
    given = Given(sys.argv if args is None else args)
    try:
        require_enforced(os.environ)
        given.read()
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        for make_node in makers:
            hosts.append(_Host(make_node, stop))
            given.check_known(hosts[-1].node)
        if asked.is_set():
            stop()
        return _work(hosts, stop)
    except EmbodiedVisionError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (InvalidParameterValueException, InvalidParameterTypeException) as error:
        print(f"error: {error}; {given.place_of(error)}", file=sys.stderr)
        return BadInput.exit_code
    except ExternalShutdownException:
        return 0
    finally:
        for host in hosts:
            host.close()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not spoil a clean end
        gc.freeze()  # else the interpreter walks through all of torch's objects before it ends, for seconds

"""main() of nodes: spin them until they are told to stop, and end with the right exit code."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.experimental import EventsExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from embodied_vision.allocation import keep_large_blocks
from embodied_vision.collection import TIDY_S, settle, tidy
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.launching.security import require_enforced
from embodied_vision.nodes.given import Given
from embodied_vision.nodes.lifecycle import ManagedNode

SWITCH_S = 0.001
"""How long a thread that computes may keep the others of its node from messages; Python's own 5 ms are many hops."""

SLOW_S = 4.0
"""A node that takes longer to let go of what it holds tells in the log where it is."""

LEAVE_S = 3.0
"""A process that hangs in the DDS library when it leaves the graph, all its work being done, says where, and ends."""


class _Host:
    """A node, the executor that spins it, and the way to end it."""

    def __init__(self, make_node: Callable[[], ManagedNode], stop_all: Callable[[], None]) -> None:
        self.node = make_node()
        self.node.on_stop(stop_all)
        self.node.on_configured(settle)
        self._events = self.node.value("executor") == "events"
        self._executor: Executor = EventsExecutor() if self._events else SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._stopped: Future[None] = Future(executor=self._executor)

    def work(self) -> int:
        """Bring the node up where `autostart` asks for it, and spin it until `stop`; returns the exit code."""
        if self.node.value("autostart") and not self.node.bring_up():
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

    def shut_down(self) -> None:
        """Have the node let go of all that it holds, and finish what it writes."""
        if self.node.state in ("unconfigured", "inactive", "active"):
            self.node.trigger_shutdown()

    def leave(self) -> None:
        """Take the node out of the graph."""
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
    faulthandler.enable()  # a crash in a library's native code tells in the log where it was called
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
        give_back = any(host.node.HANDLES_IMAGES for host in hosts)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        hosts[0].node.create_timer(TIDY_S, lambda: tidy(give_back=give_back), clock=clock)
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
        faulthandler.dump_traceback_later(SLOW_S)
        for host in hosts:
            host.shut_down()
        faulthandler.dump_traceback_later(LEAVE_S, exit=True)
        for host in hosts:
            host.leave()
        rclpy.try_shutdown()
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not spoil a clean end
        gc.freeze()  # else the interpreter walks through all of torch's objects before it ends, for seconds

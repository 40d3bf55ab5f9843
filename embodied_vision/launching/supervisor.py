"""Starts the processes of a graph, watches them, brings them back or stops, and ends them in order."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any

from embodied_vision.errors import RunFailed
from embodied_vision.launching.domain import DomainLock, hold_domain, hold_free_domain
from embodied_vision.launching.environment import Environment, process_environment
from embodied_vision.launching.events import Event, EventLog
from embodied_vision.launching.graph import GraphConfig, NodeSpec
from embodied_vision.launching.heartbeats import Heartbeats
from embodied_vision.launching.process import ManagedProcess, describe_exit
from embodied_vision.launching.shared_memory import abandoned, clean_stale

_TICK_S = 0.05
_SILENT_S = 3.0
_TERMINATE_S = 2.0
_LET_GO_S = 6.0
"""A node that died is started again when the others have let go of its ports, at the latest after so long."""
_LET_GO_TICK_S = 0.2


@dataclass
class _Watched:
    """A node under watch."""

    spec: NodeSpec
    process: ManagedProcess
    state: str = "starting"
    heard_s: float | None = None
    was_active: bool = False
    silent: bool = False
    died_s: float | None = None
    asked_s: float = 0.0
    deaths: deque[float] = field(default_factory=deque)


class Supervisor:
    """A running graph: `with Supervisor(config) as cell: cell.wait_active(60)`.

    Leaving the block ends every process. Should this process itself be killed, the kernel kills them.

    Attributes:
        config: what was asked for.
        run_dir: folder of the run; logs lie in `logs/`, `environment.sh` lets a terminal join the graph.
        environment: what the processes run in.
        domain: the ROS_DOMAIN_ID of the graph.
    """

    run_dir: Path
    environment: Environment
    domain: int

    def __init__(self, config: GraphConfig, on_event: Callable[[Event], None] | None = None) -> None:
        self.config = config
        self.run_dir = config.run_dir.resolve()
        self._on_event = on_event
        self._watched: dict[str, _Watched] = {}
        self._changed = threading.Condition(threading.RLock())
        self._failure: str | None = None
        self._stop_asked = threading.Event()
        self._hurry = threading.Event()
        self._ended = threading.Event()

    # The run as its user sees it.

    def __enter__(self) -> Supervisor:
        (self.run_dir / "logs").mkdir(parents=True, exist_ok=True)
        freed = clean_stale()
        domain = self.config.domain
        self._lock: DomainLock = hold_free_domain() if domain is None else hold_domain(domain)
        self.domain = self._lock.domain
        self.environment = process_environment(self.run_dir, self.domain, isolated=domain is None)
        (self.run_dir / "environment.sh").write_text(
            self.environment.exports(self.config.namespace.strip("/")), encoding="utf-8"
        )
        self._log = EventLog(self.run_dir / "logs" / "events.jsonl", self._on_event)
        for note in self.environment.notes:
            self._log.add("note", "", note)
        if freed:
            self._log.add("note", "", f"removed {freed >> 10} kB of shared memory that dead processes had left")
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """Node → process id, of those that run."""
        with self._changed:
            return {n: w.process.pid for n, w in self._watched.items() if w.process.exit_code() is None}

    @property
    def states(self) -> dict[str, str]:
        """Node → lifecycle state of its last heartbeat, `starting` before the first."""
        with self._changed:
            return {name: watched.state for name, watched in self._watched.items()}

    @property
    def events(self) -> tuple[Event, ...]:
        """All that happened so far."""
        return self._log.events

    @property
    def failure(self) -> str | None:
        """Why the run ended by itself, None while all is well."""
        return self._failure

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a node and return its process id."""
        with self._changed:
            process = self._watched[name].process
            process.send(number)
            return process.pid

    def wait_active(self, timeout_s: float, names: Collection[str] | None = None) -> None:
        """Wait until nodes are active; all of them by default.

        Raises:
            RunFailed: the run failed meanwhile, or they took too long.
        """
        wanted = [node.name for node in self.config.nodes] if names is None else list(names)

        def missing() -> list[str]:
            states = self.states
            return [f"{n} ({states.get(n, 'not started')})" for n in wanted if states.get(n) != "active"]

        with self._changed:
            self._changed.wait_for(lambda: not missing() or self._ended.is_set() or self._failure, timeout_s)
        if self._failure is not None:
            raise RunFailed(self._failure)
        if missing():
            raise RunFailed(
                f"not active after {timeout_s:g} s: {', '.join(missing())}; read the logs in {self.run_dir / 'logs'}"
            )

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the run ends; False when the time was up first.

        Raises:
            RunFailed: it ended by a failure.
        """
        ended = self._ended.wait(timeout_s)
        if ended and self._failure is not None:
            raise RunFailed(self._failure)
        return ended

    def stop(self) -> None:
        """End every process in order, within a bound. An interrupt meanwhile kills what is left."""
        self._stop_asked.set()
        while not self._ended.is_set():
            try:
                self._ended.wait()
            except KeyboardInterrupt:
                self._hurry.set()
        self._thread.join()
        self._lock.release()
        self._log.close()

    # The watching thread. It starts every process: the kernel binds a child to the thread that made it.

    def _run(self) -> None:
        monitor: Heartbeats | None = None
        try:
            overrides = self.config.write_overrides()
            monitor = self._start_monitor()
            for spec in self.config.nodes:
                process = self._start(spec, overrides)
                with self._changed:
                    self._watched[spec.name] = _Watched(spec, process)
                self._log.add("started", spec.name, f"pid {process.pid}, log {process.log}")
            while not self._stop_asked.is_set() and self._failure is None:
                for message in monitor.read(_TICK_S):
                    self._hear(message)
                for watched in self._watched.values():
                    self._check(watched, overrides)
                if monitor.process.exit_code() is not None or self._hears_nobody():
                    code = monitor.process.exit_code()
                    how = "it hears none of the nodes" if code is None else describe_exit(code)
                    self._log.add("died", "monitor", f"{how}: started again")
                    monitor.close()
                    monitor = self._start_monitor()
        except Exception as error:
            self._fail("", f"the supervisor failed: {type(error).__name__}: {error}")
            raise
        finally:
            self._end_all()
            if monitor is not None:
                monitor.close()
            with self._changed:
                self._ended.set()
                self._changed.notify_all()

    def _log_path(self, name: str) -> Path:
        return self.run_dir / "logs" / f"{name}.log"

    def _start_monitor(self) -> Heartbeats:
        self._monitor_due_s = time.monotonic() + self.config.hang_s
        return Heartbeats(self.config, self.environment, self._log_path("monitor"))

    def _start(self, spec: NodeSpec, overrides: Path, *, respawned: bool = False) -> ManagedProcess:
        command = self.config.command(spec, overrides, respawned=respawned)
        return ManagedProcess(spec.name, command, self.environment.variables, self._log_path(spec.name))

    def _fail(self, node: str, reason: str) -> None:
        self._log.add("failed", node, reason)
        with self._changed:
            self._failure = self._failure or reason
            self._changed.notify_all()

    def _hear(self, message: dict[str, Any]) -> None:
        """Take a line of the monitor: a heartbeat, a diagnostic, or the time up to which it listened."""
        now = float(message["time_s"])
        if "diagnostic" in message:
            self._log.add("diagnostic", message["node"], message["diagnostic"])
        elif "node" in message:
            watched = self._watched.get(message["node"])
            if watched is not None and message.get("pid", watched.process.pid) == watched.process.pid:
                self._hear_node(watched, message["state"], now)
        else:
            for watched in self._watched.values():
                self._hear_silence(watched, now)

    def _hear_node(self, watched: _Watched, state: str, now: float) -> None:
        if watched.process.exit_code() is not None:
            return
        watched.heard_s = now
        if watched.silent:
            watched.silent = False
            self._log.add("back", watched.spec.name, "its heartbeat is back")
        if state != watched.state:
            if state == "active":
                watched.was_active = True
                self._log.add("active", watched.spec.name, f"pid {watched.process.pid}")
            with self._changed:
                watched.state = state
                self._changed.notify_all()

    def _hears_nobody(self) -> bool:
        """Whether it is the monitor rather than the nodes that is to blame for a silence of them all.

        It is replaced before the nodes are judged, but no more often than they would be.
        """
        now = time.monotonic()
        if now < self._monitor_due_s:
            return False
        running = [watched for watched in self._watched.values() if watched.process.exit_code() is None]
        heard = [watched.heard_s for watched in running if watched.heard_s is not None]
        return bool(heard) and len(heard) == len(running) and now - max(heard) > self.config.hang_s / 2

    def _hear_silence(self, watched: _Watched, now: float) -> None:
        if watched.heard_s is None or watched.process.exit_code() is not None:
            return
        quiet_s = now - watched.heard_s
        if quiet_s > _SILENT_S and not watched.silent:
            watched.silent = True
            self._log.add("silent", watched.spec.name, f"no heartbeat for {quiet_s:.1f} s, but its process is there")
        if quiet_s > self.config.hang_s:
            self._log.add("silent", watched.spec.name, f"no heartbeat for {quiet_s:.1f} s: killed")
            watched.heard_s = None
            watched.process.send(signal.SIGKILL)

    def _check(self, watched: _Watched, overrides: Path) -> None:
        """Notice a death, and bring the node back or fail."""
        code = watched.process.exit_code()
        if code is None or self._failure is not None:
            return
        if watched.died_s is not None:
            self._bring_back(watched, overrides)
            return
        name, how, log = watched.spec.name, describe_exit(code), watched.process.log
        with self._changed:
            watched.state = "dead"
        self._log.add("died", name, how)
        if not watched.was_active:
            self._fail(
                name, f"{name} ended before it was active, {how}; its log {log} ends:\n{watched.process.last_lines()}"
            )
            return
        now = time.monotonic()
        watched.deaths.append(now)
        while watched.deaths[0] < now - self.config.restart_window_s:
            watched.deaths.popleft()
        if self.config.on_death == "stop":
            self._fail(name, f"{name} died ({how}) and the run is set to stop then; read {log}")
        elif len(watched.deaths) > self.config.restarts:
            self._fail(
                name,
                f"{name} died {len(watched.deaths)} times in {self.config.restart_window_s:g} s ({how}); read {log}",
            )
        else:
            watched.died_s = watched.asked_s = now

    def _bring_back(self, watched: _Watched, overrides: Path) -> None:
        """Start a node again, once the others have let go of what the dead one held in shared memory."""
        now = time.monotonic()
        assert watched.died_s is not None
        if now - watched.asked_s < _LET_GO_TICK_S:
            return
        watched.asked_s = now
        if abandoned() and now - watched.died_s < _LET_GO_S:
            return
        clean_stale()
        process = self._start(watched.spec, overrides, respawned=True)
        with self._changed:
            watched.process, watched.state, watched.heard_s, watched.silent = process, "starting", None, False
            watched.died_s = None
        self._log.add("restarted", watched.spec.name, f"pid {process.pid}")

    # The end.

    def _end_all(self) -> None:
        running = sorted(self._watched.values(), key=lambda watched: watched.spec.stop_order)
        self._log.add("stopping", "", "in order: " + ", ".join(watched.spec.name for watched in running))
        for _, group in groupby(running, key=lambda watched: watched.spec.stop_order):
            self._end_group([watched.process for watched in group])
        with self._changed:
            for watched in running:
                watched.state = "ended"

    def _end_group(self, processes: list[ManagedProcess]) -> None:
        """End them side by side: ask, insist, kill."""
        for number, patience_s in ((signal.SIGINT, self.config.stop_s), (signal.SIGTERM, _TERMINATE_S)):
            for process in processes:
                process.send(number)
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline and not self._hurry.is_set():
                if all(process.exit_code() is not None for process in processes):
                    break
                self._hurry.wait(0.02)
        for process in processes:
            forced = process.exit_code() is None
            process.send(signal.SIGKILL)
            process.wait(5.0)
            code = process.exit_code()
            how = "not ended, even by SIGKILL" if code is None else describe_exit(code)
            self._log.add("ended", process.name, how + (", had to be killed" if forced else ""))

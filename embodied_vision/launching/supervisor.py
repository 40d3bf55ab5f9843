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
from embodied_vision.launching.graph import GraphConfig, NodeSpec, ProcessSpec
from embodied_vision.launching.heartbeats import Heartbeats
from embodied_vision.launching.process import ManagedProcess, describe_exit
from embodied_vision.launching.run_status import Phase, RunStatus, check_free, write_status
from embodied_vision.launching.shared_memory import abandoned, clean_stale

_TICK_S = 0.05
_SILENT_S = 3.0
_TERMINATE_S = 2.0
_LET_GO_S = 6.0
"""A node that died is started again when the others have let go of its ports, at the latest after so long."""
_LET_GO_TICK_S = 0.2
_MONITOR_START_S = 30.0
"""A monitor is judged once it has spoken, at the latest after so long."""


@dataclass
class _Host:
    """A process under watch."""

    spec: ProcessSpec
    process: ManagedProcess
    died_s: float | None = None
    asked_s: float = 0.0
    deaths: deque[float] = field(default_factory=deque)
    restarts: int = 0

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.exit_code() is None


@dataclass
class _Watched:
    """A node under watch."""

    spec: NodeSpec
    host: _Host
    state: str = "starting"
    heard_s: float | None = None
    came_up: bool = False
    silent: bool = False


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
        self._hosts: list[_Host] = []
        self._watched: dict[str, _Watched] = {}
        self._health: dict[str, Any] = {}
        self._changed = threading.Condition(threading.RLock())
        self._failure: str | None = None
        self._stop_asked = threading.Event()
        self._hurry = threading.Event()
        self._ended = threading.Event()

    # The run as its user sees it.

    def __enter__(self) -> Supervisor:
        check_free(self.run_dir)
        (self.run_dir / "logs").mkdir(parents=True, exist_ok=True)
        freed = clean_stale()
        domain = self.config.domain
        namespace = self.config.namespace.strip("/")
        self._lock: DomainLock = hold_free_domain() if domain is None else hold_domain(domain, namespace)
        self.domain = self._lock.domain
        made = process_environment(
            self.run_dir,
            self.domain,
            isolated=domain is None,
            discovery=self.config.discovery,
            peers=self.config.peers,
        )
        names = [*(process.name for process in self.config.processes), "monitor"]
        self.environment = made.secured(self.config.enclave, names)
        (self.run_dir / "environment.sh").write_text(self.environment.exports(namespace), encoding="utf-8")
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
        """Node → id of its process, of those that run."""
        with self._changed:
            return {name: watched.host.process.pid for name, watched in self._watched.items() if watched.host.running}

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
        """Send a signal to the process of a node and return its process id."""
        with self._changed:
            process = self._watched[name].host.process
            process.send(number)
            return process.pid

    def wait_active(self, timeout_s: float, names: Collection[str] | None = None) -> None:
        """Wait until nodes are active; all of them by default.

        Raises:
            RunFailed: the run failed meanwhile, or they took too long.
        """
        self._wait_states(timeout_s, names, "active", lambda state: state == "active")

    def wait_there(self, timeout_s: float) -> None:
        """Wait until every node beats, in whatever state: for those that a lifecycle manager brings up.

        Raises:
            RunFailed: the run failed meanwhile, or they took too long.
        """
        self._wait_states(timeout_s, None, "there", lambda state: state not in ("starting", "dead", "not started"))

    def _wait_states(
        self, timeout_s: float, names: Collection[str] | None, wanted: str, accept: Callable[[str], bool]
    ) -> None:
        waited_for = [node.name for node in self.config.nodes] if names is None else list(names)

        def missing() -> list[str]:
            states = self.states
            return [f"{n} ({s})" for n in waited_for if not accept(s := states.get(n, "not started"))]

        with self._changed:
            self._changed.wait_for(lambda: not missing() or self._ended.is_set() or self._failure, timeout_s)
        if self._failure is not None:
            raise RunFailed(self._failure)
        if missing():
            raise RunFailed(
                f"not {wanted} after {timeout_s:g} s: {', '.join(missing())}; read the logs in {self.run_dir / 'logs'}"
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
            for spec in self.config.processes:
                host = _Host(spec, self._start(spec, overrides))
                self._hosts.append(host)
                with self._changed:
                    self._watched.update({node.name: _Watched(node, host) for node in spec.nodes})
                for node in spec.nodes:
                    self._log.add("started", node.name, f"pid {host.process.pid}, log {host.process.log}")
            while not self._stop_asked.is_set() and self._failure is None:
                for message in monitor.read(_TICK_S):
                    self._hear(message)
                for host in self._hosts:
                    self._check(host, overrides)
                if wrong := self._wrong_with(monitor):
                    self._log.add("died", "monitor", f"{wrong}: started again")
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
        self._monitor_spoke_s: float | None = None
        self._monitor_due_s = time.monotonic() + _MONITOR_START_S
        return Heartbeats(self.config, self.environment, self._log_path("monitor"))

    def _start(self, spec: ProcessSpec, overrides: Path, *, respawned: bool = False) -> ManagedProcess:
        command = self.config.command(spec, overrides, respawned=respawned)
        return ManagedProcess(spec.name, command, self.environment.variables, self._log_path(spec.name))

    def _fail(self, node: str, reason: str) -> None:
        self._log.add("failed", node, reason)
        with self._changed:
            self._failure = self._failure or reason
            self._changed.notify_all()

    def _hear(self, message: dict[str, Any]) -> None:
        """Take a line of the monitor: a heartbeat, a diagnostic, or a tick, up to which it listened."""
        now = float(message["time_s"])
        self._hear_monitor(now)
        if "diagnostic" in message:
            self._log.add("diagnostic", message["node"], message["diagnostic"])
        elif "node" in message:
            watched = self._watched.get(message["node"])
            if watched is not None and message.get("pid", watched.host.process.pid) == watched.host.process.pid:
                self._hear_node(watched, message["state"], now)
        else:
            self._health = message.get("health", self._health)
            for watched in self._watched.values():
                self._hear_silence(watched, now)
            self._write_status("running")

    def _hear_node(self, watched: _Watched, state: str, now: float) -> None:
        if not watched.host.running:
            return
        watched.heard_s = now
        watched.came_up |= state == "active" or not self.config.autostart
        if watched.silent:
            watched.silent = False
            self._log.add("back", watched.spec.name, "its heartbeat is back")
        if state != watched.state:
            if state == "active":
                self._log.add("active", watched.spec.name, f"pid {watched.host.process.pid}")
            with self._changed:
                watched.state = state
                self._changed.notify_all()

    def _hear_monitor(self, now: float) -> None:
        """Take a line of the monitor; before its first nobody listened, and that counts as heard."""
        if self._monitor_spoke_s is None:
            self._monitor_due_s = now + 1.5 * self.config.hang_s
            for watched in self._watched.values():
                watched.heard_s = None if watched.heard_s is None else now
        self._monitor_spoke_s = time.monotonic()

    def _wrong_with(self, monitor: Heartbeats) -> str:
        """Why the monitor is to be replaced, nothing if it is not.

        One that is silent is, before the nodes that miss it end. One that speaks, but of no node, is as well, before
        the nodes are judged; yet a new one judges them first, however slowly it started.
        """
        now, patience_s = time.monotonic(), self.config.hang_s / 2
        code = monitor.process.exit_code()
        if code is not None:
            return describe_exit(code)
        if self._monitor_spoke_s is not None and now - self._monitor_spoke_s > patience_s:
            return "it is silent"
        if now < self._monitor_due_s:
            return ""
        running = [watched for watched in self._watched.values() if watched.host.running]
        heard = [watched.heard_s for watched in running if watched.heard_s is not None]
        deaf = heard and len(heard) == len(running) and now - max(heard) > patience_s
        return "it hears none of the nodes" if deaf else ""

    def _hear_silence(self, watched: _Watched, now: float) -> None:
        if watched.heard_s is None or not watched.host.running:
            return
        quiet_s = now - watched.heard_s
        if quiet_s > _SILENT_S and not watched.silent:
            watched.silent = True
            self._log.add("silent", watched.spec.name, f"no heartbeat for {quiet_s:.1f} s, but its process is there")
        if quiet_s > self.config.hang_s:
            self._log.add("silent", watched.spec.name, f"no heartbeat for {quiet_s:.1f} s: killed")
            watched.heard_s = None
            watched.host.process.send(signal.SIGKILL)

    def _check(self, host: _Host, overrides: Path) -> None:
        """Notice a death, and bring the process back or fail."""
        code = host.process.exit_code()
        if code is None or self._failure is not None:
            return
        if host.died_s is not None:
            self._bring_back(host, overrides)
            return
        name, how, log = host.spec.name, describe_exit(code), host.process.log
        nodes = [self._watched[node.name] for node in host.spec.nodes]
        with self._changed:
            for watched in nodes:
                watched.state = "dead"
        for watched in nodes:
            self._log.add("died", watched.spec.name, how)
        if not all(watched.came_up for watched in nodes):
            wanted = "active" if self.config.autostart else "there"
            self._fail(
                name, f"{name} ended before it was {wanted}, {how}; its log {log} ends:\n{host.process.last_lines()}"
            )
            return
        now = time.monotonic()
        host.deaths.append(now)
        while host.deaths[0] < now - self.config.restart_window_s:
            host.deaths.popleft()
        if not self.config.use_respawn:
            self._fail(name, f"{name} died ({how}) and the run is set to stop then; read {log}")
        elif len(host.deaths) > self.config.restarts:
            self._fail(
                name, f"{name} died {len(host.deaths)} times in {self.config.restart_window_s:g} s ({how}); read {log}"
            )
        else:
            host.died_s = host.asked_s = now

    def _bring_back(self, host: _Host, overrides: Path) -> None:
        """Start a process again, once the others have let go of what the dead one held in shared memory."""
        now = time.monotonic()
        assert host.died_s is not None
        if now - host.asked_s < _LET_GO_TICK_S:
            return
        host.asked_s = now
        if abandoned() and now - host.died_s < _LET_GO_S:
            return
        clean_stale()
        process = self._start(host.spec, overrides, respawned=True)
        with self._changed:
            host.process, host.died_s, host.restarts = process, None, host.restarts + 1
            for node in host.spec.nodes:
                watched = self._watched[node.name]
                watched.state, watched.heard_s, watched.silent = "starting", None, False
        for node in host.spec.nodes:
            self._log.add("restarted", node.name, f"pid {process.pid}")

    def _write_status(self, phase: Phase) -> None:
        """Keep the file that `embodied-vision launch status` reads."""
        with self._changed:
            states = {name: watched.state for name, watched in self._watched.items()}
            processes = {
                node.name: {"pid": host.process.pid if host.running else None, "restarts": host.restarts}
                for host in self._hosts
                for node in host.spec.nodes
            }
        write_status(
            self.run_dir,
            RunStatus(
                phase=phase,
                domain=self.domain,
                namespace=self.config.namespace.strip("/"),
                level=self._health.get("level", "warning"),
                wrong=self._health.get("wrong", ["starting"]),
                nodes={name: {"state": state, **processes[name]} for name, state in states.items()},
                failure=self._failure,
            ),
        )

    # The end.

    def _end_all(self) -> None:
        running = sorted(self._hosts, key=lambda host: host.spec.stop_order)
        self._log.add("stopping", "", "in order: " + ", ".join(host.spec.name for host in running))
        for _, group in groupby(running, key=lambda host: host.spec.stop_order):
            self._end_group([host.process for host in group])
        with self._changed:
            for watched in self._watched.values():
                watched.state = "ended"
        self._health = {"level": "ok" if self._failure is None else "error", "wrong": []}
        self._write_status("ended")

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

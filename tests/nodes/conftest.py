"""Real node processes on a ROS domain of the test's own; every wait is bounded."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")

from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from std_msgs.msg import String

from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import process_environment
from embodied_vision.launching.process import ManagedProcess
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient

TIMEOUT_S = 30.0


def until(done: Callable[[], object], timeout_s: float = TIMEOUT_S, what: str | Callable[[], str] = "") -> None:
    """Wait until `done`, at most so long; a `what` that is called tells how things stand at the end of the wait."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline:
            pytest.fail(f"not within {timeout_s} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.01)


@dataclass
class Graph:
    """Starts nodes, talks to them, and ends them."""

    run_dir: Path
    variables: Mapping[str, str]
    client: GraphClient
    processes: list[ManagedProcess] = field(default_factory=list)
    _states: dict[str, str] = field(default_factory=dict)

    def start(
        self, name: str, module: str = "", wait: bool = True, extra: Sequence[str] = (), **parameters: Any
    ) -> ManagedProcess:
        """Start a node; with `wait` until it is active."""
        arguments = [part for key, value in parameters.items() for part in ("-p", f"{key}:={json.dumps(value)}")]
        command = [sys.executable, "-m", module or f"embodied_vision.nodes.{name}"]
        command += ["--ros-args", "-r", f"__node:={name}", *arguments, *extra]
        process = ManagedProcess(name, command, self.variables, self.run_dir / f"{name}.log")
        self.processes.append(process)
        self._hear(name)
        if wait:
            self.ready(process)
        return process

    def ready(self, *processes: ManagedProcess) -> None:
        """Wait until these nodes are active."""
        for process in processes:
            until(lambda: self._is_active(process), what=f"{process.name} is active")  # noqa: B023 called at once

    def _is_active(self, process: ManagedProcess) -> bool:
        assert process.exit_code() is None, process.last_lines(30)
        return self._states.get(process.name) == "active"

    def _hear(self, name: str) -> None:
        def hear(message: String) -> None:
            self._states[name] = json.loads(message.data)["state"]

        self._states[name] = ""
        self.subscribe(String, f"heartbeat/{name}", hear, qos.HEARTBEAT)

    def subscribe(self, kind: Any, topic: str, take: Callable[[Any], None], profile: QoSProfile = qos.LOG) -> None:
        """Have `take` called with each message, in the client's thread."""
        self.client.node.create_subscription(kind, topic, take, profile)

    def publisher(self, kind: Any, topic: str, profile: QoSProfile = qos.SENSOR, readers: int = 1) -> Publisher[Any]:
        """A publisher that so many readers have found."""
        made = self.client.node.create_publisher(kind, topic, profile)
        until(lambda: made.get_subscription_count() >= readers, what=f"{readers} readers of {topic}")
        return made

    def wait(self, topic: str, accept: Callable[[dict[str, Any]], bool], *alive: ManagedProcess) -> dict[str, Any]:
        """The first newest message of a latched JSON topic that is accepted, while these processes live."""

        def check() -> None:
            for process in alive:
                assert process.exit_code() is None, process.last_lines(30)

        return self.client.wait(topic, accept, TIMEOUT_S, check)

    def end(self, process: ManagedProcess, number: int = signal.SIGINT) -> int:
        """End a node and return its exit code."""
        process.send(number)
        assert process.wait(TIMEOUT_S), process.last_lines(30)
        code = process.exit_code()
        assert code is not None
        return code


def _graph(run_dir: Path) -> Iterator[Graph]:
    with hold_free_domain() as lock, pytest.MonkeyPatch.context() as patch:
        environment = process_environment(run_dir, lock.domain)
        for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOG_DIR"):
            patch.setenv(name, environment.variables[name])
        with GraphClient(domain_id=lock.domain) as client:
            made = Graph(run_dir, environment.variables, client)
            try:
                yield made
            finally:
                for process in made.processes:
                    process.send(signal.SIGKILL)
                    process.wait(5.0)


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    """A graph without nodes."""
    yield from _graph(tmp_path)


@pytest.fixture(scope="module")
def shared_graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """A graph without nodes for all tests of a module: starting a node takes seconds."""
    yield from _graph(tmp_path_factory.mktemp("graph"))

"""What the graph says about itself, read from a monitor process, so that the supervisor needs no ROS."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from embodied_vision.launching.environment import Environment
from embodied_vision.launching.graph import GraphConfig
from embodied_vision.launching.process import ManagedProcess
from embodied_vision.launching.security import enclave_arguments

MODULE = "embodied_vision.nodes.monitor"


class Heartbeats:
    """Lines of the monitor, each a JSON object: `node` with `state` or `diagnostic`, or a tick (with `health`)."""

    def __init__(self, config: GraphConfig, environment: Environment, log: Path) -> None:
        names = [node.name for node in config.nodes]
        command = [sys.executable, "-m", MODULE, *names, *config.ros_arguments("monitor")]
        command += enclave_arguments(config.enclave, "monitor")
        self._process = ManagedProcess("monitor", command, environment.variables, log, read=True)
        self._pipe = self._process.output.fileno()
        os.set_blocking(self._pipe, False)
        self._rest = b""

    @property
    def process(self) -> ManagedProcess:
        """The monitor's process."""
        return self._process

    def read(self, timeout_s: float) -> list[dict[str, Any]]:
        """Messages that came, after waiting for the first at most so long."""
        ready, _, _ = select.select([self._pipe], [], [], timeout_s)
        if not ready:
            return []
        chunk = os.read(self._pipe, 1 << 16)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def close(self) -> None:
        """Kill the monitor: it holds nothing."""
        self._process.send(signal.SIGKILL)
        self._process.wait(1.0)
        self._process.output.close()

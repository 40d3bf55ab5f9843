"""Which processes make up a graph, and with which parameters they start."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from embodied_vision.errors import BadInput
from embodied_vision.launching.parameters import check_files
from embodied_vision.paths import PACKAGE

PARAMETERS = PACKAGE / "config" / "cell.yaml"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
OnDeath = Literal["restart", "stop"]


@dataclass(frozen=True)
class NodeSpec:
    """One node, one process.

    Attributes:
        name: node name, which is also the key of its heartbeat and of its parameters.
        module: what `python -m` runs.
        stop_order: nodes with lower numbers end first.
        respawn: parameters that it gets only when it is started again after a death.
    """

    name: str
    module: str
    stop_order: int = 1
    respawn: Mapping[str, Any] = field(default_factory=dict)


def _node(name: str, stop_order: int, **respawn: Any) -> NodeSpec:
    return NodeSpec(name, f"embodied_vision.nodes.{name}", stop_order, respawn)


CELL = (
    NodeSpec("cell", "embodied_vision_sim.node", 4),
    _node("encoder", 2),
    _node("policy", 2),
    _node("arm", 1, start_stopped=True),
    _node("recorder", 3),
    _node("task", 0),
)
"""A simulated cell that does its work and logs it. An arm that died comes back stopped."""

CAMERA = (_node("camera", 0), _node("encoder", 1), _node("recorder", 2))
"""Real images, encoded and logged, without an arm."""


@dataclass(frozen=True)
class GraphConfig:
    """What to start and how.

    Attributes:
        nodes: the processes.
        run_dir: folder for logs and generated files; made when missing.
        namespace: ROS namespace of all nodes, such as `cell_1`.
        params_files: parameter YAML, later files win.
        parameters: node name → parameter → value; wins over the files.
        use_sim_time: nodes follow /clock.
        log_level: one of `LOG_LEVELS`.
        on_death: start a dead node again, or stop everything.
        restarts, restart_window_s: so many deaths of one node within that time, then everything stops.
        hang_s: a node whose heartbeat is silent for so long is killed, and so counts as dead.
        stop_s: how long each node may take to end by itself, SIGINT first, before it is killed.
        domain: a ROS_DOMAIN_ID to use; None holds a free one and keeps the graph on this machine.
    """

    nodes: tuple[NodeSpec, ...]
    run_dir: Path
    namespace: str = ""
    params_files: tuple[Path, ...] = (PARAMETERS,)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    use_sim_time: bool = False
    log_level: str = "info"
    on_death: OnDeath = "restart"
    restarts: int = 3
    restart_window_s: float = 60.0
    hang_s: float = 15.0
    stop_s: float = 5.0
    domain: int | None = None

    def __post_init__(self) -> None:
        if self.log_level not in LOG_LEVELS:
            raise BadInput(f"log level {self.log_level!r} is unknown; give one of {', '.join(LOG_LEVELS)}")
        if self.on_death not in ("restart", "stop"):
            raise BadInput(f"on-death {self.on_death!r} is unknown; give restart or stop")
        for path in self.params_files:
            if not path.is_file():
                raise BadInput(f"parameter file {path} does not exist; give the path of a ROS parameter YAML")
        check_files([path for path in self.params_files if path != PARAMETERS], [node.name for node in self.nodes])
        unknown = set(self.parameters) - {node.name for node in self.nodes}
        if unknown:
            raise BadInput(f"parameters for {sorted(unknown)}, but only {[n.name for n in self.nodes]} are started")

    def write_overrides(self) -> Path:
        """Write `parameters` and `use_sim_time` as a parameter file of the run, and return its path."""
        content: dict[str, Any] = {"/**": {"ros__parameters": {"use_sim_time": self.use_sim_time}}}
        for node, values in self.parameters.items():
            content[f"/**/{node}"] = {"ros__parameters": dict(values)}
        path = self.run_dir / "overrides.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    def ros_arguments(self, name: str) -> list[str]:
        """Node name, namespace and log level, for any process of the graph."""
        namespace = ["-r", f"__ns:=/{self.namespace.strip('/')}"] if self.namespace.strip("/") else []
        return ["--ros-args", "-r", f"__node:={name}", *namespace, "--log-level", self.log_level]

    def command(self, node: NodeSpec, overrides: Path, *, respawned: bool) -> list[str]:
        """The command line of a node's process."""
        arguments = self.ros_arguments(node.name)
        for path in (*self.params_files, overrides):
            arguments += ["--params-file", str(path)]
        if respawned:
            for name, value in node.respawn.items():
                arguments += ["-p", f"{name}:={yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}"]
        return [sys.executable, "-m", node.module, *arguments]

"""Which nodes make up a graph, in which processes and order, and with which parameters they start."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from embodied_vision.errors import BadInput
from embodied_vision.launching.parameters import check_files
from embodied_vision.launching.security import enclave_arguments
from embodied_vision.paths import PACKAGE

PARAMETERS = PACKAGE / "config" / "cell.yaml"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


@dataclass(frozen=True)
class NodeSpec:
    """One node.

    Attributes:
        name: node name, which is also the key of its heartbeat and of its parameters.
        module: what `python -m` runs.
        stop_order: nodes with lower numbers become active later and end first.
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

DRIVEN_CELL = (CELL[0], NodeSpec("driver", "embodied_vision_sim.driver_node", 3), *CELL[1:])
"""The same with a robot's driver between arm and cell; the cell's parameter `driven` must be set."""

TASK = CELL[-1]
"""The loop of work, which a real arm has where something tells how a scene ended."""

LEARNER = _node("learner", 0)
"""Learns beside the work, where that is asked for."""

ARM = CELL[1:-1]
"""A real arm and real cameras, whose drivers run already."""

CAMERA = (_node("camera", 0), _node("encoder", 1), _node("recorder", 2))
"""Real images, encoded and logged, without an arm."""

COMPOSED = ("encoder", "policy")
"""Nodes that share a process under `use_composition`."""

COMPOSED_MODULE = "embodied_vision.nodes.composed"
_RESPAWN_FILE = "respawn.yaml"


def active_before(node: NodeSpec, nodes: Sequence[NodeSpec]) -> list[str]:
    """Names of the nodes that must be active before this one becomes it: the order of the end, backwards."""
    return [other.name for other in nodes if other.stop_order > node.stop_order]


@dataclass(frozen=True)
class ProcessSpec:
    """Nodes that live in one process.

    Attributes:
        nodes: usually one.
    """

    nodes: tuple[NodeSpec, ...]

    @property
    def name(self) -> str:
        """Of its log, and in messages."""
        return "+".join(node.name for node in self.nodes)

    @property
    def stop_order(self) -> int:
        """Processes with lower numbers end first."""
        return min(node.stop_order for node in self.nodes)

    @property
    def arguments(self) -> list[str]:
        """What follows `python`."""
        if len(self.nodes) == 1:
            return ["-m", self.nodes[0].module]
        return ["-m", COMPOSED_MODULE, *(node.name for node in self.nodes)]


def write_parameters(path: Path, values: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write a parameter file, pattern of node names such as `/**/arm` → parameter → value, and return its path."""
    content = {pattern: {"ros__parameters": dict(parameters)} for pattern, parameters in values.items() if parameters}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def processes(nodes: Sequence[NodeSpec], *, use_composition: bool) -> tuple[ProcessSpec, ...]:
    """Spread nodes over processes: one each, but for those of `COMPOSED` under `use_composition`."""
    together = tuple(node for node in nodes if use_composition and node.name in COMPOSED)
    if len(together) < 2:
        return tuple(ProcessSpec((node,)) for node in nodes)
    alone = tuple(ProcessSpec((node,)) for node in nodes if node not in together)
    return (*alone, ProcessSpec(together))


@dataclass(frozen=True)
class GraphConfig:
    """What to start and how.

    Attributes:
        nodes: what to start.
        run_dir: folder for logs and generated files; made when missing.
        namespace: ROS namespace of all nodes, such as `cell_1`.
        params_files: parameter YAML, later files win.
        parameters: node name → parameter → value; wins over the files.
        use_sim_time: nodes follow /clock.
        log_level: one of `LOG_LEVELS`.
        autostart: nodes configure and activate themselves; otherwise they wait for a lifecycle manager.
        use_respawn: start a dead node again; otherwise everything stops.
        use_composition: the nodes of `COMPOSED` share a process.
        restarts, restart_window_s: so many deaths of one process within that time, then everything stops.
        hang_s: a node whose heartbeat is silent for so long is killed, and so counts as dead.
        stop_s: how long each node may take to end by itself, SIGINT first, before it is killed.
        domain: a ROS_DOMAIN_ID to use; None holds a free one and keeps the graph on this machine.
        discovery, peers: how far the graph may be found, see `process_environment`.
        enclave: parent of the enclaves of the processes, where the graph is protected by DDS Security.
    """

    nodes: tuple[NodeSpec, ...]
    run_dir: Path
    namespace: str = ""
    params_files: tuple[Path, ...] = (PARAMETERS,)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    use_sim_time: bool = False
    log_level: str = "info"
    autostart: bool = True
    use_respawn: bool = True
    use_composition: bool = False
    restarts: int = 3
    restart_window_s: float = 60.0
    hang_s: float = 15.0
    stop_s: float = 5.0
    domain: int | None = None
    discovery: str = ""
    peers: tuple[str, ...] = ()
    enclave: str = ""

    def __post_init__(self) -> None:
        if self.domain is None and (self.peers or self.discovery not in ("", "localhost")):
            raise BadInput(
                "a graph that other machines may join needs a ROS domain that they know; give --domain-id or set "
                "ROS_DOMAIN_ID"
            )
        if self.log_level not in LOG_LEVELS:
            raise BadInput(f"log level {self.log_level!r} is unknown; give one of {', '.join(LOG_LEVELS)}")
        for path in self.params_files:
            if not path.is_file():
                raise BadInput(f"parameter file {path} does not exist; give the path of a ROS parameter YAML")
        check_files([path for path in self.params_files if path != PARAMETERS], [node.name for node in self.nodes])
        unknown = set(self.parameters) - {node.name for node in self.nodes}
        if unknown:
            raise BadInput(f"parameters for {sorted(unknown)}, but only {[n.name for n in self.nodes]} are started")

    @property
    def processes(self) -> tuple[ProcessSpec, ...]:
        """The processes to start."""
        return processes(self.nodes, use_composition=self.use_composition)

    def write_overrides(self) -> Path:
        """Write what this run sets beside the files as a parameter file of its own, and return its path."""
        common: dict[str, Any] = {"use_sim_time": self.use_sim_time}
        if not self.autostart:
            common["autostart"] = False
        values = {"/**": common}
        for node in self.nodes:
            first = active_before(node, self.nodes)
            values[f"/**/{node.name}"] = {**({"after": first} if first else {}), **self.parameters.get(node.name, {})}
        respawn = {f"/**/{node.name}": node.respawn for node in self.nodes}
        write_parameters(self.run_dir / _RESPAWN_FILE, respawn)
        return write_parameters(self.run_dir / "overrides.yaml", values)

    def ros_arguments(self, name: str | None = None) -> list[str]:
        """Namespace, log level and, for a process with a single node, its name."""
        named = ["-r", f"__node:={name}"] if name is not None else []
        namespace = ["-r", f"__ns:=/{self.namespace.strip('/')}"] if self.namespace.strip("/") else []
        return ["--ros-args", *named, *namespace, "--log-level", self.log_level]

    def command(self, process: ProcessSpec, overrides: Path, *, respawned: bool) -> list[str]:
        """The command line of a process."""
        arguments = self.ros_arguments(process.nodes[0].name if len(process.nodes) == 1 else None)
        arguments += enclave_arguments(self.enclave, process.name)
        again = [self.run_dir / _RESPAWN_FILE] if respawned and any(node.respawn for node in process.nodes) else []
        for path in (*self.params_files, overrides, *again):
            arguments += ["--params-file", str(path)]
        return [sys.executable, *process.arguments, *arguments]

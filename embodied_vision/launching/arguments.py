"""The arguments of a launch, described once: launch files and `embodied-vision launch` both make theirs from here.

Names are those that users of nav2 know; on the command line `params_file:=F` reads `--params-file F`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from embodied_vision.errors import BadInput
from embodied_vision.launching.graph import ARM, CAMERA, CELL, COMPOSED, LEARNER, LOG_LEVELS, TASK, NodeSpec
from embodied_vision.launching.parameters import declared

SWITCH = ("true", "false")


@dataclass(frozen=True)
class Argument:
    """One argument.

    Attributes:
        name: as in a launch file.
        description: what it is for.
        default: as text; for one that sets parameters, empty: they stay as in the parameter files.
        choices: what may be given; empty for anything.
        sets: (node, parameter) pairs that get the value, where the node is started.
    """

    name: str
    description: str
    default: str = ""
    choices: tuple[str, ...] = ()
    sets: tuple[tuple[str, str], ...] = ()

    def value(self, text: str) -> Any:
        """The value that a text stands for, of the type that the parameters have.

        Raises:
            BadInput: it is out of range or of another type.
        """
        parameter = declared()[self.sets[0][0]][self.sets[0][1]]
        if parameter.type == "string":
            return text
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if parameter.type == "double" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        fault = parameter.fault(value)
        if fault is not None:
            raise BadInput(f"{self.name} {fault}")
        return value


Values = Mapping[str, Mapping[str, Any]]
"""Node → parameter → value."""


@dataclass(frozen=True)
class Addition:
    """A node that is started where an argument is given.

    Attributes:
        node: what is started.
        constants: what is set then, in this node and others.
    """

    node: NodeSpec
    constants: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Launchable:
    """A graph that can be launched.

    Attributes:
        nodes: what it always starts.
        arguments: its own, beside `COMMON`.
        constants: what this graph always sets.
        additions: argument → what is started as well where it is given.
    """

    nodes: tuple[NodeSpec, ...]
    arguments: tuple[Argument, ...]
    constants: Values = field(default_factory=dict)
    additions: Mapping[str, Addition] = field(default_factory=dict)

    def started(self, texts: Mapping[str, str]) -> tuple[NodeSpec, ...]:
        """The nodes, by argument → text."""
        return (*self.nodes, *(addition.node for addition in self._asked(texts)))

    def parameters(self, texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """What the nodes that are started get, from argument → text; empty texts set nothing.

        Raises:
            BadInput: a text that its parameter does not take.
        """
        found: dict[str, dict[str, Any]] = {node.name: {} for node in self.started(texts)}
        for constants in (self.constants, *(addition.constants for addition in self._asked(texts))):
            for node, values in constants.items():
                found[node].update(values)
        for argument in self.arguments:
            text = texts.get(argument.name, "")
            for node, parameter in argument.sets if text else ():
                if node in found:
                    found[node][parameter] = argument.value(text)
        return {node: values for node, values in found.items() if values}

    def _asked(self, texts: Mapping[str, str]) -> list[Addition]:
        return [addition for name, addition in self.additions.items() if texts.get(name)]


COMMON = (
    Argument("namespace", "ROS namespace of all nodes, such as left"),
    Argument("use_sim_time", "nodes follow /clock, which the simulated cell then publishes", "false", SWITCH),
    Argument("params_file", "parameter YAML on top of the shipped config/cell.yaml"),
    Argument("autostart", "nodes configure and activate themselves; false: a lifecycle manager does", "true", SWITCH),
    Argument("use_respawn", "a node that dies is started again, 3 times; false: everything stops", "true", SWITCH),
    Argument("use_composition", f"{' and '.join(COMPOSED)} share a process", "false", SWITCH),
    Argument("log_level", "least severity that nodes log", "info", LOG_LEVELS),
)

_STORE = Argument(
    "store",
    "folder of the episode store that the recorder writes to",
    sets=(("recorder", "store"), ("learner", "store")),
)

_ENCODER = Argument(
    "encoder",
    "encoder that the policy was trained on: default, a folder, or a cached hub name (docs/encoders.md)",
    sets=tuple((node, "encoder") for node in ("encoder", "policy", "task", "learner")),
)

_POLICY = Argument(
    "policy",
    "checkpoint: a shipped name, its folder, or a pointer to it; the task's shipped one by default",
    sets=(("policy", "checkpoint"),),
)

_SHADOW = Argument(
    "shadow",
    "candidate's folder: it decides beside the policy and only logs (docs/promotion.md)",
    sets=(("policy", "shadow"),),
)

_LEARN = Argument(
    "learn",
    "folder of policies: a learner runs as well and promotes into it; have policy point there (docs/lifelong.md)",
    sets=(("learner", "policies"),),
)

_SCENES = Argument("scenes", "number of scenes of a run", sets=(("task", "scenes"),))

LAUNCHABLE: Mapping[str, Launchable] = {
    "cell": Launchable(
        CELL,
        (
            Argument(
                "task",
                "task that the cell sets up and the task node works on",
                sets=(("cell", "task"), ("task", "task"), ("recorder", "task"), ("policy", "checkpoint")),
            ),
            _POLICY,
            _SHADOW,
            _ENCODER,
            _STORE,
            _LEARN,
            Argument("first_seed", "first scene of a run", sets=(("task", "first_seed"),)),
            _SCENES,
        ),
        additions={"learn": Addition(LEARNER)},
    ),
    "arm": Launchable(
        ARM,
        (
            Argument(
                "robot",
                "arm and tool: a shipped name, or the path of a description",
                sets=(("arm", "robot"), ("recorder", "robot")),
            ),
            Argument(
                "calibration",
                "YAML with the calibrated cameras",
                sets=tuple((node, "calibration") for node in ("arm", "encoder", "policy", "recorder", "task")),
            ),
            Argument(
                "task",
                "task of policy and classifier",
                sets=(("task", "task"), ("recorder", "task"), ("policy", "checkpoint")),
            ),
            _POLICY,
            _SHADOW,
            _ENCODER,
            _STORE,
            Argument(
                "judge",
                "folder of a classifier: the task node runs as well, and goes on by its verdicts (docs/outcomes.md)",
                sets=(("task", "outcome_classifier"),),
            ),
            _SCENES,
            _LEARN,
            Argument("speed", "pace of pick and place, 1 the default", sets=(("arm", "speed"),)),
            Argument("dry_run", "everything but moving arm and gripper", choices=SWITCH, sets=(("arm", "dry_run"),)),
        ),
        {"arm": {"upstream": ["encoder", "policy", "recorder"]}},
        {
            "judge": Addition(
                TASK,
                {
                    "arm": {"upstream": ["encoder", "policy", "recorder", "task"]},
                    "task": {"needs": ["encoder", "policy", "arm", "recorder"]},
                },
            ),
            "learn": Addition(LEARNER, {"learner": {"scenes": 0}}),
        },
    ),
    "camera": Launchable(
        CAMERA,
        (
            Argument(
                "source",
                "folder of pictures (or of color/ and depth/), video file, or device",
                sets=(("camera", "source"),),
            ),
            Argument(
                "calibration",
                "YAML with the camera's calibration; the simulated cell's by default",
                sets=tuple((node, "calibration") for node in ("camera", "encoder", "recorder")),
            ),
            Argument("rate", "frames a second; a device may give fewer", sets=(("camera", "rate"),)),
            Argument("loop", "start again at the end of a folder or file", choices=SWITCH, sets=(("camera", "loop"),)),
            Argument(
                "resize",
                "scale images to the size of the calibration, or refuse them",
                choices=SWITCH,
                sets=(("camera", "resize"),),
            ),
            Argument("encoder", "name or folder of the encoder", sets=(("encoder", "encoder"),)),
            _STORE,
        ),
        {"recorder": {"robot": "none", "task": "camera"}},
    ),
}
"""Graph → what it is; launch/GRAPH.launch.py and `embodied-vision launch GRAPH` start it."""


def named(arguments: Sequence[Argument]) -> dict[str, Argument]:
    """Name → argument."""
    return {argument.name: argument for argument in arguments}

"""The arguments of a launch, described once: launch files and `embodied-vision launch` both make theirs from here.

Names are those that users of nav2 know; on the command line `params_file:=F` reads `--params-file F`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from embodied_vision.errors import BadInput
from embodied_vision.launching.graph import ARM, CAMERA, CELL, COMPOSED, LOG_LEVELS, NodeSpec
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
        sets: (node, parameter) pairs that get the value.
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


@dataclass(frozen=True)
class Launchable:
    """A graph that can be launched.

    Attributes:
        nodes: what it starts.
        arguments: its own, beside `COMMON`.
        constants: node → parameter → value that this graph always sets.
    """

    nodes: tuple[NodeSpec, ...]
    arguments: tuple[Argument, ...]
    constants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def parameters(self, texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Node → parameter → value, from argument → text; empty texts set nothing.

        Raises:
            BadInput: a text that its parameter does not take.
        """
        found: dict[str, dict[str, Any]] = {node: dict(values) for node, values in self.constants.items()}
        for argument in self.arguments:
            text = texts.get(argument.name, "")
            for node, parameter in argument.sets if text else ():
                found.setdefault(node, {})[parameter] = argument.value(text)
        return found


COMMON = (
    Argument("namespace", "ROS namespace of all nodes, such as left"),
    Argument("use_sim_time", "nodes follow /clock, which the simulated cell then publishes", "false", SWITCH),
    Argument("params_file", "parameter YAML on top of the shipped config/cell.yaml"),
    Argument("autostart", "nodes configure and activate themselves; false: a lifecycle manager does", "true", SWITCH),
    Argument("use_respawn", "a node that dies is started again, 3 times; false: everything stops", "true", SWITCH),
    Argument("use_composition", f"{' and '.join(COMPOSED)} share a process", "false", SWITCH),
    Argument("log_level", "least severity that nodes log", "info", LOG_LEVELS),
)

_STORE = Argument("store", "folder of the episode store that the recorder writes to", sets=(("recorder", "store"),))

_ENCODER = Argument(
    "encoder",
    "encoder that the policy was trained on: default, a folder, or a cached hub name (docs/encoders.md)",
    sets=(("encoder", "encoder"), ("policy", "encoder")),
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
            Argument("first_seed", "first scene of a run", sets=(("task", "first_seed"),)),
            Argument("scenes", "number of scenes of a run", sets=(("task", "scenes"),)),
        ),
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
                sets=tuple((node, "calibration") for node in ("arm", "encoder", "policy", "recorder")),
            ),
            _POLICY,
            _SHADOW,
            _ENCODER,
            _STORE,
            Argument("speed", "pace of pick and place, 1 the default", sets=(("arm", "speed"),)),
            Argument("dry_run", "everything but moving arm and gripper", choices=SWITCH, sets=(("arm", "dry_run"),)),
        ),
        {"arm": {"upstream": ["encoder", "policy", "recorder"]}},
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

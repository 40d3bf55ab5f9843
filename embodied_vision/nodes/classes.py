"""The nodes of this package by name."""

from __future__ import annotations

from importlib import import_module

from embodied_vision.errors import BadInput
from embodied_vision.launching.parameters import nearest
from embodied_vision.nodes.lifecycle import ManagedNode

CLASSES = {
    "arm": "embodied_vision.nodes.arm:ArmNode",
    "camera": "embodied_vision.nodes.camera:CameraNode",
    "cell": "embodied_vision_sim.node:CellNode",
    "driver": "embodied_vision_sim.driver_node:DriverNode",
    "encoder": "embodied_vision.nodes.encoder:EncoderNode",
    "learner": "embodied_vision.nodes.learner:LearnerNode",
    "markers": "embodied_vision.nodes.markers:MarkersNode",
    "policy": "embodied_vision.nodes.policy:PolicyNode",
    "recorder": "embodied_vision.nodes.recorder:RecorderNode",
    "replay": "embodied_vision.nodes.replay:ReplayNode",
    "task": "embodied_vision.nodes.task:TaskNode",
}
"""Node → where its class is. The simulated cell is a name alone: nothing here imports the simulator."""


def node_class(name: str) -> type[ManagedNode]:
    """The class of a node.

    Raises:
        BadInput: there is no node of that name.
    """
    if name not in CLASSES:
        raise BadInput(f"there is no node {name!r}; {nearest(name, CLASSES)}")
    module, kind = CLASSES[name].split(":")
    found = getattr(import_module(module), kind)
    assert issubclass(found, ManagedNode)
    return found

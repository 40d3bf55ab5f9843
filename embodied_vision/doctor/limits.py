"""A robot's joint limits: complete, and which of them are tighter or, in vain, looser than the URDF's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from embodied_vision.control.description import read_description
from embodied_vision.control.limits import read_limits_file
from embodied_vision.control.robot import RobotModel
from embodied_vision.doctor.check import Check

_COUNTS = {
    "min_position": ("has_position_limits", "lower"),
    "max_position": ("has_position_limits", "upper"),
    "max_velocity": ("has_velocity_limits", "velocity"),
}
"""Entry of joint_limits → the flag that makes it count, and the attribute of the URDF's limit."""


def check_limits(robot: str) -> Check:
    """Limits of a robot by name or path; where the description loads, they are complete.

    Raises:
        BadInput: it does not load, as when a joint lacks its acceleration or jerk.
    """
    model = RobotModel.load(robot)
    urdf = {
        joint.get("name"): limit.attrib
        for joint in ElementTree.fromstring(model.urdf).iter("joint")
        if (limit := joint.find("limit")) is not None
    }
    tighter: list[str] = []
    looser: list[str] = []
    for joint, name, own in _entries(robot):
        unbounded = "-inf" if name == "min_position" else "inf"
        given = float(urdf.get(joint, {}).get(_COUNTS[name][1], unbounded))
        inside = own - given if name == "min_position" else given - own
        (tighter if inside > 0 else looser if inside < 0 else []).append(f"{name} of {joint}")
    count = len(model.joint_names)
    value = f"{robot}: position, velocity, acceleration and jerk limits of {count} joints"
    value += f"; tighter than the URDF's: {', '.join(tighter)}" if tighter else ""
    hint = f"{', '.join(looser)} is looser than in the URDF, which counts; correct the one that is wrong"
    return Check("robot", True, value, hint if looser else "")


def _entries(robot: str) -> Iterator[tuple[str, str, float]]:
    """Joint, name and value of every number that counts for positions and velocities."""
    description = read_description(robot)
    fields = description.fields
    files = [description.path.parent / str(fields["joint_limits_file"])] if "joint_limits_file" in fields else []
    for entries in (*map(read_limits_file, files), dict(fields.get("joint_limits", {}))):
        for joint, entry in entries.items():
            yield from ((joint, name, value) for name, value in _counting(entry))


def _counting(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, (flag, _) in _COUNTS.items():
        if entry.get(flag):
            yield name, float(entry[name])

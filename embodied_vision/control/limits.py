"""Joint limits, read from a URDF and from entries in the vocabulary of ros2_control's and MoveIt's joint_limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

Vector = NDArray[np.float64]

KNOWN = {
    "has_position_limits": ("min_position", "max_position"),
    "has_velocity_limits": ("max_velocity",),
    "has_acceleration_limits": ("max_acceleration",),
    "has_deceleration_limits": ("max_deceleration",),
    "has_jerk_limits": ("max_jerk",),
    "has_effort_limits": ("max_effort",),
    "has_soft_limits": ("k_position", "k_velocity", "soft_lower_limit", "soft_upper_limit"),
}
"""Each flag and the numbers that count where it is true."""

FLAGS = {*KNOWN, "angle_wraparound"}


@dataclass(frozen=True, eq=False)
class JointLimits:
    """What each joint may do at most.

    Attributes:
        lower, upper: positions (J,), rad.
        velocity, acceleration, jerk: magnitudes (J,), rad/s, rad/s², rad/s³.
    """

    lower: Vector
    upper: Vector
    velocity: Vector
    acceleration: Vector
    jerk: Vector

    def __post_init__(self) -> None:
        if not (np.isfinite(self.lower) & np.isfinite(self.upper) & (self.lower < self.upper)).all():
            raise BadInput(f"lower position limits {self.lower} must be finite and lie below the upper {self.upper}")
        for name in ("velocity", "acceleration", "jerk"):
            value = getattr(self, name)
            if not (np.isfinite(value) & (value > 0)).all():
                raise BadInput(f"{name} limits are {value}; give positive finite numbers")


def read_limits_file(path: Path) -> dict[str, Any]:
    """Entries of a YAML file with `joint_limits`, as ros2_control and MoveIt have it, by joint.

    Raises:
        BadInput: the file is missing or has no such mapping.
    """
    if not path.is_file():
        raise BadInput(f"no joint limits at {path}; correct `joint_limits_file`")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no YAML ({error}); correct it") from error
    entries = content.get("joint_limits") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise BadInput(f"{path} has no mapping `joint_limits`; give one entry a joint")
    return entries


def read_limits(
    joints: Sequence[str],
    lower: Vector,
    upper: Vector,
    velocity: Vector,
    entries: Iterable[tuple[str, Mapping[str, Any]]],
    others: Sequence[str] = (),
) -> JointLimits:
    """Limits of the URDF, tightened and completed by `joint_limits` entries; the tightest value wins.

    Args:
        joints: names in the order of the vectors.
        lower, upper, velocity: of the URDF, (J,).
        entries: where they come from, and the entries by joint; later ones add to earlier ones.
        others: joints of the robot that may have entries, which are not read.

    Raises:
        BadInput: an entry names an unknown joint or field or holds no number, or a joint lacks its acceleration or
            jerk.
    """
    bounds = {"min_position": lower.copy(), "max_position": upper.copy(), "max_velocity": velocity.copy()}
    bounds |= {name: np.full(len(joints), np.inf) for name in ("max_acceleration", "max_deceleration", "max_jerk")}
    for place, mapping in entries:
        unknown = sorted(set(map(str, mapping)) - set(joints) - set(others))
        if unknown:
            raise BadInput(f"{place}: joint_limits name {unknown}, the robot has {list(joints)}; correct the names")
        for index, joint in enumerate(joints):
            for name, value in _numbers(mapping.get(joint, {}), f"{place}: joint_limits of {joint}"):
                if name in bounds:
                    tighter = max if name == "min_position" else min
                    bounds[name][index] = tighter(bounds[name][index], value)
    acceleration = np.minimum(bounds["max_acceleration"], bounds["max_deceleration"])
    for quantity, values in (("acceleration", acceleration), ("jerk", bounds["max_jerk"])):
        for joint, value in zip(joints, values, strict=True):
            if np.isinf(value):
                raise BadInput(
                    f"joint_limits of {joint} lack the {quantity}; add has_{quantity}_limits: true and max_{quantity}"
                )
    return JointLimits(
        bounds["min_position"], bounds["max_position"], bounds["max_velocity"], acceleration, bounds["max_jerk"]
    )


def _numbers(entry: object, where: str) -> list[tuple[str, float]]:
    """Names and values that count in an entry."""
    if not isinstance(entry, dict):
        raise BadInput(f"{where} are {entry!r}; give a mapping such as has_jerk_limits: true, max_jerk: 1000.0")
    fields = FLAGS.union(*KNOWN.values())
    unknown = sorted(set(map(str, entry)) - fields)
    if unknown:
        raise BadInput(f"{where} have unknown fields {unknown}; there are {', '.join(sorted(fields))}")
    for flag in FLAGS & set(entry):
        if not isinstance(entry[flag], bool):
            raise BadInput(f"{where}: {flag} is {entry[flag]!r}; give true or false")
    numbers = []
    for flag, names in KNOWN.items():
        for name in names if entry.get(flag) else ():
            value = entry.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                raise BadInput(f"{where}: {name} is {value!r}; give a finite number, or set {flag} to false")
            numbers.append((name, float(value)))
    return numbers

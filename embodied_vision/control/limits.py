"""Joint limits, read from a URDF and a file in the vocabulary of ros2_control's joint_limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

Vector = NDArray[np.float64]


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
        if not (self.lower < self.upper).all():
            raise BadInput(f"lower position limits {self.lower} must lie below the upper ones {self.upper}")
        for name in ("velocity", "acceleration", "jerk"):
            if not (getattr(self, name) > 0).all():
                raise BadInput(f"{name} limits are {getattr(self, name)}; give positive numbers")


def read_limits(
    joints: Sequence[str], lower: Vector, upper: Vector, velocity: Vector, entries: Mapping[str, Any]
) -> JointLimits:
    """Limits of the URDF, tightened and completed by `joint_limits` entries; the tighter value wins.

    Raises:
        BadInput: an entry names an unknown joint or a joint lacks its acceleration or jerk.
    """
    unknown = sorted(set(entries) - set(joints))
    if unknown:
        raise BadInput(f"joint_limits name {unknown}, the robot has {list(joints)}; correct the names")
    low, high, speed = lower.copy(), upper.copy(), velocity.copy()
    acceleration, jerk = np.zeros(len(joints)), np.zeros(len(joints))
    for index, joint in enumerate(joints):
        entry = entries.get(joint, {})
        if entry.get("has_position_limits"):
            low[index] = max(low[index], float(entry["min_position"]))
            high[index] = min(high[index], float(entry["max_position"]))
        if entry.get("has_velocity_limits"):
            speed[index] = min(speed[index], float(entry["max_velocity"]))
        for quantity, target in (("acceleration", acceleration), ("jerk", jerk)):
            if not entry.get(f"has_{quantity}_limits"):
                raise BadInput(
                    f"joint_limits of {joint} lack the {quantity}; add has_{quantity}_limits: true and max_{quantity}"
                )
            target[index] = float(entry[f"max_{quantity}"])
    return JointLimits(low, high, speed, acceleration, jerk)

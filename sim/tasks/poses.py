"""Poses of objects that stand on something, and their turns about z."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from embodied_vision.geometry import yaw_of
from embodied_vision.types import FloatArray


def upright(xyz: Sequence[float] | FloatArray, yaw: float = 0.0) -> FloatArray:
    """Pose (4, 4) at `xyz` m, turned by `yaw` rad about z."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    pose[:3, 3] = xyz
    return pose


def turn_between(pose: FloatArray, goal: FloatArray, symmetry: float = 2 * np.pi) -> float:
    """Smallest turn about z in rad, signed, that takes a pose (4, 4) to a goal, or to one of its equals.

    Args:
        pose, goal: in one frame.
        symmetry: turn in rad by which the object equals itself.
    """
    return float((yaw_of(goal) - yaw_of(pose) + symmetry / 2) % symmetry - symmetry / 2)


def least_turned(goal: FloatArray, pose: FloatArray, turn: float) -> FloatArray:
    """A goal (4, 4), upright, with the yaw that a pose has after a turn in rad: one of the goal's equals."""
    return upright(goal[:3, 3], yaw_of(pose) + turn)


def levelled(pose: FloatArray) -> FloatArray:
    """The pose (4, 4) of the same cube with its axes renamed so that z points up the most."""
    rotation = pose[:3, :3]
    up = int(np.abs(rotation[2]).argmax())
    z = rotation[:, up] * np.sign(rotation[2, up])
    x = rotation[:, (up + 1) % 3]
    same = pose.copy()
    same[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    return same

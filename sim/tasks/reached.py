"""When a pose counts as reached, and how much of an object lies in a zone (Zeng et al., CoRL 2020)."""

from __future__ import annotations

import numpy as np

from embodied_vision.types import FloatArray
from embodied_vision_sim.tasks.poses import turn_between

TOLERANCE_M = 0.01
TOLERANCE_RAD = float(np.deg2rad(15))
GRID_M = 0.02


def reached(pose: FloatArray, goal: FloatArray, *, symmetry: float = 2 * np.pi) -> bool:
    """Whether a pose (4, 4) lies within 1 cm on the table, 1 cm in height and 15° of a goal, flat on top or bottom."""
    offset = pose[:3, 3] - goal[:3, 3]
    flat = abs(float(pose[2, 2])) > np.cos(TOLERANCE_RAD)
    near = float(np.hypot(offset[0], offset[1])) < TOLERANCE_M and abs(float(offset[2])) < TOLERANCE_M
    return bool(flat and near and abs(turn_between(pose, goal, symmetry)) < TOLERANCE_RAD)


def grid_points(size: tuple[float, float, float]) -> FloatArray:
    """Points (N, 3) of a grid of 2 cm in a cuboid of edges `size` m about the origin, symmetric in it."""
    axes = []
    for edge in size:
        count = int(edge / GRID_M + 1e-9)
        axes.append((np.arange(count + 1) - count / 2) * GRID_M)
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def inside(points: FloatArray, pose: FloatArray, zone: FloatArray, half: tuple[float, float], ceiling: float) -> int:
    """How many points of an object lie over a zone and below a ceiling.

    Args:
        points: (N, 3) in the object's frame, m.
        pose: of the object in the base frame (4, 4).
        zone: pose of the zone's centre in the base frame (4, 4).
        half: half edges of the zone along its x and y, m.
        ceiling: in the base frame, m.
    """
    base = points @ pose[:3, :3].T + pose[:3, 3]
    local = (base - zone[:3, 3]) @ zone[:3, :3]
    return int(((np.abs(local[:, :2]) < half).all(axis=1) & (base[:, 2] < ceiling)).sum())

"""Rigid bodies out of boxes, and a bowl; nothing is read from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pybullet

from embodied_vision.types import FloatArray

RGBA = tuple[float, float, float, float]
DENSITY_KG_M3 = 500.0


@dataclass(frozen=True)
class Box:
    """A cuboid as part of a body: full size and centre in the body frame, m, and yaw in rad."""

    size: tuple[float, float, float]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0

    @property
    def volume(self) -> float:
        """Volume in m³."""
        return float(np.prod(self.size))


def _compound(client: int, boxes: Sequence[Box]) -> int:
    collision: int = pybullet.createCollisionShapeArray(
        shapeTypes=[pybullet.GEOM_BOX] * len(boxes),
        halfExtents=[[edge / 2 for edge in box.size] for box in boxes],
        collisionFramePositions=[box.centre for box in boxes],
        collisionFrameOrientations=[_quaternion(box.yaw) for box in boxes],
        physicsClientId=client,
    )
    return collision


def _quaternion(yaw: float) -> tuple[float, float, float, float]:
    return 0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))


def create_boxes(
    client: int, boxes: Sequence[Box], xyz: Sequence[float], yaw: float, rgba: RGBA, *, fixed: bool
) -> int:
    """A body of one color at `xyz` with `yaw`, its frame at its centre of mass; mass follows from the volume.

    Args:
        client: PyBullet client.
        boxes: parts that do not overlap, with their common centroid at the origin (see `centred`).
        xyz, yaw: pose of the body frame in the base frame.
        rgba: color in [0, 1].
        fixed: whether the body is glued to the table.

    Returns:
        The body's id.
    """
    visual: int = pybullet.createVisualShapeArray(
        shapeTypes=[pybullet.GEOM_BOX] * len(boxes),
        halfExtents=[[edge / 2 for edge in box.size] for box in boxes],
        visualFramePositions=[box.centre for box in boxes],
        visualFrameOrientations=[_quaternion(box.yaw) for box in boxes],
        rgbaColors=[rgba] * len(boxes),
        physicsClientId=client,
    )
    mass = 0.0 if fixed else DENSITY_KG_M3 * sum(box.volume for box in boxes)
    body: int = pybullet.createMultiBody(
        baseMass=mass,
        baseCollisionShapeIndex=_compound(client, boxes),
        baseVisualShapeIndex=visual,
        basePosition=xyz,
        baseOrientation=_quaternion(yaw),
        physicsClientId=client,
    )
    return body


def centred(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """The same boxes, which must not overlap, moved so that their common centroid is the origin."""
    volumes = np.array([box.volume for box in boxes])
    centres = np.array([box.centre for box in boxes])
    moved = centres - (volumes / volumes.sum()) @ centres
    return tuple(
        replace(box, centre=(float(x), float(y), float(z))) for box, (x, y, z) in zip(boxes, moved, strict=True)
    )


def create_bowl(
    client: int, xyz: Sequence[float], rgba: RGBA, *, radius: float, height: float, thickness: float, sides: int = 16
) -> int:
    """A fixed open bowl standing at `xyz`: walls around a floor plate.

    It is seen as a mesh that narrows to 70 % at the floor and felt as upright boxes on the mean circle,
    so that what is dropped inside stays inside.

    Returns:
        The body's id.
    """
    foot = 0.7 * radius
    vertices, normals, indices = _bowl_mesh(radius, foot, height, thickness, sides)
    visual = pybullet.createVisualShape(
        pybullet.GEOM_MESH,
        vertices=vertices.tolist(),
        indices=indices,
        normals=normals.tolist(),
        rgbaColor=rgba,
        physicsClientId=client,
    )
    walls = [Box((2 * foot, 2 * foot, thickness), (0.0, 0.0, thickness / 2))]
    mean = 0.5 * (radius + foot) + 0.5 * thickness
    for angle in np.arange(sides) * 2 * np.pi / sides:
        centre = (float(mean * np.cos(angle)), float(mean * np.sin(angle)), height / 2)
        walls.append(Box((thickness, 2 * mean * np.tan(np.pi / sides), height), centre, float(angle)))
    body: int = pybullet.createMultiBody(
        baseMass=0.0,
        baseCollisionShapeIndex=_compound(client, walls),
        baseVisualShapeIndex=visual,
        basePosition=xyz,
        physicsClientId=client,
    )
    return body


def _bowl_mesh(
    radius: float, foot: float, height: float, thickness: float, sides: int
) -> tuple[FloatArray, FloatArray, list[int]]:
    """Vertices (N, 3), normals (N, 3) and triangle indices of a bowl of revolution with flat faces."""
    profile = np.array(
        [
            (0.0, thickness),
            (foot - thickness, thickness),
            (radius - thickness, height),
            (radius, height),
            (foot, 0.0),
        ]
    )
    angles = np.arange(sides + 1) * 2 * np.pi / sides
    vertices: list[FloatArray] = []
    normals: list[FloatArray] = []
    indices: list[int] = []
    for (r0, z0), (r1, z1) in pairwise(profile):
        for a, b in pairwise(angles):
            quad = np.array(
                [
                    (r0 * np.cos(a), r0 * np.sin(a), z0),
                    (r1 * np.cos(a), r1 * np.sin(a), z1),
                    (r1 * np.cos(b), r1 * np.sin(b), z1),
                    (r0 * np.cos(b), r0 * np.sin(b), z0),
                ]
            )
            normal = np.cross(quad[1] - quad[0], quad[2] - quad[0])
            first = len(vertices)
            vertices.extend(quad)
            normals.extend([normal / np.linalg.norm(normal)] * 4)
            indices += [first, first + 1, first + 2, first, first + 2, first + 3]
    return np.array(vertices), np.array(normals), indices

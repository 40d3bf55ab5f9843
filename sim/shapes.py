"""Rigid bodies out of boxes, looks and contacts alike; nothing is read from files.

Meshes handed to PyBullet from memory are never freed, 100 KB a shape, not even with their client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pybullet
from scipy.spatial.transform import Rotation

from embodied_vision.errors import BadInput
from embodied_vision_sim.rounding import rounded

RGBA = tuple[float, float, float, float]
DENSITY_KG_M3 = 500.0
MOST_BOXES = 16
"""PyBullet crashes on bodies of more parts."""


@dataclass(frozen=True)
class Box:
    """A cuboid as part of a body.

    Attributes:
        size: full edges, m.
        centre: in the body frame, m.
        yaw: turn about z, rad.
        tilt: turn about its own y before that, rad; leans its z axis towards its x axis.
    """

    size: tuple[float, float, float]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    tilt: float = 0.0

    @property
    def volume(self) -> float:
        """Volume in m³."""
        return float(np.prod(self.size))


def _quaternion(yaw: float, tilt: float = 0.0) -> list[float]:
    quaternion: list[float] = rounded(Rotation.from_euler("ZY", [yaw, tilt]).as_quat()).tolist()
    return quaternion


def create_boxes(
    client: int,
    boxes: Sequence[Box],
    xyz: Sequence[float],
    yaw: float,
    rgba: RGBA,
    *,
    fixed: bool,
    collide: bool = True,
    mesh: Path | None = None,
    mass: float | None = None,
) -> int:
    """A body of one color at `xyz` with `yaw`, its frame at its centre of mass.

    Args:
        client: PyBullet client.
        boxes: parts that do not overlap, with their common centroid at the origin (see `centred`).
        xyz, yaw: pose of the body frame in the base frame.
        rgba: color in [0, 1].
        fixed: whether the body is glued to the table.
        collide: whether anything can touch it; what nothing can touch is to be fixed.
        mesh: file of a mesh in the body frame that is seen in place of the boxes.
        mass: in kg; left out, it follows from the volume.

    Returns:
        The body's id.

    Raises:
        BadInput: too many boxes.
    """
    if len(boxes) > MOST_BOXES:
        raise BadInput(f"a body of {len(boxes)} boxes; give at most {MOST_BOXES}")
    kinds = [pybullet.GEOM_BOX] * len(boxes)
    halves = [rounded(np.asarray(box.size) / 2).tolist() for box in boxes]
    centres = [rounded(box.centre).tolist() for box in boxes]
    turns = [_quaternion(box.yaw, box.tilt) for box in boxes]
    if mesh is not None:
        visual = pybullet.createVisualShape(
            pybullet.GEOM_MESH, fileName=str(mesh), rgbaColor=rgba, physicsClientId=client
        )
    else:
        visual = pybullet.createVisualShapeArray(
            shapeTypes=kinds,
            halfExtents=halves,
            visualFramePositions=centres,
            visualFrameOrientations=turns,
            rgbaColors=[rgba] * len(boxes),
            physicsClientId=client,
        )
    collision = -1
    if collide:
        collision = pybullet.createCollisionShapeArray(
            shapeTypes=kinds,
            halfExtents=halves,
            collisionFramePositions=centres,
            collisionFrameOrientations=turns,
            physicsClientId=client,
        )
    if mass is None:
        mass = DENSITY_KG_M3 * sum(box.volume for box in boxes)
    body: int = pybullet.createMultiBody(
        baseMass=0.0 if fixed else mass,
        baseCollisionShapeIndex=collision,
        baseVisualShapeIndex=visual,
        basePosition=rounded(xyz).tolist(),
        baseOrientation=_quaternion(yaw),
        physicsClientId=client,
    )
    return body


def create_ball(client: int, radius: float, mass: float, xyz: Sequence[float], yaw: float, rgba: RGBA) -> int:
    """A free ball of `radius` m and `mass` kg at `xyz`; see `create_boxes`. Returns its id."""
    body: int = pybullet.createMultiBody(
        baseMass=mass,
        baseCollisionShapeIndex=pybullet.createCollisionShape(
            pybullet.GEOM_SPHERE, radius=radius, physicsClientId=client
        ),
        baseVisualShapeIndex=pybullet.createVisualShape(
            pybullet.GEOM_SPHERE, radius=radius, rgbaColor=rgba, physicsClientId=client
        ),
        basePosition=rounded(xyz).tolist(),
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


def bowl_boxes(radius: float, height: float, thickness: float, sides: int = 10) -> tuple[Box, ...]:
    """An open bowl about the z axis, standing at z = 0: slanted walls around a floor of 70 % of the radius."""
    foot = 0.7 * radius
    slant = float(np.arctan2(radius - foot, height))
    inner = 0.5 * (radius + foot) - 0.5 * thickness * np.cos(slant)
    wall = (thickness, 2 * radius * np.tan(np.pi / sides), float(np.hypot(radius - foot, height)))
    z = 0.5 * height + 0.5 * thickness * np.sin(slant)
    plank = (2 * foot, 2 * foot * np.tan(np.pi / sides), thickness)
    angles = np.arange(sides) * 2 * np.pi / sides
    walls = [Box(wall, (inner * np.cos(a), inner * np.sin(a), z), float(a), slant) for a in angles]
    floor = [Box(plank, (0.0, 0.0, thickness / 2), float(a)) for a in angles[: sides // 2]]
    return (*walls, *floor)


def ring_boxes(hole: float, radius: float, height: float, sides: int = 12) -> tuple[Box, ...]:
    """A flat ring about the z axis, its middle at the origin: a hole of radius `hole` with `sides` straight edges."""
    width = radius * np.cos(np.pi / sides) - hole
    segment = (width, 2 * radius * np.sin(np.pi / sides), height)
    middle = hole + width / 2
    angles = np.arange(sides) * 2 * np.pi / sides
    return tuple(Box(segment, (middle * np.cos(a), middle * np.sin(a), 0.0), float(a)) for a in angles)

"""Where a parallel jaw can take a rigid body of boxes: between opposite upright faces or, where it has none, between a
side of its outline and the corner opposite; always with room for the fingers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pybullet
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from embodied_vision.geometry import tool_down
from embodied_vision.types import FloatArray
from embodied_vision_sim.parallel_jaw import ParallelJaw
from embodied_vision_sim.suction import OBJECT_GROUP

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

DEPTHS_M = (0.022, 0.014)
"""How far the fingertips reach below the top of the faces, the firmer hold first."""
LEAST_HOLD_M, LEAST_WIDTH_M = 0.006, 0.004
"""Contact, along the face, and thickness below which nothing is gripped."""
STROKE_MARGIN_M = 0.008
"""By how much the open jaw is wider than what it takes, at least."""
FLOOR_M, BELOW_M = 0.004, 0.002
"""Least height of the fingertips above the table, and above the lower edge of the faces: they may end on something."""
ROOM_M = 0.005
"""Gap kept about the fingers: a held object may shift a little and must not jam them."""
FACE_M = 0.003
"""Gap between a face and the first ray beside it: rays meet shapes a millimetre or two early at their edges."""
STEP_M = 0.01
"""Distance between the grips tried along a face, and greatest distance between the rays that look for obstacles."""
PARALLEL, UPRIGHT = 0.9995, 0.02


@dataclass(frozen=True, eq=False)
class Grip:
    """A way to take a body.

    Attributes:
        pose: tip pose (4, 4) in the base frame, looking down, fingers opening along its y axis.
        width_m: distance of the two faces, or of side and corner.
        lever_m: horizontal distance of the tip from the body's centre of mass.
        firm: whether it holds between two faces.
    """

    pose: FloatArray
    width_m: float
    lever_m: float
    firm: bool


@dataclass(frozen=True, eq=False)
class _Faces:
    """Upright faces of a body, N of them: centres, outward normals and level tangents (N, 2), half lengths along these
    (N,), heights of lower and upper edge (N,)."""

    centres: NDArray[np.float64]
    normals: NDArray[np.float64]
    halves: NDArray[np.float64]
    bottoms: NDArray[np.float64]
    tops: NDArray[np.float64]


def _upright_faces(world: World, body: int) -> _Faces:
    centres, normals, halves, bottoms, tops = [], [], [], [], []
    base = world.pose(body)
    for _, _, kind, edges, _, xyz, quaternion in pybullet.getCollisionShapeData(body, -1, physicsClientId=world.client):
        if kind != pybullet.GEOM_BOX:
            continue
        R = base[:3, :3] @ np.reshape(pybullet.getMatrixFromQuaternion(quaternion), (3, 3))
        centre, half = base[:3, :3] @ xyz + base[:3, 3], np.array(edges) / 2
        up = int(np.argmax(np.abs(R[2])))
        if abs(R[2, up]) < 1 - UPRIGHT**2:
            continue
        for axis, along in ((a, 3 - up - a) for a in range(3) if a != up):
            for sign in (-1.0, 1.0):
                normal = sign * R[:2, axis]
                centres.append(centre[:2] + half[axis] * normal)
                normals.append(normal / np.linalg.norm(normal))
                halves.append(half[along])
                bottoms.append(centre[2] - half[up])
                tops.append(centre[2] + half[up])
    return _Faces(
        np.reshape(centres, (-1, 2)), np.reshape(normals, (-1, 2)), np.array(halves), np.array(bottoms), np.array(tops)
    )


def grips(world: World, body: int, jaw: ParallelJaw) -> Iterator[Grip]:
    """Every grip that a body of boxes allows, in no particular order and whether or not there is room.

    Two opposite faces hold best; the outline is for what has none that fingers get at, such as a star.
    """
    faces = _upright_faces(world, body)
    yield from _between_faces(world, body, jaw, faces)
    yield from _across_outline(world, body, jaw, faces)


def _across_outline(world: World, body: int, jaw: ParallelJaw, faces: _Faces) -> Iterator[Grip]:
    """Grips between a side of the convex outline and the corner opposite, which lies over that side and so stays."""
    if not len(faces.tops):
        return
    ends = faces.halves[:, None] * np.c_[-faces.normals[:, 1], faces.normals[:, 0]]
    outline = ConvexHull(np.r_[faces.centres + ends, faces.centres - ends])
    corners = outline.points[outline.vertices]
    centre, bottom, top = world.pose(body)[:2, 3], float(faces.bottoms.max()), float(faces.tops.min())
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = float(np.linalg.norm(end - start))
        if length < 2 * LEAST_HOLD_M:
            continue
        tangent = (end - start) / length
        normal = np.array([tangent[1], -tangent[0]])  # outwards: the corners run anticlockwise
        depths = (start - corners) @ normal
        corner, width = corners[int(np.argmax(depths))], float(depths.max())
        along = float((corner - start) @ tangent)
        if not LEAST_WIDTH_M <= width <= jaw.stroke_m - STROKE_MARGIN_M:
            continue
        if not LEAST_HOLD_M <= along <= length - LEAST_HOLD_M:
            continue
        x, y = corner + normal * width / 2
        for depth in DEPTHS_M:
            z = max(top - depth, bottom + BELOW_M, FLOOR_M)
            if top - z >= LEAST_HOLD_M:
                pose = tool_down(float(x), float(y), z, float(np.arctan2(normal[0], -normal[1])))
                yield Grip(pose, width, float(np.hypot(x - centre[0], y - centre[1])), False)


def widest(world: World) -> float:
    """Greatest width in m that the world's tool grips with ease; without a jaw there is no limit."""
    return world.tool.stroke_m - STROKE_MARGIN_M - FACE_M if isinstance(world.tool, ParallelJaw) else np.inf


def _between_faces(world: World, body: int, jaw: ParallelJaw, faces: _Faces) -> Iterator[Grip]:
    centre = world.pose(body)[:2, 3]
    facing = faces.normals @ faces.normals.T < -PARALLEL
    for i, j in zip(*np.nonzero(np.triu(facing)), strict=True):
        normal = faces.normals[i]
        tangent = np.array([-normal[1], normal[0]])
        width = float((faces.centres[i] - faces.centres[j]) @ normal)
        if not LEAST_WIDTH_M <= width <= jaw.stroke_m - STROKE_MARGIN_M:
            continue
        (a, b), (p, q) = faces.centres[[i, j]] @ tangent, faces.halves[[i, j]]
        low, high = max(a - p, b - q) + LEAST_HOLD_M, min(a + p, b + q) - LEAST_HOLD_M
        bottom, top = max(faces.bottoms[[i, j]]), min(faces.tops[[i, j]])
        if low > high:
            continue
        across = float((faces.centres[i] + faces.centres[j]) @ normal) / 2
        for depth in DEPTHS_M:
            z = max(float(top) - depth, float(bottom) + BELOW_M, FLOOR_M)
            if float(top) - z < LEAST_HOLD_M:
                continue
            for along in np.linspace(low, high, 1 + 2 * int(np.ceil((high - low) / STEP_M / 2))):
                x, y = across * normal + along * tangent
                pose = tool_down(float(x), float(y), z, float(np.arctan2(normal[0], -normal[1])))
                yield Grip(pose, width, float(np.hypot(x - centre[0], y - centre[1])), True)


def has_room(world: World, jaw: ParallelJaw, pose: FloatArray, width_m: float, moved: int | None = None) -> bool:
    """Whether the fingers can come down to a tip pose from above, and open and close there, without touching anything.

    Args:
        world: the scene.
        jaw: the gripper.
        pose: tip pose (4, 4), looking down.
        width_m: of what is between the fingers.
        moved: body that is not where it is now when the fingers come.
    """
    wide, thick, length = jaw.finger_m
    outer = jaw.stroke_m / 2 + thick + ROOM_M
    across = _spread(-wide / 2 - ROOM_M, wide / 2 + ROOM_M)
    room = _spread(width_m / 2 + FACE_M, outer)
    fingers = np.array([(x, side * y) for x in across for y in room for side in (-1, 1)])
    palm_x, palm_y = jaw.palm_m / 2 + ROOM_M
    palm = np.array([(x, y) for x in _spread(-palm_x, palm_x) for y in _spread(-palm_y, palm_y)])
    floors = np.r_[np.full(len(fingers), -BELOW_M / 2), np.full(len(palm), length - ROOM_M)]
    xy = np.r_[fingers, palm] @ pose[:2, :2].T + pose[:2, 3]
    ends = np.c_[xy, pose[2, 3] + floors]
    starts = np.c_[xy, np.full(len(xy), pose[2, 3] + 1.0)]
    hits = pybullet.rayTestBatch(
        starts.tolist(), ends.tolist(), collisionFilterMask=OBJECT_GROUP, physicsClientId=world.client
    )
    return all(hit[0] < 0 or hit[0] == moved for hit in hits)


def _spread(low: float, high: float) -> NDArray[np.float64]:
    return np.linspace(low, high, 1 + max(1, int(np.ceil((high - low) / STEP_M))))

"""Grasps straight from above, proposed from the true surface of what lies in the bin.

A candidate closes the jaw on two sides of one object. It is judged as an antipodal grasp: both sides steep and at
right angles to the closing direction, near the object's centre of mass, and the fingers' way down free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pybullet
from numpy.typing import NDArray

from embodied_vision.errors import RunFailed
from embodied_vision.geometry import tool_down, yaw_of
from embodied_vision.types import FloatArray
from embodied_vision_sim.diverse import BIN_CENTRE_M, BIN_SIZE_M, WALL_M, DiverseBin
from embodied_vision_sim.parallel_jaw import ParallelJaw
from embodied_vision_sim.suction import OBJECT_GROUP

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

CELL_M = 0.003
MOST_RAYS = 16000
"""PyBullet takes so many at once."""
POINTS, YAWS = 150, 12
FLOOR_M, DEPTH_M = 0.008, 0.045
"""Least height of the fingertips, and how far they reach below the object's top where there is room."""
ROOM_M, STROKE_MARGIN_M, LEAST_WIDTH_M = 0.003, 0.008, 0.004
LEAST_DEPTH_M = 0.012
"""What the fingers must reach below the top of both sides."""
NEAR_M, NEAR_RAD = 0.01, 0.35
"""Standard deviations of a grasp beside another one, along each axis and about the vertical."""


@dataclass(frozen=True, eq=False)
class Surface:
    """What is seen from straight above, on a grid with rows along x and columns along y.

    Attributes:
        origin: (2,) centre of cell (0, 0), m.
        heights: (R, C), m; 0 is the table.
        bodies: (R, C) int body ids, −1 for none.
    """

    origin: NDArray[np.float64]
    heights: NDArray[np.float64]
    bodies: NDArray[np.int64]

    def cells(self, xy: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns (…) of the cells at points (…, 2), those outside moved to the border."""
        index = np.round((xy - self.origin) / CELL_M).astype(np.int64)
        rows, columns = self.heights.shape
        return np.clip(index[..., 0], 0, rows - 1), np.clip(index[..., 1], 0, columns - 1)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A grasp that geometry allows.

    Attributes:
        pose: tip pose (4, 4) in the base frame, looking down.
        body: object it is meant for.
        width_m: distance of the two sides.
        quality: higher is better; what is above 0 mostly holds.
    """

    pose: FloatArray
    body: int
    width_m: float
    quality: float


def scan(world: World) -> Surface:
    """Heights of bin and objects by vertical rays; the arm is not in the way."""
    half = np.array(BIN_SIZE_M) / 2 + 2 * WALL_M
    axes = [centre + np.arange(-h, h + CELL_M / 2, CELL_M) for centre, h in zip(BIN_CENTRE_M, half, strict=True)]
    x, y = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
    hits = []
    for start in range(0, len(x), MOST_RAYS):
        part = slice(start, start + MOST_RAYS)
        above, below = (np.c_[x[part], y[part], np.full(len(x[part]), z)].tolist() for z in (0.5, -0.1))
        hits += pybullet.rayTestBatch(
            above, below, collisionFilterMask=OBJECT_GROUP, physicsClientId=world.client, numThreads=1
        )
    shape = (len(axes[0]), len(axes[1]))
    return Surface(
        np.array([axes[0][0], axes[1][0]]),
        np.array([hit[3][2] for hit in hits]).reshape(shape),
        np.array([hit[0] for hit in hits]).reshape(shape),
    )


def candidates(world: World, rng: np.random.Generator, points: int = POINTS) -> list[Candidate]:
    """Grasps at random points of the objects in the bin and evenly spread angles, the best first."""
    task, jaw = world.task, world.tool
    if not (isinstance(task, DiverseBin) and isinstance(jaw, ParallelJaw)):
        raise TypeError("grasp candidates need a bin of diverse objects and a jaw")
    surface = scan(world)
    on_object = np.argwhere(np.isin(surface.bodies, list(task.numbers)))
    if not len(on_object):
        return []
    chosen = on_object[rng.integers(len(on_object), size=points)]
    centres = np.repeat(surface.origin + chosen * CELL_M, YAWS, axis=0)
    yaws = np.tile(np.arange(YAWS) * np.pi / YAWS, points) + np.repeat(rng.uniform(0, np.pi / YAWS, points), YAWS)
    bodies = np.repeat(surface.bodies[chosen[:, 0], chosen[:, 1]], YAWS)
    found = _judge(world, jaw, surface, centres, yaws, bodies)
    return sorted(found, key=lambda candidate: -candidate.quality)


def _judge(
    world: World,
    jaw: ParallelJaw,
    surface: Surface,
    centres: NDArray[np.float64],
    yaws: NDArray[np.float64],
    bodies: NDArray[np.int64],
) -> list[Candidate]:
    """The candidates among tip positions (N, 2), yaws (N,) and objects (N,)."""
    wide, thick, length = jaw.finger_m
    reach = jaw.stroke_m / 2 + thick + ROOM_M
    closing = np.stack([np.sin(yaws), -np.cos(yaws)], axis=1)  # the tip's y axis
    across = np.stack([np.cos(yaws), np.sin(yaws)], axis=1)
    u = np.arange(-reach - wide, reach + wide, CELL_M)
    v = np.linspace(-wide / 2 - ROOM_M, wide / 2 + ROOM_M, 9, dtype=np.float64)
    xy = centres[:, None, None] + u[:, None, None] * closing[:, None, None] + v[:, None] * across[:, None, None]
    cells = surface.cells(xy)
    heights, owners = surface.heights[cells], surface.bodies[cells]
    mine = owners == bodies[:, None, None]
    middle = len(u) // 2
    top = np.where(mine[:, middle - 3 : middle + 4], heights[:, middle - 3 : middle + 4], 0).max((1, 2))
    z = np.maximum(FLOOR_M, top - DEPTH_M)
    solid = mine & (heights > z[:, None, None] + 0.002)
    pads = np.abs(v) <= wide / 2
    # First gap on either side of the middle, in each line across the fingers' width.
    gap_after = _first_gap(solid[:, middle:])
    gap_before = _first_gap(solid[:, middle::-1])
    right, left = gap_after * CELL_M, -gap_before * CELL_M  # (N, lines)
    reached = solid[:, middle][:, pads].any(1)
    right_most = np.where(solid[:, middle], right, 0.0)[:, pads].max(1)
    left_most = np.where(solid[:, middle], left, 0.0)[:, pads].min(1)
    width, shift = right_most - left_most, (right_most + left_most) / 2
    free_below = heights < z[:, None, None] - 0.002
    position = u[None, :] - shift[:, None]
    half = width[:, None] / 2 + CELL_M
    swept = (np.abs(position) > half) & (np.abs(position) < reach)
    clear = (free_below | ~swept[:, :, None]).all((1, 2))
    low_enough = heights.max((1, 2)) < z + length - ROOM_M
    lines = solid[:, middle] & pads
    slope = np.maximum(_slope(v, right, lines), _slope(v, left, lines))
    inside = (np.abs(position) < width[:, None] / 2) & (np.abs(position) > width[:, None] / 2 - 2.5 * CELL_M)
    sides = []
    for side in (position > 0, position < 0):
        part = np.where((inside & side)[:, :, None] & mine & pads, heights, -np.inf)
        sides.append(part.max((1, 2)))
    depth = np.minimum(*sides) - z
    lever = np.hypot(
        *(centres + shift[:, None] * closing - np.array([world.pose(int(body))[:2, 3] for body in bodies])).T
    )
    possible = reached & clear & low_enough & (width <= jaw.stroke_m - STROKE_MARGIN_M) & (width >= LEAST_WIDTH_M)
    possible &= (np.abs(shift) < wide) & (depth > LEAST_DEPTH_M)
    quality = 1.0 - 2.0 * slope - 6.0 * lever + 8.0 * np.minimum(depth, 0.03) + 0.2 * lines.sum(1) / pads.sum()
    tips = centres + shift[:, None] * closing
    return [
        Candidate(
            tool_down(float(tips[i, 0]), float(tips[i, 1]), float(z[i]), float(yaws[i])),
            int(bodies[i]),
            float(width[i]),
            float(quality[i]),
        )
        for i in np.flatnonzero(possible)
    ]


def _first_gap(solid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps (N, L) from the start of axis 1 of (N, S, L) to the first place that is not solid."""
    gaps = np.argmin(solid, axis=1)
    return np.where(solid.all(axis=1), solid.shape[1], gaps)


def _slope(v: FloatArray, edge: FloatArray, lines: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Steepness (N,) of the straight line through an edge (N, L) over v (L,), over the lines (N, L) that meet it."""
    weight = lines / np.maximum(lines.sum(1, keepdims=True), 1)
    dv = v - (weight * v).sum(1, keepdims=True)
    de = edge - (weight * edge).sum(1, keepdims=True)
    return np.asarray(np.abs((weight * dv * de).sum(1)) / np.maximum((weight * dv * dv).sum(1), 1e-9))


def random_grasps(world: World, rng: np.random.Generator, count: int) -> list[Candidate]:
    """Grasps at random points of the objects, at random angles and depths, good or bad; the quality is 0."""
    task = world.task
    if not isinstance(task, DiverseBin):
        raise TypeError("random grasps need a bin of diverse objects")
    surface = scan(world)
    on_object = np.argwhere(np.isin(surface.bodies, list(task.numbers)))
    found = []
    for row, column in on_object[rng.integers(len(on_object), size=count if len(on_object) else 0)]:
        x, y = surface.origin + (row, column) * np.full(2, CELL_M)
        z = max(FLOOR_M, float(surface.heights[row, column]) - rng.uniform(LEAST_DEPTH_M, DEPTH_M))
        pose = tool_down(float(x), float(y), z, float(rng.uniform(-np.pi / 2, np.pi / 2)))
        found.append(Candidate(pose, int(surface.bodies[row, column]), 0.0, 0.0))
    return found


def near(grasp: Candidate, rng: np.random.Generator) -> Candidate:
    """A grasp beside another one, turned, shifted and raised or lowered a little: good or bad; the quality is 0."""
    pose = grasp.pose
    x, y = pose[:2, 3] + rng.normal(0.0, NEAR_M, 2)
    z = max(FLOOR_M, float(pose[2, 3] + rng.normal(0.0, NEAR_M)))
    yaw = yaw_of(pose) + float(rng.normal(0.0, NEAR_RAD))
    return Candidate(tool_down(float(x), float(y), z, yaw), grasp.body, 0.0, 0.0)


def best_grasp(world: World, rng: np.random.Generator) -> FloatArray:
    """Tip pose (4, 4) of the candidate of the highest quality that the arm can take.

    Raises:
        RunFailed: no object can be gripped from above.
    """
    found = candidates(world, rng)
    if not found:
        raise RunFailed("no object in the bin can be gripped from above: all are too wide, too flat or too close")
    return found[0].pose

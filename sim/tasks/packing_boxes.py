"""Packing boxes: a container's volume, cut into boxes, back into the container (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.base import Task, jitter
from embodied_vision_sim.tasks.footprints import Footprint, FootprintPlacer
from embodied_vision_sim.tasks.grips import widest
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.tasks.poses import least_turned, turn_between, upright
from embodied_vision_sim.tasks.reached import grid_points, inside

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

LEAST_M, MOST_M, HEIGHT_M = 0.05, 0.30, 0.05
"""Inner edges of the container, and its height, which is that of the boxes."""
PIECE_M, GAP_M = 0.05, 0.01
"""Least edge of a piece that the container is cut into; the boxes leave this much free all around."""
WALL_M, FLOOR_M = 0.004, 0.002
RELEASE_M = 0.004
LAYOUTS, LAYOUT_ATTEMPTS = 50, 200
"""Arrangements tried for the boxes of one container, and places for one box in each."""
CONTAINER_RGB = (0.40, 0.27, 0.18)
BOX_RGB: tuple[tuple[float, float, float], ...] = (
    (0.22, 0.40, 0.82),
    (0.88, 0.16, 0.18),
    (0.25, 0.65, 0.28),
    (0.97, 0.52, 0.13),
    (0.95, 0.82, 0.20),
    (0.58, 0.32, 0.72),
    (0.95, 0.55, 0.68),
    (0.30, 0.72, 0.76),
    (0.90, 0.90, 0.91),
)


def split(low: FloatArray, high: FloatArray, rng: np.random.Generator) -> list[tuple[FloatArray, FloatArray]]:
    """Cut a rectangle at random until no edge is longer than two pieces; bounds (2,) of the parts, m, a gap apart."""
    edges = high - low
    axes = np.flatnonzero(edges > 2 * PIECE_M)
    if not len(axes):
        return [(low, high)]
    axis = int(rng.choice(axes))
    cut = float(rng.uniform(low[axis] + PIECE_M, high[axis] - PIECE_M))
    below, above = high.copy(), low.copy()
    below[axis], above[axis] = cut - GAP_M / 2, cut + GAP_M / 2
    return [*split(low, below, rng), *split(above, high, rng)]


def _narrowed(size: tuple[float, float], widest: float) -> tuple[float, float]:
    """A size with its shorter edge no longer than what can be gripped, m."""
    length, width = size
    return (length, min(width, widest)) if width <= length else (min(length, widest), width)


def container_boxes(inner: tuple[float, float]) -> tuple[Box, ...]:
    """Floor and four walls around an inner rectangle, standing at z = 0."""
    length, width = inner
    x, y, z = (length + WALL_M) / 2, (width + WALL_M) / 2, HEIGHT_M / 2
    return (
        Box((length, width, FLOOR_M), (0.0, 0.0, FLOOR_M / 2)),
        *(Box((length + 2 * WALL_M, WALL_M, HEIGHT_M), (0.0, side * y, z)) for side in (-1, 1)),
        *(Box((WALL_M, width, HEIGHT_M), (side * x, 0.0, z)) for side in (-1, 1)),
    )


class PackingBoxes(Task):
    """A container of 5–30 × 5–30 × 5 cm, glued to the table, and boxes of many colors that fill it with 1 cm to spare.

    The boxes are the pieces of the container's volume, cut at random with edges of at least 5 cm, less the room
    between them; for a jaw the shorter edge is no longer than its stroke. The score is the share of a grid of 2 cm
    of points on all boxes that lie over the container.
    """

    name: ClassVar[str] = "packing-boxes"
    max_steps: ClassVar[int] = 20
    tools: ClassVar[tuple[str, ...]] = ("suction", "parallel_jaw")

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Container and boxes apart from each other, all within reach."""
        length, width = (float(edge) for edge in rng.uniform(LEAST_M, MOST_M, 2))
        half = np.array([length, width]) / 2 - GAP_M
        pieces = split(-half, half, rng)
        pieces.sort(key=lambda piece: -float(np.prod(piece[1] - piece[0])))
        sizes = [_narrowed((float(high[0] - low[0]), float(high[1] - low[1])), widest(world)) for low, high in pieces]
        container, spots = self._arrange(world, (length + 2 * WALL_M, width + 2 * WALL_M), sizes, rng)
        self._half = ((length + WALL_M) / 2, (width + WALL_M) / 2)
        self._container = world.add_boxes(
            "container",
            container_boxes((length, width)),
            (container.x, container.y, 0.0),
            container.yaw,
            jitter(CONTAINER_RGB, rng),
            fixed=True,
        )
        self._goals: dict[int, FloatArray] = {}
        self._points: dict[int, FloatArray] = {}
        for number, (spot, (low, high)) in enumerate(zip(spots, pieces, strict=True)):
            size = (*spot.size, HEIGHT_M)
            color = jitter(BOX_RGB[int(rng.integers(len(BOX_RGB)))], rng)
            body = world.add_boxes(f"box {number}", [Box(size)], (spot.x, spot.y, HEIGHT_M / 2), spot.yaw, color)
            x, y = container.to_base((low + high)[None] / 2)[0]
            self._goals[body] = upright((x, y, FLOOR_M + HEIGHT_M / 2), container.yaw)
            self._points[body] = grid_points(size)

    @staticmethod
    def _arrange(
        world: World, outer: tuple[float, float], sizes: list[tuple[float, float]], rng: np.random.Generator
    ) -> tuple[Footprint, list[Footprint]]:
        """Places for a container and its boxes, largest first; a container far off may leave too little room."""
        for _ in range(LAYOUTS):
            placer = FootprintPlacer(world, rng)
            container = placer.require("container", outer)
            spots = [spot for size in sizes if (spot := placer.place(size, attempts=LAYOUT_ATTEMPTS)) is not None]
            if len(spots) == len(sizes):
                return container, spots
        raise RunFailed(
            f"no room for {len(sizes)} boxes beside their container of {outer} m in {world.workspace} "
            f"after {LAYOUTS} attempts; enlarge it"
        )

    def _inside(self, world: World, body: int) -> int:
        """How many points of a box lie over the container."""
        zone, ceiling = world.pose(self._container), world.workspace.z[1]
        return inside(self._points[body], world.pose(body), zone, self._half, ceiling)

    def score(self, world: World) -> float:
        """Share of all boxes' points that lie over the container."""
        held = world.holding
        points = sum(self._inside(world, body) for body in self._points if world.object_names[body] != held)
        return points / sum(len(points) for points in self._points.values())

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Take the box that is farthest from its place in the container there."""
        away = {
            body: float(np.linalg.norm(world.pose(body)[:2, 3] - goal[:2, 3]))
            for body, goal in self._goals.items()
            if self._inside(world, body) < len(self._points[body])
        }
        if not away:
            raise RunFailed("every box lies in the container; reset the scene")
        body = max(away, key=lambda each: away[each])
        pose, goal = world.pose(body), self._goals[body]
        return carry(world, body, least_turned(goal, pose, turn_between(pose, goal, np.pi)), RELEASE_M, rng)

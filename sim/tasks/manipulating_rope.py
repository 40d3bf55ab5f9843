"""Manipulating rope: a chain of beads closes the open side of a square (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import RunFailed
from embodied_vision.geometry import tool_down
from embodied_vision.types import FloatArray, PickPlace, Primitive
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.base import PAINT_M, PAINT_TOP_M, Task, jitter
from embodied_vision_sim.tasks.oracle import visible_point

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

BEADS = 20
RADIUS_M = 0.005
BEAD_KG = 0.004
LINK_M = 2 * RADIUS_M * float(np.sqrt(2))
"""Distance between the centres of neighbouring beads."""
SIDE_M = BEADS * LINK_M
LINE_M = 0.008
RELEASE_M = LINK_M
"""A bead is let go this far above the table, so that a link that hangs from it is not pressed down."""
TOLERANCE_M = 0.02
MARGIN_M = 0.03
"""The rope starts this far from the open side, and within reach by as much."""
BEND_RAD = 0.65
GAP_M = 2.6 * RADIUS_M
"""Least distance of beads that are no neighbours, centre to centre."""
ATTEMPTS = 20_000
LINE_RGB, ROPE_RGB, END_RGB = (0.25, 0.48, 0.36), (0.82, 0.28, 0.22), (0.93, 0.90, 0.82)


class ManipulatingRope(Task):
    """A rope of 20 beads of 1 cm, linked 1.4 cm apart, and three sides of a square of 28 cm drawn on the table.

    Each bead has its place on the open side, in the order of the chain from either end. The score is the share of
    beads within 2 cm of their places, in the better of the two orders.
    """

    name: ClassVar[str] = "manipulating-rope"
    max_steps: ClassVar[int] = 20
    tools: ClassVar[tuple[str, ...]] = ("suction",)
    primitive: ClassVar[Primitive] = "drag"

    def build(self, world: World, rng: np.random.Generator) -> None:
        """A square whose open side lies within reach, and a rope that winds anywhere beside that side."""
        centre, yaw = self._place_square(world, rng)
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        half, long = SIDE_M / 2, SIDE_M + LINE_M
        sides = (
            Box((LINE_M, long, PAINT_M), (half, 0.0, 0.0)),
            Box((LINE_M, long, PAINT_M), (-half, 0.0, 0.0)),
            Box((SIDE_M - LINE_M, LINE_M, PAINT_M), (0.0, -half, 0.0)),
        )
        world.add_boxes(
            "square", sides, (*centre, PAINT_TOP_M - PAINT_M / 2), yaw, jitter(LINE_RGB, rng), fixed=True, collide=False
        )
        along = (np.arange(BEADS) + 0.5) * LINK_M - half
        self._places: FloatArray = np.stack([along, np.full(BEADS, half)], axis=-1) @ turn.T + centre
        middle = self._places.mean(axis=0).tolist()
        world.keep_free(middle[0], middle[1], half + TOLERANCE_M)
        points = self._wind(world, rng)
        rope, end = jitter(ROPE_RGB, rng), jitter(END_RGB, rng)
        steps = np.diff(points, axis=0, append=2 * points[-1:] - points[-2:-1])
        self._beads = [
            world.add_ball(
                f"bead {i}",
                RADIUS_M,
                BEAD_KG,
                (*points[i].tolist(), RADIUS_M),
                float(np.arctan2(steps[i, 1], steps[i, 0])),
                end if i in (0, BEADS - 1) else rope,
            )
            for i in range(BEADS)
        ]
        for parent, child in zip(self._beads[:-1], self._beads[1:], strict=True):
            world.link(parent, child, (LINK_M, 0.0, 0.0))

    def _place_square(self, world: World, rng: np.random.Generator) -> tuple[FloatArray, float]:
        """Centre and yaw: the square within the workspace, its open side at +y of its frame within reach."""
        corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * SIDE_M / 2
        for _ in range(ATTEMPTS):
            centre = np.array([rng.uniform(*world.workspace.x), rng.uniform(*world.workspace.y)])
            yaw = float(rng.uniform(-np.pi, np.pi))
            turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
            points = corners @ turn.T + centre
            side = np.linspace(points[0], points[1], BEADS)
            if _inside(world, points, LINE_M) and _reachable(world, side, MARGIN_M):
                return centre, yaw
        raise RunFailed(f"no free place for the square in {world.workspace}; enlarge it")

    def _wind(self, world: World, rng: np.random.Generator) -> FloatArray:
        """Centres (20, 2) of the beads along a random smooth curve that does not touch itself."""
        for _ in range(ATTEMPTS):
            start = np.array([rng.uniform(*world.workspace.x), rng.uniform(*world.workspace.y)])
            heading = rng.uniform(-np.pi, np.pi) + np.cumsum(_bends(rng))
            steps = LINK_M * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
            points = start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
            if not (_inside(world, points, MARGIN_M) and _reachable(world, points, MARGIN_M)):
                continue
            apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
            strangers = np.triu(np.ones((BEADS, BEADS), bool), 2)
            away = np.linalg.norm(points[:, None] - self._places[None], axis=-1)
            if apart[strangers].min() > GAP_M and away.min() > MARGIN_M:
                return points
        raise RunFailed(f"no free place for the rope in {world.workspace}; enlarge it")

    def _errors(self, world: World) -> FloatArray:
        """Distance in m of every bead from its place in the chain's order and in the reverse one, (2, 20)."""
        beads = np.array([world.pose(body)[:2, 3] for body in self._beads])
        return np.stack([np.linalg.norm(beads - places, axis=1) for places in (self._places, self._places[::-1])])

    def score(self, world: World) -> float:
        """Share of beads in place, in the better order; a bead that is held is not."""
        placed = self._errors(world) < TOLERANCE_M
        free = [world.object_names[body] != world.holding for body in self._beads]
        return float((placed & free).mean(axis=1).max())

    def _first_seen(self, world: World, order: NDArray[np.int64]) -> int:
        """The first bead in an order that nothing lies upon; the first of all where there is none."""
        for i in order.tolist():
            x, y = world.pose(self._beads[i])[:2, 3].tolist()
            if world.surface(x, y)[0] == self._beads[i]:
                return int(i)
        return int(order[0])

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Drag the uncovered bead that is farthest from its place to it, in the order that is nearer."""
        if self.score(world) >= 1:
            raise RunFailed("the rope already closes the square; reset the scene")
        errors = self._errors(world)
        order = int(np.argmin(errors.mean(axis=1)))
        i = self._first_seen(world, np.argsort(-errors[order]))
        x, y, z = visible_point(world, self._beads[i], rng)
        goal = (self._places if order == 0 else self._places[::-1])[i]
        now = world.pose(self._beads[i])[:2, 3]
        return PickPlace(
            pick=tool_down(x, y, z),
            place=tool_down(float(goal[0] + x - now[0]), float(goal[1] + y - now[1]), z + RELEASE_M),
            primitive=self.primitive,
            stamp_ns=world.time_ns,
        )


def _bends(rng: np.random.Generator) -> FloatArray:
    """Turns in rad between neighbouring links, (19,): a curvature that wanders."""
    bends = np.zeros(BEADS - 1)
    bend = rng.uniform(-BEND_RAD, BEND_RAD)
    for i in range(BEADS - 1):
        bend = float(np.clip(bend + rng.normal(0.0, BEND_RAD / 2), -BEND_RAD, BEND_RAD))
        bends[i] = bend
    return bends


def _inside(world: World, points: FloatArray, margin: float) -> bool:
    (x0, x1), (y0, y1) = world.workspace.x, world.workspace.y
    return bool(((points > (x0 + margin, y0 + margin)) & (points < (x1 - margin, y1 - margin))).all())


def _reachable(world: World, points: FloatArray, margin: float) -> bool:
    distances = np.linalg.norm(points, axis=1)
    return bool(distances.min() > world.reach[0] + margin and distances.max() < world.reach[1] - margin)

"""Stack block pyramid: six blocks in rows of three, two and one on a base (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from embodied_vision.errors import RunFailed
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.base import Task, jitter
from embodied_vision_sim.tasks.footprints import FootprintPlacer
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.tasks.poses import least_turned, levelled, turn_between, upright
from embodied_vision_sim.tasks.reached import reached

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

BLOCK_M = 0.04
FIELD_M, BASE_HEIGHT_M = 0.05, 0.005
"""Edge of the three square fields of the base, which are as far apart as the blocks of a row."""
RELEASE_M = 0.004
WORTH = (1 / 2, 1 / 3, 1 / 6)
"""Of the rows from below; the blocks of a row share it."""
BASE_RGB = ((0.92, 0.72, 0.52), (0.55, 0.38, 0.26), (0.26, 0.18, 0.13))
BLOCK_RGB: tuple[dict[str, tuple[float, float, float]], ...] = (
    {"purple": (0.58, 0.32, 0.72), "blue": (0.22, 0.40, 0.82), "green": (0.25, 0.65, 0.28)},
    {"yellow": (0.95, 0.82, 0.20), "orange": (0.97, 0.52, 0.13)},
    {"red": (0.88, 0.16, 0.18)},
)


def places(row: int) -> FloatArray:
    """Centres (N, 3) of the blocks of row 0, 1 or 2 in the frame of the base's foot, m."""
    count = len(BLOCK_RGB[row])
    y = (np.arange(count) - (count - 1) / 2) * FIELD_M
    z = BASE_HEIGHT_M + (row + 0.5) * BLOCK_M
    return np.stack([np.zeros(count), y, np.full(count, z)], axis=1)


class StackBlockPyramid(Task):
    """Six blocks of 4 cm and a base of 5×15 cm, glued to the table, all at random poses.

    Purple, blue and green make the lowest row, yellow and orange the next, red the top; within a row the order is
    free. A block is in its place within 1 cm and 15°, whichever of its sides is up. The score is 1/2, 1/3 and 1/6
    for the rows, by the share of blocks in place; a row counts when the one below is complete.
    """

    name: ClassVar[str] = "stack-block-pyramid"
    max_steps: ClassVar[int] = 12
    tools: ClassVar[tuple[str, ...]] = ("suction", "parallel_jaw")

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Base and blocks apart from each other, all within reach."""
        placer = FootprintPlacer(world, rng)
        base = placer.require("base", (FIELD_M, 3 * FIELD_M))
        self._base = upright((base.x, base.y, 0.0), base.yaw)
        fields = base.to_base(np.array([[0.0, (i - 1) * FIELD_M] for i in range(3)]))
        for name, rgb, xy in zip(("light", "brown", "dark"), BASE_RGB, fields, strict=True):
            box = Box((FIELD_M, FIELD_M, BASE_HEIGHT_M))
            xyz = (*xy.tolist(), BASE_HEIGHT_M / 2)
            world.add_boxes(f"base, {name} field", [box], xyz, base.yaw, jitter(rgb, rng), fixed=True)
        self._rows: list[list[int]] = []
        for colors in BLOCK_RGB:
            row = []
            for color, rgb in colors.items():
                spot = placer.require(f"{color} block", (BLOCK_M, BLOCK_M))
                xyz = (spot.x, spot.y, BLOCK_M / 2)
                row.append(world.add_boxes(f"{color} block", [Box((BLOCK_M,) * 3)], xyz, spot.yaw, jitter(rgb, rng)))
            self._rows.append(row)

    def goals(self, row: int) -> list[FloatArray]:
        """Poses (4, 4) of the places of a row, 0 for the lowest."""
        return [self._base @ upright(place) for place in places(row)]

    def _placed(self, world: World, row: int) -> dict[int, int]:
        """Blocks of a row that are in place, with the number of their place."""
        inside = np.array([[self._reached(world, body, goal) for goal in self.goals(row)] for body in self._rows[row]])
        blocks, spots = linear_sum_assignment(~inside)
        return {self._rows[row][b]: int(s) for b, s in zip(blocks, spots, strict=True) if inside[b, s]}

    @staticmethod
    def _reached(world: World, body: int, goal: FloatArray) -> bool:
        return reached(levelled(world.pose(body)), goal, symmetry=np.pi / 2)

    def score(self, world: World) -> float:
        """Worth of the rows from below up to the first that is incomplete, which counts in part."""
        if world.holding is not None:
            return 0.0
        total = 0.0
        for row, worth in enumerate(WORTH):
            share = len(self._placed(world, row)) / len(self._rows[row])
            total += worth * share
            if share < 1:
                return total
        return 1.0

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """In the lowest incomplete row, take the block that is farthest from a free place to the nearest one."""
        for row, bodies in enumerate(self._rows):
            placed = self._placed(world, row)
            if len(placed) == len(bodies):
                continue
            free = [goal for i, goal in enumerate(self.goals(row)) if i not in placed.values()]
            nearest = {body: self._nearest(world, body, free) for body in bodies if body not in placed}
            body = max(nearest, key=lambda each: nearest[each][0])
            pose, goal = world.pose(body), nearest[body][1]
            turn = turn_between(levelled(pose), goal, np.pi / 2)
            return carry(world, body, least_turned(goal, pose, turn), RELEASE_M, rng)
        raise RunFailed("the pyramid is complete; reset the scene")

    @staticmethod
    def _nearest(world: World, body: int, goals: list[FloatArray]) -> tuple[float, FloatArray]:
        position = world.pose(body)[:3, 3]
        distances = [float(np.linalg.norm(goal[:3, 3] - position)) for goal in goals]
        return min(distances), goals[int(np.argmin(distances))]

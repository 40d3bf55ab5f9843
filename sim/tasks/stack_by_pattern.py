"""Stack by pattern: three blocks that differ in their pattern alone, onto each other in a fixed order."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.base import Task, jitter
from embodied_vision_sim.tasks.footprints import FootprintPlacer
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.tasks.patterns import EDGE_M, HEIGHT_M, add_block, mean_color
from embodied_vision_sim.tasks.poses import least_turned, turn_between, upright
from embodied_vision_sim.tasks.reached import reached

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

ORDER = ("striped", "dotted", "plain")
"""From below."""
BASE_M, BASE_HEIGHT_M = 0.075, 0.005
RELEASE_M = 0.004
BASE_RGB = (0.30, 0.55, 0.50)


class StackByPattern(Task):
    """A striped, a dotted and a plain block of 6 × 6 × 3 cm and one mean color, and a base of 7.5 cm.

    The base is glued to the table. The striped block belongs on it, the dotted one on that and the plain one on top.
    The score is the share of blocks that are in place within 1 cm and 15°, modulo a quarter turn, from below up to the
    first that is not.
    """

    name: ClassVar[str] = "stack-by-pattern"
    max_steps: ClassVar[int] = 4

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Base and blocks apart from each other, all within reach, any yaw."""
        placer = FootprintPlacer(world, rng)
        base = placer.require("base", (BASE_M, BASE_M))
        self._base = upright((base.x, base.y, BASE_HEIGHT_M), base.yaw)
        box, xyz = Box((BASE_M, BASE_M, BASE_HEIGHT_M)), (base.x, base.y, BASE_HEIGHT_M / 2)
        world.add_boxes("base", [box], xyz, base.yaw, jitter(BASE_RGB, rng), fixed=True)
        rgba = mean_color(rng)
        self._blocks: list[int] = []
        for pattern in ORDER:
            spot = placer.require(f"{pattern} block", (EDGE_M, EDGE_M))
            self._blocks.append(add_block(world, f"{pattern} block", pattern, (spot.x, spot.y), 0.0, spot.yaw, rgba))

    def goal(self, row: int) -> FloatArray:
        """Pose (4, 4) of the block of a row, 0 for the lowest."""
        return self._base @ upright((0.0, 0.0, (row + 0.5) * HEIGHT_M))

    def _placed(self, world: World) -> int:
        """How many blocks are in place, from below up to the first that is not."""
        for row, body in enumerate(self._blocks):
            if not reached(world.pose(body), self.goal(row), symmetry=np.pi / 2):
                return row
        return len(self._blocks)

    def score(self, world: World) -> float:
        """Share of the blocks in place, from below up to the first that is not."""
        return 0.0 if world.holding is not None else self._placed(world) / len(self._blocks)

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Take the lowest block that is not in place there."""
        row = self._placed(world)
        if row == len(self._blocks):
            raise RunFailed("the stack is complete; reset the scene")
        body, goal = self._blocks[row], self.goal(row)
        pose = world.pose(body)
        return carry(world, body, least_turned(goal, pose, turn_between(pose, goal, np.pi / 2)), RELEASE_M, rng)

"""Sort striped: the striped ones among blocks that differ in their pattern alone, into a tray."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.types import PickPlace
from embodied_vision_sim.tasks.base import Task
from embodied_vision_sim.tasks.footprints import FootprintPlacer
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.tasks.patterns import EDGE_M, add_block, mean_color
from embodied_vision_sim.tasks.poses import least_turned, turn_between
from embodied_vision_sim.tasks.tray import OUTER_M, Tray, sorted_share

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

WANTED = "striped"
BLOCKS = (WANTED, WANTED, "plain", "plain", "dotted", "dotted")
RELEASE_M = 0.02
"""Blocks are let go this far above the tray's floor: just over its rim."""


class SortStriped(Task):
    """Six blocks of 6 × 6 × 3 cm and one mean color, two of them striped, two plain and two dotted, and a tray.

    The score is the share of the striped blocks that lie in the tray, less one half for every other block in it.
    The tray is glued to the table; where in it a block lies and how it is turned does not matter.
    """

    name: ClassVar[str] = "sort-striped"
    max_steps: ClassVar[int] = 3

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Tray and blocks apart from each other, all within reach, any yaw."""
        placer = FootprintPlacer(world, rng)
        self._tray = Tray(world, placer.require("tray", OUTER_M), rng)
        rgba = mean_color(rng)
        self._wanted: list[int] = []
        self._others: list[int] = []
        for number, pattern in enumerate(BLOCKS):
            spot = placer.require(f"{pattern} block", (EDGE_M, EDGE_M))
            body = add_block(world, f"{pattern} block {number}", pattern, (spot.x, spot.y), 0.0, spot.yaw, rgba)
            (self._wanted if pattern == WANTED else self._others).append(body)

    def score(self, world: World) -> float:
        """Share of the striped blocks in the tray, less one half for every other block there."""
        return sorted_share(world, self._tray, self._wanted, self._others)

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Take a random striped block that is not in the tray to a free place of it."""
        todo = [body for body in self._wanted if not self._tray.holds(world, body)]
        goal = self._tray.free_place(world, self._wanted + self._others)
        if not todo or goal is None:
            raise RunFailed("every striped block lies in the tray, or the tray is full; reset the scene")
        body = todo[int(rng.integers(len(todo)))]
        pose = world.pose(body)
        return carry(world, body, least_turned(goal, pose, turn_between(pose, goal, np.pi / 2)), RELEASE_M, rng)

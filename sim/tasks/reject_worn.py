"""Reject worn: the parts of a row whose pattern is worn off, into a tray."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.types import PickPlace
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.base import Task, jitter
from embodied_vision_sim.tasks.footprints import FootprintPlacer
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.tasks.patterns import add_block, mean_color
from embodied_vision_sim.tasks.poses import least_turned, turn_between
from embodied_vision_sim.tasks.tray import OUTER_M, Tray, sorted_share

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

GOOD, WORN = "checked", "plain"
PARTS, MOST_WORN = 4, 2
RACK_PITCH_M, RACK_HEIGHT_M = 0.078, 0.005
RACK_M = (PARTS * RACK_PITCH_M, 0.08)
RELEASE_M = 0.02
"""Parts are let go this far above the tray's floor: just over its rim."""
RACK_RGB = (0.35, 0.36, 0.38)


class RejectWorn(Task):
    """Four parts of 6 × 6 × 3 cm and one mean color in a row on a rack: the good ones are checked, one or two plain.

    The score is the share of the plain parts that lie in the tray, less that of one for every good part in it. Rack and
    tray are glued to the table.
    """

    name: ClassVar[str] = "reject-worn"
    max_steps: ClassVar[int] = 3

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Rack and tray apart from each other, within reach, any yaw; which parts are worn is drawn."""
        placer = FootprintPlacer(world, rng)
        rack, tray = placer.require("rack", RACK_M), placer.require("tray", OUTER_M)
        self._tray = Tray(world, tray, rng)
        box = Box((*RACK_M, RACK_HEIGHT_M))
        xyz = (rack.x, rack.y, RACK_HEIGHT_M / 2)
        world.add_boxes("rack", [box], xyz, rack.yaw, jitter(RACK_RGB, rng), fixed=True)
        worn = set(rng.permutation(PARTS)[: int(rng.integers(1, MOST_WORN + 1))].tolist())
        rgba = mean_color(rng)
        spots = rack.to_base(np.array([[(i - (PARTS - 1) / 2) * RACK_PITCH_M, 0.0] for i in range(PARTS)]))
        self._worn: list[int] = []
        self._good: list[int] = []
        for number, (x, y) in enumerate(spots.tolist()):
            pattern, bodies = (WORN, self._worn) if number in worn else (GOOD, self._good)
            name = f"{pattern} part {number}"
            bodies.append(add_block(world, name, pattern, (x, y), RACK_HEIGHT_M, rack.yaw, rgba))

    def score(self, world: World) -> float:
        """Share of the worn parts in the tray, less that of one for every good part there."""
        return sorted_share(world, self._tray, self._worn, self._good)

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Take a random worn part that is not in the tray to a free place of it."""
        todo = [body for body in self._worn if not self._tray.holds(world, body)]
        goal = self._tray.free_place(world, self._worn + self._good)
        if not todo or goal is None:
            raise RunFailed("every worn part lies in the tray, or the tray is full; reset the scene")
        body = todo[int(rng.integers(len(todo)))]
        pose = world.pose(body)
        return carry(world, body, least_turned(goal, pose, turn_between(pose, goal, np.pi / 2)), RELEASE_M, rng)

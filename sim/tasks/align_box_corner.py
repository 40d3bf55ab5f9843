"""Align box corner: a box into the corner that a flat L marks (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.base import Task, jitter
from embodied_vision_sim.tasks.footprints import FootprintPlacer
from embodied_vision_sim.tasks.grips import widest
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.tasks.poses import turn_between, upright
from embodied_vision_sim.tasks.reached import reached

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

LEAST_M, MOST_M = (0.05, 0.05, 0.01), (0.15, 0.15, 0.06)
"""Edges of the box."""
ARM_M, LINE_M, THICKNESS_M = 0.06, 0.008, 0.001
"""Length, width and thickness of the marker's two arms."""
RELEASE_M = 0.003
BOX_RGB, MARKER_RGB = (0.78, 0.52, 0.30), (0.10, 0.70, 0.20)


def marker_boxes() -> tuple[Box, ...]:
    """The L outside of the quadrant x, y > 0, whose corner is the origin."""
    z = THICKNESS_M / 2
    return (
        Box((ARM_M, LINE_M, THICKNESS_M), (ARM_M / 2 - LINE_M, -LINE_M / 2, z)),
        Box((LINE_M, ARM_M - LINE_M, THICKNESS_M), (-LINE_M / 2, ARM_M / 2 - LINE_M / 2, z)),
    )


class AlignBoxCorner(Task):
    """A box of 5–15 × 5–15 × 1–6 cm and a green L on the table, which nothing can touch, both at random poses.

    For a jaw one edge is no longer than its stroke.

    Solved when the box lies within 1 cm and 15° of one of the four poses in which its sides touch both arms.
    """

    name: ClassVar[str] = "align-box-corner"
    max_steps: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = ("suction", "parallel_jaw")

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Marker and box apart from each other; the box is within reach now and in all four poses."""
        length, width, height = (float(edge) for edge in rng.uniform(LEAST_M, MOST_M))
        if min(length, width) > widest(world):
            width = float(rng.uniform(LEAST_M[1], widest(world)))
        self._size = (length, width, height)
        placer = FootprintPlacer(world, rng)
        edge = max(length, width) + LINE_M  # of a square around marker and box, whichever way that lies
        spot = placer.require("marker", (edge, edge))
        (corner,) = spot.to_base(np.array([[LINE_M - edge / 2, LINE_M - edge / 2]]))
        self._marker = world.add_boxes(
            "marker",
            marker_boxes(),
            (*corner.tolist(), 0.0),
            spot.yaw,
            jitter(MARKER_RGB, rng),
            fixed=True,
            collide=False,
        )
        spot = placer.require("box", (length, width))
        self._box = world.add_boxes(
            "box", [Box(self._size)], (spot.x, spot.y, height / 2), spot.yaw, jitter(BOX_RGB, rng)
        )

    def goals(self, world: World) -> list[FloatArray]:
        """The four poses (4, 4) in which a corner of the box lies in that of the marker."""
        length, width, height = self._size
        centres = [(length / 2, width / 2, height / 2), (width / 2, length / 2, height / 2)]
        marker = world.pose(self._marker)
        return [marker @ upright(centres[quarter % 2], quarter * np.pi / 2) for quarter in range(4)]

    def score(self, world: World) -> float:
        """1 when the box has reached one of the four poses, else 0."""
        if world.holding is not None:
            return 0.0
        pose = world.pose(self._box)
        return float(any(reached(pose, goal) for goal in self.goals(world)))

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Take the box anywhere on its visible top to the nearest of the four poses with the least turn."""
        if self.score(world) >= 1:
            raise RunFailed("the box already lies in the corner; reset the scene")
        pose = world.pose(self._box)

        def effort(goal: FloatArray) -> tuple[float, float]:
            return round(float(np.hypot(*(goal - pose)[:2, 3])), 4), abs(turn_between(pose, goal))

        return carry(world, self._box, min(self.goals(world), key=effort), RELEASE_M, rng)

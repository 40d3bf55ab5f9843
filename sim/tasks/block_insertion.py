"""Block insertion: an L-shaped block into an L-shaped fixture (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.geometry import yaw_of
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.shapes import Box, centred
from embodied_vision_sim.tasks.base import Placer, Task, jitter
from embodied_vision_sim.tasks.oracle import carry

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

EDGE_M, ARM_M, HEIGHT_M = 0.10, 0.05, 0.04
"""Outer edge, width of the two arms, and height of the block."""
CLEARANCE_M, WALL_M, WALL_HEIGHT_M = 0.004, 0.008, 0.02
RELEASE_M = 0.025
"""The block is let go this far above the table: a few mm over the walls, so that it drops in."""
TOLERANCE_M, TOLERANCE_RAD = 0.01, np.deg2rad(15)
BLOCK_RADIUS_M, FIXTURE_RADIUS_M = 0.072, 0.089
BLOCK_RGB, FIXTURE_RGB = (0.85, 0.30, 0.25), (0.25, 0.40, 0.60)

_BLOCK = (
    Box((EDGE_M, ARM_M, HEIGHT_M), (EDGE_M / 2, ARM_M / 2, 0.0)),
    Box((ARM_M, EDGE_M - ARM_M, HEIGHT_M), (ARM_M / 2, (EDGE_M + ARM_M) / 2, 0.0)),
)


def block_boxes() -> tuple[Box, ...]:
    """The L about its centroid."""
    return centred(_BLOCK)


def fixture_boxes() -> tuple[Box, ...]:
    """Walls around the L with clearance, in the frame of a block that sits inside, floor at z = −HEIGHT/2."""
    shift = np.asarray(block_boxes()[0].centre) - np.asarray(_BLOCK[0].centre)
    low, high, inner = -CLEARANCE_M, EDGE_M + CLEARANCE_M, ARM_M + CLEARANCE_M
    z = (WALL_HEIGHT_M - HEIGHT_M) / 2
    spans = [  # x and y bounds of each wall, corner of the L at the origin
        ((low - WALL_M, high + WALL_M), (low - WALL_M, low)),
        ((low - WALL_M, low), (low, high)),
        ((low - WALL_M, inner + WALL_M), (high, high + WALL_M)),
        ((high, high + WALL_M), (low, inner)),
        ((inner, high + WALL_M), (inner, inner + WALL_M)),
        ((inner, inner + WALL_M), (inner + WALL_M, high)),
    ]
    return tuple(
        Box(
            (x1 - x0, y1 - y0, WALL_HEIGHT_M),
            ((x0 + x1) / 2 + float(shift[0]), (y0 + y1) / 2 + float(shift[1]), z),
        )
        for (x0, x1), (y0, y1) in spans
    )


class BlockInsertion(Task):
    """An L-shaped block of 10×10×4 cm and a fixture with walls of 2 cm, both at random poses.

    Solved when the block lies within 1 cm and 15° of its place in the fixture.
    """

    name: ClassVar[str] = "block-insertion"
    max_steps: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = ("suction", "parallel_jaw")

    def build(self, world: World, rng: np.random.Generator) -> None:
        """A fixture and a block that do not overlap, both within reach, any yaw."""
        placer = Placer(world, rng)
        z = HEIGHT_M / 2
        xy, yaw = placer.require("fixture", FIXTURE_RADIUS_M), rng.uniform(-np.pi, np.pi)
        self._fixture = world.add_boxes("fixture", fixture_boxes(), (*xy, z), yaw, jitter(FIXTURE_RGB, rng), fixed=True)
        xy, yaw = placer.require("block", BLOCK_RADIUS_M), rng.uniform(-np.pi, np.pi)
        self._block = world.add_boxes("block", block_boxes(), (*xy, z), yaw, jitter(BLOCK_RGB, rng))

    def goal(self, world: World) -> FloatArray:
        """Pose (4, 4) at which the block sits in the fixture."""
        return world.pose(self._fixture)

    def score(self, world: World) -> float:
        """1 when the block has reached the fixture's pose, else 0."""
        if world.holding is not None:
            return 0.0
        block, goal = world.pose(self._block), self.goal(world)
        distance = float(np.hypot(*(block[:2, 3] - goal[:2, 3])))
        turn = (yaw_of(block) - yaw_of(goal) + np.pi) % (2 * np.pi) - np.pi
        return float(distance < TOLERANCE_M and abs(turn) < TOLERANCE_RAD)

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Take the block anywhere on its visible top and let it go over the fixture."""
        if self.score(world) >= 1:
            raise RunFailed("the block already sits in the fixture; reset the scene")
        return carry(world, self._block, self.goal(world), RELEASE_M, rng)

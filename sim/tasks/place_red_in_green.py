"""Place red in green: red blocks into green bowls among distractors (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from embodied_vision.errors import RunFailed
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.shapes import Box, bowl_boxes
from embodied_vision_sim.tasks.base import Placer, Task, jitter
from embodied_vision_sim.tasks.oracle import carry

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

BLOCK_M = 0.04
BOWL_RADIUS_M, BOWL_HEIGHT_M, BOWL_THICKNESS_M = 0.06, 0.035, 0.005
RELEASE_M = 0.04
"""Blocks are let go this far above their place in the bowl: just over its rim."""
TOLERANCE_M = 0.05
DISTRACTORS = 10
RED, GREEN = (0.90, 0.20, 0.20), (0.30, 0.65, 0.28)
OTHERS: dict[str, tuple[float, float, float]] = {
    "blue": (0.25, 0.42, 0.75),
    "yellow": (0.93, 0.79, 0.28),
    "purple": (0.55, 0.36, 0.68),
    "cyan": (0.35, 0.72, 0.78),
    "grey": (0.85, 0.85, 0.86),
}


class PlaceRedInGreen(Task):
    """1–3 green bowls of 12 cm, as many or fewer red blocks of 4 cm, 10 distractors of other colors.

    The score is the share of red blocks that lie within 5 cm of the centre of a green bowl of their own;
    yaw does not matter. Bowls are glued to the table.
    """

    name: ClassVar[str] = "place-red-in-green"
    max_steps: ClassVar[int] = 10
    tools: ClassVar[tuple[str, ...]] = ("suction", "parallel_jaw")

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Bowls and blocks of the task within reach, distractors anywhere in the workspace."""
        placer = Placer(world, rng)
        bowls = int(rng.integers(1, 4))
        blocks = int(rng.integers(1, bowls + 1))
        self._bowls = [
            self._bowl(world, f"green bowl {i}", placer.require("green bowl", BOWL_RADIUS_M), jitter(GREEN, rng))
            for i in range(bowls)
        ]
        radius = BLOCK_M / np.sqrt(2)
        self._blocks = [
            self._block(world, f"red block {i}", placer.require("red block", radius), jitter(RED, rng), rng)
            for i in range(blocks)
        ]
        names = list(OTHERS)
        for i in range(DISTRACTORS):
            color = names[int(rng.integers(len(names)))]
            rgba = jitter(OTHERS[color], rng)
            bowl = bool(rng.random() < 0.5)
            centre = placer.place(BOWL_RADIUS_M, reachable=False, attempts=100) if bowl else None
            if centre is not None:
                self._bowl(world, f"{color} bowl {i}", centre, rgba)
                continue
            centre = placer.place(radius, reachable=False)
            if centre is not None:
                self._block(world, f"{color} block {i}", centre, rgba, rng)

    @staticmethod
    def _bowl(world: World, name: str, xy: tuple[float, float], rgba: tuple[float, float, float, float]) -> int:
        boxes = bowl_boxes(BOWL_RADIUS_M, BOWL_HEIGHT_M, BOWL_THICKNESS_M)
        return world.add_boxes(name, boxes, (*xy, 0.0), 0.0, rgba, fixed=True)

    @staticmethod
    def _block(
        world: World,
        name: str,
        xy: tuple[float, float],
        rgba: tuple[float, float, float, float],
        rng: np.random.Generator,
    ) -> int:
        box = Box((BLOCK_M, BLOCK_M, BLOCK_M))
        return world.add_boxes(name, [box], (*xy, BLOCK_M / 2), rng.uniform(-np.pi, np.pi), rgba)

    def _assignment(self, world: World) -> dict[int, int]:
        """Largest matching of red blocks to green bowls within tolerance, each bowl once."""
        blocks = np.array([world.pose(body)[:2, 3] for body in self._blocks])
        bowls = np.array([world.pose(body)[:2, 3] for body in self._bowls])
        inside = np.linalg.norm(blocks[:, None] - bowls[None], axis=-1) < TOLERANCE_M
        rows, columns = linear_sum_assignment(~inside)
        return {self._blocks[r]: self._bowls[c] for r, c in zip(rows, columns, strict=True) if inside[r, c]}

    def score(self, world: World) -> float:
        """Share of red blocks in green bowls of their own."""
        if world.holding is not None and world.holding.startswith("red"):
            return 0.0
        return len(self._assignment(world)) / len(self._blocks)

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Take a random red block that is not in place to a random green bowl that is free."""
        placed = self._assignment(world)
        todo = [body for body in self._blocks if body not in placed]
        if not todo:
            raise RunFailed("every red block already lies in a green bowl; reset the scene")
        free = [body for body in self._bowls if body not in placed.values()]
        block, bowl = todo[int(rng.integers(len(todo)))], free[int(rng.integers(len(free)))]
        goal: FloatArray = world.pose(block)
        goal[:2, 3] = world.pose(bowl)[:2, 3]
        goal[2, 3] = BOWL_THICKNESS_M + BLOCK_M / 2
        return carry(world, block, goal, RELEASE_M, rng)

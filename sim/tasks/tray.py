"""A tray with two places for patterned blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embodied_vision.types import FloatArray
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.base import jitter
from embodied_vision_sim.tasks.footprints import Footprint
from embodied_vision_sim.tasks.patterns import EDGE_M, HEIGHT_M
from embodied_vision_sim.tasks.poses import upright

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

INNER_M, WALL_M, WALL_HEIGHT_M, FLOOR_M = (0.16, 0.08), 0.005, 0.02, 0.002
"""Inner edges of the tray, its walls' thickness and height, and its floor's thickness."""
OUTER_M = (INNER_M[0] + 2 * WALL_M, INNER_M[1] + 2 * WALL_M)
PITCH_M = 0.076
"""Distance of the two places."""
TRAY_RGB = (0.25, 0.40, 0.60)


def tray_boxes() -> tuple[Box, ...]:
    """Floor and four walls, standing at z = 0."""
    length, width = INNER_M
    x, y, z = (length + WALL_M) / 2, (width + WALL_M) / 2, WALL_HEIGHT_M / 2
    return (
        Box((length, width, FLOOR_M), (0.0, 0.0, FLOOR_M / 2)),
        *(Box((length + 2 * WALL_M, WALL_M, WALL_HEIGHT_M), (0.0, side * y, z)) for side in (-1, 1)),
        *(Box((WALL_M, width, WALL_HEIGHT_M), (side * x, 0.0, z)) for side in (-1, 1)),
    )


class Tray:
    """A tray that is glued to the table.

    Args:
        world: where it is put.
        spot: a rectangle of `OUTER_M` for it.
        rng: of its color.
    """

    def __init__(self, world: World, spot: Footprint, rng: np.random.Generator) -> None:
        self._pose = upright((spot.x, spot.y, 0.0), spot.yaw)
        rgba = jitter(TRAY_RGB, rng)
        world.add_boxes("tray", tray_boxes(), (spot.x, spot.y, 0.0), spot.yaw, rgba, fixed=True)

    def places(self) -> list[FloatArray]:
        """Poses (4, 4) of the blocks that fill it."""
        z = FLOOR_M + HEIGHT_M / 2
        return [self._pose @ upright((side * PITCH_M / 2, 0.0, z)) for side in (-1, 1)]

    def holds(self, world: World, body: int) -> bool:
        """Whether the middle of a block lies in it, and nothing holds the block up."""
        local = np.linalg.inv(self._pose) @ world.pose(body)[:, 3]
        inside = (np.abs(local[:2]) < np.array(INNER_M) / 2).all()
        return bool(inside and local[2] < 2 * HEIGHT_M and world.holding != world.object_names[body])

    def free_place(self, world: World, bodies: Sequence[int]) -> FloatArray | None:
        """The pose (4, 4) of the first place that none of the blocks lies near, None when there is none."""
        there = np.array([world.pose(body)[:2, 3] for body in bodies]).reshape(-1, 2)
        for goal in self.places():
            if not (np.linalg.norm(there - goal[:2, 3], axis=1) < EDGE_M / 2).any():
                return goal
        return None


def sorted_share(world: World, tray: Tray, wanted: Sequence[int], others: Sequence[int]) -> float:
    """Share of the wanted blocks that lie in the tray, less one of them for each other block there; at least 0."""
    right = sum(tray.holds(world, body) for body in wanted)
    wrong = sum(tray.holds(world, body) for body in others)
    return max(0.0, (right - wrong) / len(wanted))

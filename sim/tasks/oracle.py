"""Where an expert picks: anywhere on the visible top of the object, uniformly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.geometry import cell_to_xy, deproject, tool_down, xy_to_cell, yaw_of
from embodied_vision.types import FloatArray, PickPlace

if TYPE_CHECKING:
    from embodied_vision_sim.world import World


def visible_point(world: World, body: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """A random point (x, y, z) on top of `body`, uniform over the map cells in which the cameras see it.

    Raises:
        RunFailed: no camera sees its top.
    """
    seen = []
    for frame, ids in zip(*world.views(world.cameras), strict=True):
        points = deproject(frame.depth, frame.camera.K, frame.camera.T_base_camera)
        seen.append(points[ids == body][:, :2])
    cells = np.unique(np.floor(xy_to_cell(np.concatenate(seen), world.workspace) + 0.5).astype(int), axis=0)
    for cell in rng.permutation(cells):
        x, y = cell_to_xy(cell + rng.uniform(-0.5, 0.5, 2), world.workspace)
        top, z = world.surface(x, y)
        if top == body:
            return float(x), float(y), z
    raise RunFailed(f"no camera sees the top of {world.object_names[body]!r}; move what covers it")


def carry(world: World, body: int, goal: FloatArray, release_height: float, rng: np.random.Generator) -> PickPlace:
    """The action that takes `body` to the pose `goal` (4, 4), let go `release_height` above it.

    The cup is symmetric, so only the difference of the two yaws matters; it is shared by both poses,
    which keeps the wrist away from its limits.
    """
    x, y, z = visible_point(world, body, rng)
    now = world.pose(body)
    turn = (yaw_of(goal) - yaw_of(now) + np.pi) % (2 * np.pi) - np.pi
    cosine, sine = np.cos(turn), np.sin(turn)
    dx, dy = x - now[0, 3], y - now[1, 3]
    return PickPlace(
        pick=tool_down(x, y, z, -turn / 2),
        place=tool_down(
            goal[0, 3] + cosine * dx - sine * dy,
            goal[1, 3] + sine * dx + cosine * dy,
            z - now[2, 3] + goal[2, 3] + release_height,
            turn / 2,
        ),
        stamp_ns=world.time_ns,
    )

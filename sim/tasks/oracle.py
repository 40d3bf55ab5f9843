"""Where an expert picks: a cup anywhere on the visible top of the object, a jaw where its fingers have room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embodied_vision.control.motion import plan
from embodied_vision.errors import Refused, RunFailed
from embodied_vision.geometry import cell_to_xy, deproject, tool_down, xy_to_cell, yaw_of
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.parallel_jaw import ParallelJaw
from embodied_vision_sim.tasks.grips import Grip, grips, has_room

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

EDGE_M, GRAZE_M = 0.001, 0.0015
"""A ray within this distance of an edge may meet the side; it has then gone this far down, at least."""
HIGHER_M = (0.0, 0.012, 0.024)
"""By how much a jaw lets go higher than a cup, where its fingers have no room beside the place otherwise."""
LEVER_STEP_M = 0.01
"""Grips whose levers differ by less are as good as each other."""


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
        if top == body and not _grazes(world, body, x, y, z):
            return float(x), float(y), z
    raise RunFailed(f"no camera sees the top of {world.object_names[body]!r}; move what covers it")


def _grazes(world: World, body: int, x: float, y: float, z: float) -> bool:
    """Whether the ray down at (x, y) met a side of `body` at height z instead of its top: a hair away it is higher."""
    around = (world.surface(x + dx, y + dy) for dx, dy in ((EDGE_M, 0), (-EDGE_M, 0), (0, EDGE_M), (0, -EDGE_M)))
    return any(other == body and height > z + GRAZE_M for other, height in around)


def carry(world: World, body: int, goal: FloatArray, release_height: float, rng: np.random.Generator) -> PickPlace:
    """The action that takes `body` to the pose `goal` (4, 4), let go `release_height` above it.

    A cup is symmetric, so only the difference of the two yaws matters; it is shared by both poses, which keeps the
    wrist away from its limits. A jaw grips two opposite faces near the body's centre of mass.

    Raises:
        RunFailed: no camera sees the body's top, or no grip leaves a jaw room.
    """
    if isinstance(world.tool, ParallelJaw):
        return _carry_gripped(world, world.tool, body, goal, release_height, rng)
    x, y, z = visible_point(world, body, rng)
    now = world.pose(body)
    turn = (yaw_of(goal) - yaw_of(now) + np.pi) % (2 * np.pi) - np.pi
    return PickPlace(
        pick=tool_down(x, y, z, -turn / 2),
        place=_moved(tool_down(x, y, z, -turn / 2), now, goal, release_height),
        stamp_ns=world.time_ns,
    )


def _moved(tip: FloatArray, now: FloatArray, goal: FloatArray, release_height: float) -> FloatArray:
    """Tip pose (4, 4), looking down, that goes with a body from pose `now` to `release_height` above `goal`."""
    turn = yaw_of(goal) - yaw_of(now)
    cosine, sine = np.cos(turn), np.sin(turn)
    dx, dy = tip[:2, 3] - now[:2, 3]
    return tool_down(
        float(goal[0, 3] + cosine * dx - sine * dy),
        float(goal[1, 3] + sine * dx + cosine * dy),
        float(tip[2, 3] - now[2, 3] + goal[2, 3] + release_height),
        yaw_of(tip) + turn,
    )


def _carry_gripped(
    world: World,
    jaw: ParallelJaw,
    body: int,
    goal: FloatArray,
    release_height: float,
    rng: np.random.Generator,
) -> PickPlace:
    """`carry` for a jaw: of the grips with room at both ends of the way, a firm one with the shortest lever."""
    now, q = world.pose(body), world.joint_state()[0]
    possible = list(grips(world, body, jaw))
    order = sorted(rng.permutation(len(possible)), key=lambda i: _reluctance(possible[i]))
    blocked = unreachable = 0
    for higher, grip in ((higher, possible[i]) for higher in HIGHER_M for i in order):
        place = _moved(grip.pose, now, goal, release_height + higher)
        if not has_room(world, jaw, grip.pose, grip.width_m) or not has_room(world, jaw, place, grip.width_m, body):
            blocked += 1
            continue
        action = PickPlace(pick=grip.pose, place=place, stamp_ns=world.time_ns)
        try:
            plan(world.robot, q, action)
        except Refused:
            unreachable += 1
            continue
        return action
    raise RunFailed(
        f"the jaw finds no grip on {world.object_names[body]!r}: of {len(possible)} within its stroke, let "
        f"go at {len(HIGHER_M)} heights, {blocked} leave its fingers no room and {unreachable} are out of reach; "
        "move what stands around it or use suction"
    )


def _reluctance(grip: Grip) -> tuple[bool, int]:
    return not grip.firm, round(grip.lever_m / LEVER_STEP_M)

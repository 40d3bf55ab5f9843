"""Runs a planned motion on the simulated arm, counted in physics steps.

What the arm carries or may touch is simulated at 240 Hz. Above everything that stands on the table an arm without
a load can touch nothing: there it is moved along its trajectory without simulating it, after all objects have come
to rest, while simulated time goes on as usual.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.motion import Motion
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.trajectory import Trajectory
from embodied_vision_sim.world import STEP_HZ, World

TIP_MARGIN_M = 0.03
"""Free way under the tip: half of the broadest tool at the greatest tilt of a joint motion between two poses."""
LINK_RADIUS_M = 0.12
"""No part of the arm lies farther than this from the line through its joints."""


def execute(world: World, motion: Motion) -> None:
    """Follow every segment of the motion, work the gripper at its end, and dwell.

    Raises:
        NotSettled: an object does not come to rest after it was let go.
    """
    for segment in motion.segments:
        _follow(world, segment.trajectory)
        if segment.gripper is not None:
            world.set_gripper(segment.gripper)
        for _ in range(round(segment.dwell_s * STEP_HZ)):
            world.step()


def _follow(world: World, trajectory: Trajectory) -> None:
    steps = int(np.ceil(trajectory.duration * STEP_HZ))
    q, qd, _ = trajectory.sample_many(np.arange(1, steps + 1) / STEP_HZ)
    free = np.zeros(steps, bool)
    if world.holding is None:
        free = above(world.robot, q, world.top())
    starts = np.flatnonzero(np.diff(free, prepend=~free[:1]))
    for start, end in zip(starts, [*starts[1:], steps], strict=True):
        if free[start]:
            world.settle_if_moving()
            world.move_arm(q[end - 1], qd[end - 1], int(end - start))
        else:
            world.follow(q[start:end], qd[start:end])


def above(robot: RobotModel, q: NDArray[np.float64], height: float) -> NDArray[np.bool_]:
    """Whether the arm at joint positions (N, J), its foot aside, lies above a height in m, as bool (N,)."""
    z = robot.link_positions(q)[:, :, 2]
    clear: NDArray[np.bool_] = (z[:, -1] > height + TIP_MARGIN_M) & (z[:, 1:-1].min(axis=1) > height + LINK_RADIUS_M)
    return clear

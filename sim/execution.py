"""Runs a planned motion on the simulated arm, counted in physics steps."""

from __future__ import annotations

import numpy as np

from embodied_vision.control.motion import Motion
from embodied_vision_sim.world import STEP_HZ, World


def execute(world: World, motion: Motion) -> None:
    """Follow every segment of the motion at 240 Hz, work the cup at its end, and dwell."""
    for segment in motion.segments:
        trajectory = segment.trajectory
        steps = int(np.ceil(trajectory.duration * STEP_HZ))
        q, qd, _ = trajectory.sample_many(np.arange(1, steps + 1) / STEP_HZ)
        for target, velocity in zip(q, qd, strict=True):
            world.set_joint_targets(target, velocity)
            world.step()
        if segment.gripper is not None:
            world.set_suction(segment.gripper < 0.5)
        for _ in range(round(segment.dwell_s * STEP_HZ)):
            world.step()

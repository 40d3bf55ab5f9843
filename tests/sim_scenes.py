"""What tests of the tasks share: bodies by name, moved poses, legal scenes, runs of the expert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import pybullet

from embodied_vision.geometry import pose_to_vector
from embodied_vision.types import FloatArray
from embodied_vision_sim.envs import PickPlaceEnv
from embodied_vision_sim.tasks.poses import upright
from embodied_vision_sim.world import World

PENETRATION_M = 0.003


def bodies(world: World, prefix: str) -> list[int]:
    """Bodies whose name starts so, in the order in which they were made."""
    return [body for body, name in world.object_names.items() if name.startswith(prefix)]


def shifted(pose: FloatArray, dx: float = 0.0, dy: float = 0.0, degrees: float = 0.0, dz: float = 0.0) -> FloatArray:
    """A pose moved in the base frame and turned about its own upright axis."""
    moved = upright((0.0, 0.0, 0.0), np.radians(degrees)) @ pose
    moved[:3, 3] = pose[:3, 3] + (dx, dy, dz)
    return moved


def least_gap(world: World) -> float:
    """Smallest distance in m between two objects, table included, robot left out; negative where they penetrate."""
    things = [body for body, name in world.object_names.items() if name != "robot"]
    gaps = [
        contact[8]
        for a, b in combinations(things, 2)
        for contact in pybullet.getClosestPoints(a, b, 0.05, physicsClientId=world.client)
    ]
    return min(gaps)


def least_gap_between(world: World, movable: list[int]) -> float:
    """Smallest distance in m from one of these objects to any other, table and robot left out; at most 5 cm."""
    things = [body for body, name in world.object_names.items() if name not in ("table", "robot")]
    gaps = [
        contact[8]
        for a in movable
        for b in things
        if a != b
        for contact in pybullet.getClosestPoints(a, b, 0.05, physicsClientId=world.client)
    ]
    return min(gaps, default=0.05)


def assert_within_reach(world: World, things: list[int]) -> None:
    """No part of these bodies lies nearer or farther than the arm works, nor outside the workspace."""
    for body in things:
        low, high = (np.array(corner) for corner in pybullet.getAABB(body, physicsClientId=world.client))
        position = world.pose(body)[:2, 3]
        assert world.reach[0] < np.hypot(*position) < world.reach[1], world.object_names[body]
        assert (low[:2] > (world.workspace.x[0] - 1e-3, world.workspace.y[0] - 1e-3)).all()
        assert (high[:2] < (world.workspace.x[1] + 1e-3, world.workspace.y[1] + 1e-3)).all()


def poses(world: World) -> dict[str, list[list[float]]]:
    """Exact poses of everything by name."""
    return {name: world.pose(body).tolist() for body, name in world.object_names.items()}


@contextmanager
def solved_by_expert(task: str, seed: int) -> Iterator[tuple[World, list[float]]]:
    """The world after the expert has acted until the end of the episode, and the rewards; nothing was refused."""
    env = PickPlaceEnv(task)
    try:
        env.reset(seed=seed)
        rewards, over = [], False
        while not over:
            action = env.oracle()
            step = {"pick": pose_to_vector(action.pick), "place": pose_to_vector(action.place)}
            _, reward, terminated, truncated, info = env.step(step)
            assert "refused" not in info, info
            rewards.append(float(reward))
            over = terminated or truncated
        yield env._world, rewards
    finally:
        env.close()

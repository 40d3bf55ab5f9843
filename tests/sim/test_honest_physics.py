"""Nothing jumps, sinks in or drifts, and nothing is held that was not touched, in any task."""

from __future__ import annotations

import gymnasium
import numpy as np
import pybullet
import pytest

from embodied_vision.geometry import pose_to_vector, tool_down, yaw_of
from embodied_vision.learning.seeds import scene_seed
from embodied_vision_sim.registration import ENV_IDS
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks import TASKS
from embodied_vision_sim.world import STEP_HZ, World

FASTEST_M_S = 2.5
"""What falls from the height of travel, 0.3 m, gets to 2.4 m/s."""
DEEPEST_M = 0.002


def _positions(world: World) -> np.ndarray:
    return np.array([world.pose(body)[:3, 3] for body in sorted(world.object_names)])


def _deepest(world: World) -> float:
    """Depth in m of the deepest contact between any two bodies."""
    points = pybullet.getContactPoints(physicsClientId=world.client)
    return max((-point[8] for point in points if point[1] != point[2]), default=0.0)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_objects_move_as_matter_does(task: str) -> None:
    env = gymnasium.make(ENV_IDS[task])
    env.reset(seed=scene_seed("train", 3))
    cell = env.unwrapped
    world: World = cell.world
    step = world.step
    places, depths, taken = [_positions(world)], [], []

    def watched() -> None:
        free = world.holding is None
        step()
        if free and world.holding is not None:
            points = pybullet.getClosestPoints(world._arm.body, world.tool.holding, 0.05, physicsClientId=world.client)
            taken.append(min(point[8] for point in points))
        places.append(_positions(world))

    for _ in range(2):
        decision = cell.oracle()
        world.step = watched  # type: ignore[method-assign]
        _, _, terminated, *_ = env.step(
            {"pick": pose_to_vector(decision.pick), "place": pose_to_vector(decision.place)}
        )
        world.step = step  # type: ignore[method-assign]
        depths.append(_deepest(world))
        if terminated:
            break
    moved = np.linalg.norm(np.diff(places, axis=0), axis=2).max(axis=0)
    names = [world.object_names[body] for body in sorted(world.object_names)]
    # What a conveyor brings comes in between two steps of the watched kind: those are single jumps of parked boxes.
    arrivals = {name for name in names if task == "palletizing-boxes" and name.startswith("box")}
    for name, farthest in zip(names, moved, strict=True):
        if name not in arrivals:
            assert farthest < FASTEST_M_S / STEP_HZ, f"{name} jumps by {farthest:.4f} m within a step"
    assert max(depths) < DEEPEST_M
    assert all(gap < 0.005 for gap in taken)
    env.close()


@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_rests_keeps_its_place(task: str) -> None:
    with World(task) as world:
        world.reset(scene_seed("train", 5))
        before = _positions(world)
        for body in world.object_names:
            pybullet.changeDynamics(
                body, -1, activationState=pybullet.ACTIVATION_STATE_WAKE_UP, physicsClientId=world.client
            )
        for _ in range(2 * STEP_HZ):
            world.step()
        assert np.linalg.norm(_positions(world) - before, axis=1).max() < 0.001
        assert _deepest(world) < DEEPEST_M


@pytest.mark.parametrize("yaw", [0.0, 0.7, -2.1])
def test_a_placed_object_reads_back_its_pose(yaw: float) -> None:
    with World("block-insertion") as world:
        world.reset(0)
        body = world.add_boxes("brick", [Box((0.08, 0.04, 0.03))], (0.5, -0.3, 0.1), 0.0, (0.2, 0.3, 0.9, 1.0))
        pose = tool_down(0.52, -0.31, 0.015)
        pose[:3, :3] = [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
        world.put(body, pose)
        np.testing.assert_allclose(world.pose(body), pose, atol=1e-8)
        world.settle()
        np.testing.assert_allclose(world.pose(body)[:3, 3], pose[:3, 3], atol=5e-4)
        assert abs(yaw_of(world.pose(body)) - yaw) < 2e-3

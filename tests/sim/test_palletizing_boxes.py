"""Palletizing boxes: the stack, arrivals, the share of points, the expert's way by real dynamics."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import combinations

import numpy as np
import pytest

from embodied_vision.errors import RunFailed
from embodied_vision.geometry import project, yaw_of
from embodied_vision_sim.tasks.palletizing_boxes import BOX_M, FEED_XY, PalletizingBoxes, stack_poses
from embodied_vision_sim.world import World
from tests.sim_scenes import PENETRATION_M, assert_within_reach, bodies, least_gap, poses, shifted, solved_by_expert


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World("palletizing-boxes") as world:
        yield world


def _task(world: World) -> PalletizingBoxes:
    assert isinstance(world.task, PalletizingBoxes)
    return world.task


def _at_feed(world: World) -> list[int]:
    return [b for b in bodies(world, "box") if np.allclose(world.pose(b)[:2, 3], FEED_XY, atol=1e-3)]


def test_layers_are_transposed() -> None:
    layers = stack_poses()
    assert [len(layer) for layer in layers] == [6, 6, 6]
    extents = []
    for layer in layers:
        turned = round(yaw_of(layer[0]) / (np.pi / 2)) % 2
        size = np.array([BOX_M[1], BOX_M[0]] if turned else BOX_M[:2])
        xy = np.array([pose[:2, 3] for pose in layer])
        for a, b in combinations(xy, 2):
            assert (np.abs(a - b) - size).max() > 0.0099
        extents.append(np.ptp(xy, axis=0) + size)
    np.testing.assert_allclose(extents, 0.19)
    yaws = [yaw_of(layer[0]) for layer in layers]
    assert abs(yaws[0] - yaws[1]) == pytest.approx(np.pi / 2)
    assert yaws[0] == yaws[2]


def test_scenes_are_legal_and_unsolved(world: World) -> None:
    yaws = []
    for seed in range(6):
        world.reset(seed)
        (box,) = _at_feed(world)
        yaws.append(yaw_of(world.pose(box)))
        assert world.score() == 0
        assert least_gap(world) > -0.001
        assert_within_reach(world, [box])
        camera = world.cameras[0]
        for other in bodies(world, "box"):
            if other != box:  # waits out of sight and far from the arm
                centre = world.pose(other)[:3, 3]
                ((u, v),), _ = project(centre[None], camera.K, camera.T_base_camera)
                assert not (-20 < u < camera.width + 20 and -20 < v < camera.height + 20)
                assert np.hypot(*centre[:2]) > 1.2
        for layer in stack_poses():
            for pose in layer:
                world.put(box, pose)
                assert_within_reach(world, [box])
    assert np.ptp(yaws) > 1


def test_a_seed_makes_one_scene(world: World) -> None:
    scenes = []
    for seed in (3, 4, 3):
        world.reset(seed)
        scenes.append(poses(world))
    assert scenes[0] == scenes[2]
    assert scenes[0] != scenes[1]


def test_the_next_box_arrives_when_the_feed_is_free(world: World) -> None:
    world.reset(0)
    task = _task(world)
    (first,) = _at_feed(world)
    task.proceed(world)
    assert _at_feed(world) == [first]
    world.put(first, shifted(world.pose(first), dx=0.15))  # off the spot, but still on the feed's half
    task.proceed(world)
    assert _at_feed(world) == []
    world.put(first, task._goals[0])
    world.settle()
    task.proceed(world)
    (second,) = _at_feed(world)
    assert second != first
    before = world.pose(second)
    world.settle()
    np.testing.assert_allclose(world.pose(second), before, atol=1e-6)


def test_the_state_of_the_task_can_be_copied(world: World) -> None:
    world.reset(0)
    task = _task(world)
    kept = deepcopy(vars(task))
    (first,) = _at_feed(world)
    pose = world.pose(first)
    arrivals = []
    for _ in range(2):
        world.put(first, task._goals[0])
        task.proceed(world)
        arrivals.append([world.pose(body).tolist() for body in _at_feed(world)])
        vars(task).update(deepcopy(kept))
        world.put(first, pose)
    assert arrivals[0] == arrivals[1]
    assert len(arrivals[0]) == 1


def test_every_box_is_worth_an_eighteenth_and_the_stack_stands(world: World) -> None:
    world.reset(0)
    task = _task(world)
    for number, (body, goal) in enumerate(zip(task._boxes, task._goals, strict=True), 1):
        world.put(body, goal)
        assert world.score() == pytest.approx(number / 18)
    task._arrived = len(task._boxes)
    world.settle()
    assert world.score() == 1
    with pytest.raises(RunFailed, match="every box lies on the pallet"):
        task.oracle(world, np.random.default_rng(0))
    edge = shifted(task._goals[-1], dx=0.65 - task._goals[-1][0, 3])  # half over the pallet's edge
    world.put(task._boxes[-1], edge)
    assert 17.3 / 18 < world.score() < 17.7 / 18


def test_the_expert_stacks_all_three_layers() -> None:
    with solved_by_expert("palletizing-boxes", 0) as (world, rewards):
        np.testing.assert_allclose(rewards, [1 / 18] * 18)
        assert least_gap(world) > -PENETRATION_M
        tops = [world.pose(body)[2, 3] + BOX_M[2] / 2 for body in bodies(world, "box")]
        np.testing.assert_allclose(sorted(tops), np.repeat([0.07, 0.12, 0.17], 6), atol=0.003)

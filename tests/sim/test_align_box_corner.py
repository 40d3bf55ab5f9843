"""Align box corner: legal scenes, the four poses and no other, the expert's way by real dynamics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from embodied_vision.errors import RunFailed
from embodied_vision_sim.tasks.align_box_corner import AlignBoxCorner
from embodied_vision_sim.world import World
from tests.sim_scenes import (
    PENETRATION_M,
    assert_within_reach,
    bodies,
    least_gap,
    least_gap_between,
    poses,
    shifted,
    solved_by_expert,
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World("align-box-corner") as world:
        yield world


def _task(world: World) -> AlignBoxCorner:
    assert isinstance(world.task, AlignBoxCorner)
    return world.task


def test_scenes_are_legal_and_unsolved(world: World) -> None:
    edges = []
    for seed in range(20):
        world.reset(seed)
        (box,), (marker,) = bodies(world, "box"), bodies(world, "marker")
        assert world.score() == 0
        assert_within_reach(world, [box])
        length, width, height = _task(world)._size
        edges.append((length, width, height))
        np.testing.assert_allclose(world.pose(box)[2, 3], height / 2, atol=1e-3)
        for goal in _task(world).goals(world):  # the arm reaches the box in all of them
            world.put(box, goal)
            assert_within_reach(world, [box, marker])
    assert (np.min(edges, 0) >= (0.05, 0.05, 0.01)).all()
    assert (np.max(edges, 0) <= (0.15, 0.15, 0.06)).all()
    assert (np.ptp(edges, 0) > (0.05, 0.05, 0.025)).all()


def test_a_seed_makes_one_scene(world: World) -> None:
    scenes = []
    for seed in (3, 4, 3):
        world.reset(seed)
        scenes.append(poses(world))
    assert scenes[0] == scenes[2]
    assert scenes[0] != scenes[1]


@pytest.mark.parametrize("quarter", range(4))
def test_all_four_poses_count(world: World, quarter: int) -> None:
    world.reset(5)
    (box,), (marker,) = bodies(world, "box"), bodies(world, "marker")
    goal = _task(world).goals(world)[quarter]
    world.put(box, goal)
    assert world.score() == 1
    # A corner of the box lies in that of the marker, the box in the quadrant between its arms.
    length, width, _ = _task(world)._size
    corners = np.array([(x * length / 2, y * width / 2, 0, 1) for x in (-1, 1) for y in (-1, 1)])
    local = corners @ (np.linalg.inv(world.pose(marker)) @ goal).T
    np.testing.assert_allclose(np.abs(local[:, :2]).sum(1).min(), 0, atol=1e-9)
    assert (local[:, :2] > -1e-9).all()


@pytest.mark.parametrize(
    ("dx", "dy", "degrees", "score"),
    [(0.009, 0, 0, 1), (0.011, 0, 0, 0), (0.008, 0.008, 0, 0), (0, 0, 14, 1), (0, 0, -16, 0), (0, 0, 45, 0)],
)
def test_counts_within_1_cm_and_15_degrees(world: World, dx: float, dy: float, degrees: float, score: float) -> None:
    world.reset(5)
    (box,) = bodies(world, "box")
    world.put(box, shifted(_task(world).goals(world)[1], dx, dy, degrees))
    assert world.score() == score


def test_a_box_across_the_corner_does_not_count(world: World) -> None:
    """In the right place of the one pose with the yaw of the other, for a box that is far from square."""
    seed = next(s for s in range(50) if world.reset(s) is None and abs(np.subtract(*_task(world)._size[:2])) > 0.05)
    world.reset(seed)
    (box,) = bodies(world, "box")
    world.put(box, shifted(_task(world).goals(world)[0], degrees=90))
    assert world.score() == 0


def test_the_marker_is_seen_but_not_felt(world: World) -> None:
    world.reset(7)
    (box,), (marker,) = bodies(world, "box"), bodies(world, "marker")
    _, (ids,) = world.views(world.cameras)
    assert (ids == marker).sum() > 60
    across = world.pose(marker).copy()
    across[2, 3] = world.pose(box)[2, 3]
    world.put(box, across)
    world.settle()
    np.testing.assert_allclose(world.pose(box), across, atol=5e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_expert_solves_scenes(seed: int) -> None:
    with solved_by_expert("align-box-corner", seed) as (world, rewards):
        assert sum(rewards) == 1
        assert least_gap(world) > -PENETRATION_M
        with pytest.raises(RunFailed, match="already lies in the corner"):
            world.task.oracle(world, np.random.default_rng(0))


def test_nothing_overlaps(world: World) -> None:
    for seed in range(10):
        world.reset(seed)
        assert least_gap_between(world, bodies(world, "box")) > 0.014

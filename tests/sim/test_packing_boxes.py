"""Packing boxes: legal scenes, boxes that fit, the share of points, the expert's way by real dynamics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from embodied_vision.errors import RunFailed
from embodied_vision_sim.tasks.packing_boxes import GAP_M, PIECE_M, PackingBoxes, split
from embodied_vision_sim.tasks.reached import grid_points
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
    with World("packing-boxes") as world:
        yield world


def _task(world: World) -> PackingBoxes:
    assert isinstance(world.task, PackingBoxes)
    return world.task


def test_pieces_fill_the_rectangle_but_for_the_gaps() -> None:
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(300):
        low, high = np.zeros(2), rng.uniform(0.03, 0.28, 2)
        pieces = split(low, high, rng)
        counts.append(len(pieces))
        edges = np.array([b - a for a, b in pieces])
        assert (edges >= np.minimum(high, PIECE_M - GAP_M / 2) - 1e-9).all()
        assert (edges <= 2 * PIECE_M + 1e-9).all()
        for i, (a, b) in enumerate(pieces):
            assert (a >= low - 1e-9).all()
            assert (b <= high + 1e-9).all()
            for c, d in pieces[i + 1 :]:
                assert np.maximum(c - b, a - d).max() >= GAP_M - 1e-9
    assert min(counts) == 1
    assert 12 < max(counts) <= PackingBoxes.max_steps


def test_grid_points_are_2_cm_apart_and_inside() -> None:
    points = grid_points((0.09, 0.05, 0.05))
    assert len(points) == 5 * 3 * 3
    np.testing.assert_allclose(np.abs(points).max(0), (0.04, 0.02, 0.02))
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-12)


def test_scenes_are_legal_and_unsolved(world: World) -> None:
    for seed in range(25):
        world.reset(seed)
        boxes = bodies(world, "box")
        assert boxes == list(_task(world)._goals)
        assert world.score() == 0
        assert_within_reach(world, boxes)
        assert least_gap_between(world, boxes) > 0.014


def test_a_seed_makes_one_scene(world: World) -> None:
    scenes = []
    for seed in (3, 4, 3):
        world.reset(seed)
        scenes.append(poses(world))
    assert scenes[0] == scenes[2]
    assert scenes[0] != scenes[1]


def test_all_boxes_fit_and_every_one_counts_by_its_points(world: World) -> None:
    for seed in (1, 28):
        world.reset(seed)
        task = _task(world)
        points = [len(each) for each in task._points.values()]
        for number, (body, goal) in enumerate(task._goals.items(), 1):
            world.put(body, goal)
            assert world.score() == pytest.approx(sum(points[:number]) / sum(points))
        assert least_gap(world) > -1e-6
        world.settle()
        assert world.score() == 1
        with pytest.raises(RunFailed, match="every box lies in the container"):
            task.oracle(world, np.random.default_rng(0))


def test_a_box_half_inside_counts_in_part_and_any_turn_will_do(world: World) -> None:
    world.reset(1)
    task = _task(world)
    (container,) = bodies(world, "container")
    body, zone = next(iter(task._goals)), world.pose(container)
    share = len(task._points[body]) / sum(len(each) for each in task._points.values())
    inside = task._goals[body].copy()
    world.put(body, shifted(inside, degrees=180))
    assert world.score() == pytest.approx(share)
    across = inside.copy()
    across[:3, 3] = zone[:3, 3] + zone[:3, 0] * task._half[0]  # its middle over a wall
    across[2, 3] = 0.1
    world.put(body, across)
    assert 0.3 * share < world.score() < 0.7 * share
    across[2, 3] = 0.5
    world.put(body, across)
    assert world.score() == 0


@pytest.mark.parametrize("seed", [1, 28])
def test_the_expert_solves_scenes(seed: int) -> None:
    with solved_by_expert("packing-boxes", seed) as (world, rewards):
        assert sum(rewards) == pytest.approx(1)
        assert len(rewards) == len(_task(world)._goals)
        assert least_gap(world) > -PENETRATION_M


def test_the_expert_never_picks_the_side_of_a_box(world: World) -> None:
    """A ray at the very edge meets the side some way down, where a cup would press into the box."""
    for seed in (1, 8, 28):
        world.reset(seed)
        rng = np.random.default_rng(seed)
        for _ in range(20):
            action = world.task.oracle(world, rng)
            assert action.pick[2, 3] == pytest.approx(0.05, abs=0.0016)

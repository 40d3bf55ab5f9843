"""Stack block pyramid: legal scenes, what rows are worth, the expert's way by real dynamics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from embodied_vision_sim.tasks.stack_block_pyramid import StackBlockPyramid
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

ROWS = (("purple", "blue", "green"), ("yellow", "orange"), ("red",))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World("stack-block-pyramid") as world:
        yield world


def _put(world: World, row: int, number: int, color: str | None = None, **offset: float) -> int:
    """Put a block, by default the one of this number, into a place of a row."""
    assert isinstance(world.task, StackBlockPyramid)
    (body,) = bodies(world, f"{color or ROWS[row][number]} block")
    world.put(body, shifted(world.task.goals(row)[number], **offset))
    return body


def _stack(world: World) -> None:
    for row, colors in enumerate(ROWS):
        for number in range(len(colors)):
            _put(world, row, number)


def test_scenes_are_legal_and_unsolved(world: World) -> None:
    for seed in range(12):
        world.reset(seed)
        blocks = [body for colors in ROWS for color in colors for body in bodies(world, f"{color} block")]
        assert len(blocks) == 6
        assert world.score() == 0
        assert_within_reach(world, [*blocks, *bodies(world, "base")])
        assert least_gap_between(world, blocks) > 0.014


def test_a_seed_makes_one_scene(world: World) -> None:
    scenes = []
    for seed in (3, 4, 3):
        world.reset(seed)
        scenes.append(poses(world))
    assert scenes[0] == scenes[2]
    assert scenes[0] != scenes[1]


def test_rows_are_worth_a_half_a_third_and_a_sixth(world: World) -> None:
    world.reset(1)
    scores = []
    for row, colors in enumerate(ROWS):
        for number in range(len(colors)):
            _put(world, row, number)
            scores.append(world.score())
    np.testing.assert_allclose(scores, [1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1])


def test_a_complete_pyramid_stands(world: World) -> None:
    world.reset(1)
    _stack(world)
    world.settle()
    assert world.score() == 1
    assert least_gap(world) > -PENETRATION_M


def test_a_row_waits_for_the_one_below(world: World) -> None:
    world.reset(1)
    _stack(world)
    _put(world, 0, 1, dy=0.3)
    assert world.score() == pytest.approx(1 / 3)


def test_colors_may_change_places_within_a_row_but_not_between_rows(world: World) -> None:
    world.reset(2)
    _put(world, 0, 0, "green")
    _put(world, 0, 2, "purple")
    assert world.score() == pytest.approx(1 / 3)
    _put(world, 0, 1, "red")
    assert world.score() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("offset", "counts"),
    [
        ({"dx": 0.009}, True),
        ({"dx": 0.011}, False),
        ({"dx": 0.008, "dy": 0.008}, False),
        ({"dz": 0.009}, True),
        ({"dz": 0.04}, False),
        ({"degrees": 14}, True),
        ({"degrees": 16}, False),
        ({"degrees": 76}, True),
        ({"degrees": -90}, True),
        ({"degrees": 180}, True),
        ({"degrees": 45}, False),
    ],
)
def test_places_count_within_1_cm_and_15_degrees_modulo_quarter_turns(
    world: World, offset: dict[str, float], counts: bool
) -> None:
    world.reset(2)
    _put(world, 0, 1, **offset)
    assert world.score() == pytest.approx(counts / 6)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_block_may_lie_on_any_of_its_sides(world: World, axis: str) -> None:
    world.reset(2)
    body = _put(world, 0, 1)
    pose = world.pose(body)
    for quarter in (90, 180, 270):
        rolled = pose.copy()
        rolled[:3, :3] = pose[:3, :3] @ Rotation.from_euler(axis, quarter, degrees=True).as_matrix()
        world.put(body, rolled)
        assert world.score() == pytest.approx(1 / 6)


def test_the_expert_places_a_rolled_block_straight(world: World) -> None:
    world.reset(2)
    (red,) = bodies(world, "red block")
    for row in (0, 1):
        for number in range(len(ROWS[row])):
            _put(world, row, number)
    pose = world.pose(red)
    pose[:3, :3] = Rotation.from_euler("ZY", [0.4, np.pi / 2]).as_matrix()
    world.put(red, pose)
    action = world.task.oracle(world, np.random.default_rng(0))
    world.put(red, shifted(action.place @ np.linalg.inv(action.pick) @ pose, dz=-0.004))
    assert world.score() == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_the_expert_solves_scenes(seed: int) -> None:
    with solved_by_expert("stack-block-pyramid", seed) as (world, rewards):
        np.testing.assert_allclose(rewards, [1 / 6] * 6)
        assert least_gap(world) > -PENETRATION_M

"""Piles: scenes are legal, blocks count one by one, pushes move only what they meet, the expert gathers everything."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pybullet
import pytest

from embodied_vision.control.motion import plan
from embodied_vision.errors import RunFailed
from embodied_vision.geometry import tool_down, yaw_of
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.execution import execute
from embodied_vision_sim.tasks.poses import upright
from embodied_vision_sim.tasks.sweeping_piles import (
    BLOCK_M,
    BLOCKS,
    PILE_RADIUS_M,
    PLATE_M,
    PLATE_THICKNESS_M,
    TIP_HEIGHT_M,
    Sweep,
)
from embodied_vision_sim.world import World
from tests.sim_scenes import assert_within_reach, bodies, poses, solved_by_expert


@pytest.fixture(scope="module")
def piles() -> Iterator[World]:
    with World("sweeping-piles") as world:
        yield world


def _centres(world: World) -> FloatArray:
    return np.array([world.pose(body)[:3, 3] for body in bodies(world, "block")])


def _deepest(world: World) -> float:
    """Greatest penetration among all contacts, m."""
    return max(-contact[8] for contact in pybullet.getContactPoints(physicsClientId=world.client))


def _gather(world: World, count: int = BLOCKS) -> None:
    """Put the first blocks in rows of eight into the zone."""
    (zone,) = bodies(world, "zone")
    frame = world.pose(zone)
    for i, body in enumerate(bodies(world, "block")[:count]):
        offset = (i % 8 - 3.5) * 0.014, (i // 8 - 3.5) * 0.014
        x, y = (frame @ [*offset, 0, 1])[:2]
        world.put(body, upright((x, y, BLOCK_M / 2), yaw_of(frame)))


def test_scenes_are_legal_and_unsolved(piles: World) -> None:
    for seed in range(6):
        piles.reset(seed)
        blocks, (zone,) = bodies(piles, "block"), bodies(piles, "zone")
        assert len(blocks) == BLOCKS
        assert piles.score() == 0
        assert_within_reach(piles, [*blocks, zone])
        centres = _centres(piles)
        np.testing.assert_allclose(centres[:, 2], BLOCK_M / 2, atol=2e-4)
        assert np.linalg.norm(centres - centres.mean(axis=0), axis=1).max() < PILE_RADIUS_M + 0.03
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + np.eye(BLOCKS)
        assert apart.min() > np.sqrt(2) * BLOCK_M
        colors = {pybullet.getVisualShapeData(body, physicsClientId=piles.client)[0][7] for body in blocks}
        assert len(colors) == 1


def test_a_seed_is_a_scene(piles: World) -> None:
    piles.reset(3)
    first = poses(piles)
    piles.reset(4)
    assert poses(piles) != first
    piles.reset(3)
    assert poses(piles) == first


def test_every_block_in_the_zone_is_worth_a_fiftieth_and_stays(piles: World) -> None:
    piles.reset(1)
    for count in (1, 20, BLOCKS):
        _gather(piles, count)
        assert piles.score() == pytest.approx(count / BLOCKS)
    before = _centres(piles)
    piles.settle()
    np.testing.assert_allclose(_centres(piles), before, atol=0.001)
    assert piles.score() == 1
    with pytest.raises(RunFailed, match="already lies in the zone"):
        piles.task.oracle(piles, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("x", "y", "inside"), [(0.059, 0, True), (0.061, 0, False), (0, -0.061, False), (-0.059, 0.059, True)]
)
def test_the_zone_ends_where_it_is_painted(piles: World, x: float, y: float, inside: bool) -> None:
    piles.reset(1)
    (zone,), block = bodies(piles, "zone"), bodies(piles, "block")[0]
    place = (piles.pose(zone) @ [x, y, 0, 1])[:2]
    piles.put(block, upright((*place, BLOCK_M / 2)))
    assert piles.score() == pytest.approx(inside / BLOCKS)
    piles.put(block, upright((0.5, 0, -0.1)))
    (ids,) = piles.views(piles.cameras)[1]
    assert (ids == zone).sum() > 500
    assert piles.surface(*place)[0] == bodies(piles, "table")[0]


def test_what_a_sweep_foretells() -> None:
    sweep = Sweep(yaw=0.0, lane=0.1, start=0.3, end=0.5)
    ahead, packed, beyond, behind, beside = (0.4, 0.1), (0.45, 0.1), (0.6, 0.1), (0.29, 0.1), (0.4, 0.19)
    after = sweep.foretell(np.array([ahead, packed, beyond, behind, beside]))
    assert 0.5 < after[0, 0] < after[1, 0] - BLOCK_M < 0.52
    np.testing.assert_allclose(after[:2, 1], 0.1)
    np.testing.assert_array_equal(after[2:], [beyond, behind, beside])
    np.testing.assert_allclose(sweep.point(0.3), (0.3, 0.1))
    np.testing.assert_allclose(Sweep(np.pi / 2, -0.5, 0.0, 0.2).point(0.2), (0.5, 0.2), atol=1e-12)


def test_expert_comes_down_between_blocks_with_the_plate_across_its_way(piles: World) -> None:
    for seed in range(6):
        piles.reset(seed)
        action = piles.task.oracle(piles, np.random.default_rng(seed))
        assert action.primitive == "push"
        way = (action.place - action.pick)[:3, 3]
        assert np.linalg.norm(way) > 0.05
        for pose in (action.pick, action.place):
            np.testing.assert_allclose(pose[:3, 0], way / np.linalg.norm(way), atol=1e-6)
            assert pose[2, 3] == TIP_HEIGHT_M
        local = (np.linalg.inv(action.pick) @ np.c_[_centres(piles), np.ones(BLOCKS)].T)[:2]
        across = np.abs(local[1]) < (PLATE_M + BLOCK_M) / 2
        assert np.abs(local[0])[across].min() > (PLATE_THICKNESS_M + np.sqrt(2) * BLOCK_M) / 2


def test_a_push_moves_what_is_ahead_and_nothing_else(piles: World) -> None:
    piles.reset(2)
    pile, before = _centres(piles).mean(axis=0), _centres(piles)
    start, end = pile[0] - 0.14, pile[0]
    action = PickPlace(
        pick=tool_down(start, pile[1], TIP_HEIGHT_M), place=tool_down(end, pile[1], TIP_HEIGHT_M), primitive="push"
    )
    step, former, fastest, highest = piles.step, before, 0.0, 0.0

    def watched() -> None:
        nonlocal former, fastest, highest
        step()
        centres = _centres(piles)
        fastest = max(fastest, float(np.linalg.norm(centres - former, axis=1).max()))
        highest = max(highest, float(centres[:, 2].max()))
        former = centres

    piles.step = watched  # type: ignore[method-assign]
    try:
        execute(piles, plan(piles.robot, piles.joint_state()[0], action))
        piles.settle()
    finally:
        del piles.step
    after = _centres(piles)
    moved = np.linalg.norm(after - before, axis=1)
    aside = np.abs(before[:, 1] - pile[1])
    swept = (before[:, 0] < end - 0.02) & (aside < PLATE_M / 2 - BLOCK_M)
    assert swept.sum() > 8
    assert after[swept, 0].min() > end
    untouched = (before[:, 0] < end - 0.02) & (aside > PLATE_M / 2 + 2 * BLOCK_M)
    assert moved[untouched].max(initial=0.0) < 1e-3
    assert fastest < 0.008  # m in 1/240 s: nothing jumps
    assert highest < 2 * BLOCK_M
    assert _deepest(piles) < 0.001


def test_expert_gathers_everything() -> None:
    with solved_by_expert("sweeping-piles", 2) as (world, rewards):
        assert world.score() == 1
        assert len(rewards) < 12
        assert _deepest(world) < 0.001

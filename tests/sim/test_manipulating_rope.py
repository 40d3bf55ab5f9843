"""Rope: scenes are legal, beads count at their own places, links hold while they are dragged, the expert closes it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from embodied_vision.control.motion import OPEN, plan
from embodied_vision.errors import RunFailed
from embodied_vision.geometry import tool_down
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.execution import execute
from embodied_vision_sim.tasks.manipulating_rope import BEADS, LINK_M, RADIUS_M, SIDE_M, TOLERANCE_M
from embodied_vision_sim.tasks.poses import upright
from embodied_vision_sim.world import World
from tests.sim_scenes import assert_within_reach, bodies, least_gap, poses, shifted, solved_by_expert

STRETCH_M, REST_STRETCH_M = 0.005, 0.0005


@pytest.fixture(scope="module")
def rope() -> Iterator[World]:
    with World("manipulating-rope") as world:
        yield world


def _centres(world: World) -> FloatArray:
    return np.array([world.pose(body)[:3, 3] for body in bodies(world, "bead")])


def _links(world: World) -> FloatArray:
    return np.linalg.norm(np.diff(_centres(world), axis=0), axis=1)


def _lay(world: World, offset: float = 0.0, reverse: bool = False, count: int = BEADS) -> None:
    """Put the first beads at their places on the open side, `offset` m beside it."""
    (square,) = bodies(world, "square")
    frame = world.pose(square)
    for i, body in enumerate(bodies(world, "bead")[:count]):
        along = (i + 0.5) * LINK_M - SIDE_M / 2
        x, y, _ = (frame @ [-along if reverse else along, SIDE_M / 2 + offset, 0, 1])[:3]
        yaw = float(np.arctan2(frame[1, 0], frame[0, 0])) + (np.pi if reverse else 0.0)
        world.put(body, upright((x, y, RADIUS_M), yaw))


def test_scenes_are_legal_and_unsolved(rope: World) -> None:
    shapes = []
    for seed in range(8):
        rope.reset(seed)
        beads = bodies(rope, "bead")
        assert len(beads) == BEADS
        assert rope.score() == 0
        assert least_gap(rope) > -0.001
        assert_within_reach(rope, beads)
        centres = _centres(rope)
        np.testing.assert_allclose(_links(rope), LINK_M, atol=3e-4)
        np.testing.assert_allclose(centres[:, 2], RADIUS_M, atol=3e-4)
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
        assert apart[np.triu(np.ones((BEADS, BEADS), bool), 2)].min() > 2 * RADIUS_M
        shapes.append(float(np.linalg.norm(centres[0] - centres[-1])))
        _lay(rope)
        assert_within_reach(rope, beads)
    assert max(shapes) - min(shapes) > 0.05


def test_a_seed_is_a_scene(rope: World) -> None:
    rope.reset(3)
    first = poses(rope)
    rope.reset(4)
    assert poses(rope) != first
    rope.reset(3)
    assert poses(rope) == first


@pytest.mark.parametrize("reverse", [False, True])
def test_a_rope_on_the_open_side_is_worth_1_either_way_and_stays(rope: World, reverse: bool) -> None:
    rope.reset(5)
    _lay(rope, reverse=reverse)
    assert rope.score() == 1
    before = _centres(rope)
    rope.settle()
    np.testing.assert_allclose(_centres(rope), before, atol=0.001)
    assert rope.score() == 1
    with pytest.raises(RunFailed, match="already closes"):
        rope.task.oracle(rope, np.random.default_rng(0))


def test_beads_count_one_by_one_within_2_cm_of_their_own_places(rope: World) -> None:
    rope.reset(5)
    for count in (1, 7, 20):
        _lay(rope, count=count)
        assert rope.score() == pytest.approx(count / BEADS)
    _lay(rope, offset=TOLERANCE_M - 0.001)
    assert rope.score() == 1
    _lay(rope, offset=-TOLERANCE_M - 0.001)
    assert rope.score() == 0
    # A heap on the middle of the side closes nothing.
    _lay(rope)
    middle = rope.pose(bodies(rope, "bead")[BEADS // 2])
    for body in bodies(rope, "bead"):
        rope.put(body, middle)
    assert rope.score() < 0.2
    # Nor do two halves of which one lies over the other.
    _lay(rope)
    beads = bodies(rope, "bead")
    for body, twin in zip(beads[BEADS // 2 :], reversed(beads[: BEADS // 2]), strict=True):
        rope.put(body, shifted(rope.pose(twin), dz=0.01))
    assert rope.score() == pytest.approx(0.5, abs=0.1)


def test_links_hold_and_the_rope_follows_while_it_is_dragged(rope: World) -> None:
    rope.reset(6)
    first, last = bodies(rope, "bead")[0], bodies(rope, "bead")[-1]
    start, tail = rope.pose(first)[:3, 3], rope.pose(last)[:3, 3]
    goal = np.array([0.5, -0.25 if start[1] > 0 else 0.25])
    action = PickPlace(
        pick=tool_down(start[0], start[1], 2 * RADIUS_M),
        place=tool_down(goal[0], goal[1], 2 * RADIUS_M),
        primitive="drag",
    )
    stretch, lowest, highest, fastest, held = 0.0, 1.0, 0.0, 0.0, 0
    step, former = rope.step, _centres(rope)

    def watched() -> None:
        nonlocal stretch, lowest, highest, fastest, held, former
        step()
        centres = _centres(rope)
        stretch = max(stretch, float(np.abs(_links(rope) - LINK_M).max()))
        lowest, highest = min(lowest, centres[:, 2].min()), max(highest, centres[:, 2].max())
        fastest = max(fastest, float(np.linalg.norm(centres - former, axis=1).max()))
        held += rope.holding == "bead 0"
        former = centres

    rope.step = watched  # type: ignore[method-assign]
    try:
        execute(rope, plan(rope.robot, rope.joint_state()[0], action))
        rope.set_gripper(OPEN)
        rope.settle()
    finally:
        del rope.step
    assert held > 100
    assert stretch < STRETCH_M  # the tip goes 2.5 mm a step
    np.testing.assert_allclose(_links(rope), LINK_M, atol=REST_STRETCH_M)
    assert lowest > RADIUS_M - 0.002
    assert highest < 0.06
    assert fastest < 0.01  # m in 1/240 s: nothing jumps
    assert np.hypot(*(rope.pose(first)[:2, 3] - goal)) < 0.005
    assert np.hypot(*(rope.pose(last)[:2, 3] - tail[:2])) > 0.05
    assert np.linalg.norm(rope.pose(last)[:3, 3] - rope.pose(first)[:3, 3]) < SIDE_M
    assert rope.holding is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_expert_closes_the_square(seed: int) -> None:
    with solved_by_expert("manipulating-rope", seed) as (world, rewards):
        assert world.score() == 1
        assert sum(rewards) == pytest.approx(1)
        np.testing.assert_allclose(_links(world), LINK_M, atol=REST_STRETCH_M)

"""Kits: shapes are what they claim to be, scenes are legal, outlines count once, and the expert fills them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from embodied_vision.errors import RunFailed
from embodied_vision.learning.seeds import scene_seed
from embodied_vision_sim.shapes import MOST_BOXES
from embodied_vision_sim.tasks.assembling_kits import KIT_M, SLOTS_M, AssemblingKits, shapes_of
from embodied_vision_sim.tasks.kit_shapes import RADIUS_M, ROUND, TEST_SHAPES, THICKNESS_M, TRAIN_SHAPES, KitShape
from embodied_vision_sim.tasks.poses import upright
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

ALL_SHAPES = TRAIN_SHAPES + TEST_SHAPES
ASYMMETRIC_SEED = 1


@pytest.fixture(scope="module")
def kits() -> Iterator[World]:
    with World("assembling-kits") as world:
        yield world


def _task(world: World) -> AssemblingKits:
    assert isinstance(world.task, AssemblingKits)
    return world.task


def _objects(world: World) -> list[int]:
    return [body for shape in ALL_SHAPES for i in range(5) for body in bodies(world, f"{shape.name} {i}")]


def _overlap(shape: KitShape, turn: float) -> float:
    """Intersection over union of a silhouette and itself after a turn."""
    x, y = np.random.default_rng(0).uniform(-RADIUS_M, RADIUS_M, (2, 20_000))
    c, s = np.cos(turn), np.sin(turn)
    one, other = shape.covers(x, y), shape.covers(c * x + s * y, c * y - s * x)
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("shape", ALL_SHAPES, ids=lambda shape: shape.name)
def test_a_shape_has_the_symmetry_that_it_states_and_no_other(shape: KitShape) -> None:
    assert len(shape.bars) <= MOST_BOXES
    x, y = np.random.default_rng(1).uniform(-0.05, 0.05, (2, 40_000))
    inside = shape.covers(x, y)
    assert 0.030 < np.hypot(x, y)[inside].max() <= RADIUS_M + 1e-9
    np.testing.assert_allclose((x[inside].mean(), y[inside].mean()), 0, atol=0.002)
    for k in range(1, shape.order):
        assert _overlap(shape, k * shape.symmetry) > 0.999
    others = [turn for turn in np.radians(np.arange(0, 360, 5)) if 0.25 < turn % shape.symmetry < shape.symmetry - 0.25]
    assert bool(others) == (shape.order != ROUND)
    assert all(_overlap(shape, float(turn)) < 0.92 for turn in others)


def test_shapes_of_test_scenes_are_never_seen_in_training() -> None:
    assert len(TRAIN_SHAPES) == 14
    assert len(TEST_SHAPES) == 6
    assert not {shape.bars for shape in TRAIN_SHAPES} & {shape.bars for shape in TEST_SHAPES}
    assert len({shape.name for shape in ALL_SHAPES}) == 20
    assert shapes_of(scene_seed("test", 5)) == TEST_SHAPES
    for seed in (scene_seed("train", 5), scene_seed("validation", 5), 7_000_000, -1):
        assert shapes_of(seed) == TRAIN_SHAPES


@pytest.mark.parametrize(("split", "known"), [("train", TRAIN_SHAPES), ("test", TEST_SHAPES)])
def test_scenes_are_legal_and_unsolved(kits: World, split: str, known: tuple[KitShape, ...]) -> None:
    seen = set()
    for index in range(6):
        kits.reset(scene_seed(split, index))  # type: ignore[arg-type]
        objects, (kit,) = _objects(kits), bodies(kits, "kit")
        assert len(objects) == len(SLOTS_M)
        names = sorted(kits.object_names[body].rsplit(" ", 1)[0] for body in objects)
        outlines = sorted(kits.object_names[body].removeprefix("outline of ") for body in bodies(kits, "outline of"))
        assert names == outlines
        seen |= set(names)
        assert kits.score() == 0
        assert least_gap(kits) > -PENETRATION_M
        assert least_gap_between(kits, objects) > 0.01
        assert_within_reach(kits, [*objects, *bodies(kits, "outline of")])
        for goal in _task(kits).goals():
            local = np.linalg.inv(kits.pose(kit)) @ goal
            assert (np.abs(local[:2, 3]) + RADIUS_M < np.array(KIT_M[:2]) / 2).all()
    assert len(seen) > 4
    assert seen <= {shape.name for shape in known}


def test_a_seed_is_a_scene(kits: World) -> None:
    kits.reset(3)
    first = poses(kits)
    kits.reset(4)
    assert poses(kits) != first
    kits.reset(3)
    assert poses(kits) == first


def test_each_object_in_place_is_worth_a_fifth_and_stays(kits: World) -> None:
    kits.reset(ASYMMETRIC_SEED)
    for count, (body, goal) in enumerate(zip(_objects_in_order(kits), _task(kits).goals(), strict=True), start=1):
        kits.put(body, goal)
        assert kits.score() == pytest.approx(count / 5)
    kits.settle()
    for body, goal in zip(_objects_in_order(kits), _task(kits).goals(), strict=True):
        np.testing.assert_allclose(kits.pose(body), goal, atol=0.001)
    assert kits.score() == 1
    with pytest.raises(RunFailed, match="already lies in its outline"):
        kits.task.oracle(kits, np.random.default_rng(0))


def _objects_in_order(world: World) -> list[int]:
    return sorted(_objects(world), key=lambda body: world.object_names[body].rsplit(" ", 1)[1])


@pytest.mark.parametrize(
    ("dx", "dy", "degrees", "dz", "worth"),
    [
        (0.009, 0, 0, 0, 0.2),
        (0.011, 0, 0, 0, 0),
        (0.008, -0.008, 0, 0, 0),
        (0, 0, 14, 0, 0.2),
        (0, 0, -14, 0, 0.2),
        (0, 0, 16, 0, 0),
        (0, 0, 180, 0, 0),
        (0, 0, 0, 0.02, 0),
    ],
)
def test_an_object_counts_within_1_cm_and_15_degrees(
    kits: World, dx: float, dy: float, degrees: float, dz: float, worth: float
) -> None:
    kits.reset(ASYMMETRIC_SEED)
    i = next(i for i, body in enumerate(_objects_in_order(kits)) if kits.object_names[body].startswith("arrow"))
    kits.put(_objects_in_order(kits)[i], shifted(_task(kits).goals()[i], dx, dy, degrees, dz))
    assert kits.score() == pytest.approx(worth)


def test_symmetric_poses_and_equal_outlines_count_and_others_do_not(kits: World) -> None:
    accepted = refused = swapped = 0
    for seed in range(8):
        kits.reset(seed)
        objects, goals = _objects_in_order(kits), _task(kits).goals()
        shapes = [next(s for s in TRAIN_SHAPES if kits.object_names[b].rsplit(" ", 1)[0] == s.name) for b in objects]
        start = [kits.pose(body) for body in objects]
        for i, shape in enumerate(shapes):
            for turn in (360 / shape.order, 360 / shape.order + 13, 180 / shape.order):
                expected = turn % (360 / shape.order) in (0, 13) or shape.order == ROUND
                kits.put(objects[i], shifted(goals[i], degrees=turn))
                assert kits.score() == pytest.approx(0.2 if expected else 0), (shape.name, turn)
                accepted, refused = accepted + expected, refused + (not expected)
            for j in range(i + 1, 5):
                same = shapes[i] is shapes[j]
                kits.put(objects[i], goals[j])
                assert kits.score() == pytest.approx(0.2 if same else 0)
                if same:  # two objects in one outline are worth one
                    kits.put(objects[j], shifted(goals[j], dx=0.005))
                    assert kits.score() == pytest.approx(0.2)
                    kits.put(objects[j], start[j])
                    swapped += 1
            kits.put(objects[i], start[i])
    assert accepted > 40
    assert refused > 20
    assert swapped > 0


def test_outlines_can_be_seen_and_not_touched(kits: World) -> None:
    kits.reset(ASYMMETRIC_SEED)
    (kit,) = bodies(kits, "kit")
    frames, ids = kits.views(kits.cameras)
    for outline, goal in zip(bodies(kits, "outline of"), _task(kits).goals(), strict=True):
        assert (ids[0] == outline).sum() > 40
        assert frames[0].color[ids[0] == outline].mean() < frames[0].color[ids[0] == kit].mean() - 80
        assert kits.surface(goal[0, 3], goal[1, 3]) == (kit, pytest.approx(KIT_M[2], abs=1e-4))


def test_expert_takes_the_farthest_object_to_its_outline(kits: World) -> None:
    for seed in range(4):
        kits.reset(seed)
        objects = _objects_in_order(kits)
        action = kits.task.oracle(kits, np.random.default_rng(seed))
        taken, height = kits.surface(*action.pick[:2, 3])
        assert taken in objects
        assert height == pytest.approx(THICKNESS_M, abs=5e-4)
        kits.put(taken, upright((0, 0, -0.003)) @ action.place @ np.linalg.inv(action.pick) @ kits.pose(taken))
        assert kits.score() == pytest.approx(0.2)


@pytest.mark.parametrize("seed", [scene_seed("train", 0), scene_seed("test", 0)])
def test_expert_fills_the_kit(seed: int) -> None:
    with solved_by_expert("assembling-kits", seed) as (world, rewards):
        assert rewards == pytest.approx([0.2] * 5)
        assert least_gap_between(world, _objects(world)) > -PENETRATION_M

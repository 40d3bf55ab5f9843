"""Scenes are legal, scores mean what they say, and oracles take what can be seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from embodied_vision.errors import RunFailed
from embodied_vision.geometry import project
from embodied_vision.types import FloatArray
from embodied_vision_sim.tasks.base import Placer
from embodied_vision_sim.tasks.oracle import visible_point
from embodied_vision_sim.world import World


@pytest.fixture(scope="module")
def insertion() -> Iterator[World]:
    with World("block-insertion") as world:
        yield world


@pytest.fixture(scope="module")
def bowls() -> Iterator[World]:
    with World("place-red-in-green") as world:
        yield world


def _bodies(world: World, prefix: str) -> list[int]:
    return [body for body, name in world.object_names.items() if name.startswith(prefix)]


def _moved(pose: FloatArray, dx: float = 0.0, dy: float = 0.0, degrees: float = 0.0) -> FloatArray:
    moved = pose.copy()
    moved[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix() @ pose[:3, :3]
    moved[:2, 3] += dx, dy
    return moved


@pytest.mark.parametrize(
    ("dx", "dy", "degrees", "score"),
    [
        (0, 0, 0, 1),
        (0.009, 0, 0, 1),
        (0.011, 0, 0, 0),
        (0, -0.011, 0, 0),
        (0.008, 0.008, 0, 0),
        (0, 0, 14, 1),
        (0, 0, -14, 1),
        (0, 0, 16, 0),
        (0, 0, 180, 0),
    ],
)
def test_insertion_counts_within_1_cm_and_15_degrees(
    insertion: World, dx: float, dy: float, degrees: float, score: float
) -> None:
    insertion.reset(11)
    assert insertion.score() == 0
    (block,), (fixture,) = _bodies(insertion, "block"), _bodies(insertion, "fixture")
    insertion.put(block, _moved(insertion.pose(fixture), dx, dy, degrees))
    assert insertion.score() == score


def test_block_fits_into_the_fixture_and_stays(insertion: World) -> None:
    insertion.reset(11)
    (block,), (fixture,) = _bodies(insertion, "block"), _bodies(insertion, "fixture")
    goal = insertion.pose(fixture)
    insertion.put(block, _moved(goal, 0.002, -0.002, 1.0))
    insertion.settle()
    pose = insertion.pose(block)
    np.testing.assert_allclose(pose[2, 3], goal[2, 3], atol=0.001)
    assert np.hypot(*(pose - goal)[:2, 3]) < 0.004


def test_bowls_count_once_each_within_5_cm(bowls: World) -> None:
    seed = next(s for s in range(50) if _reset(bowls, s) and len(_bodies(bowls, "red block")) >= 2)
    _reset(bowls, seed)
    greens, reds = _bodies(bowls, "green bowl"), _bodies(bowls, "red block")
    assert bowls.score() == 0
    bowls.put(reds[0], _moved(bowls.pose(greens[0]), 0.049))
    assert bowls.score() == pytest.approx(1 / len(reds))
    # A second block in the same bowl earns nothing, in a bowl of its own it does.
    bowls.put(reds[1], _moved(bowls.pose(greens[0]), -0.02))
    assert bowls.score() == pytest.approx(1 / len(reds))
    bowls.put(reds[1], _moved(bowls.pose(greens[1]), 0.0, 0.02, 45))
    assert bowls.score() == pytest.approx(2 / len(reds))
    bowls.put(reds[0], _moved(bowls.pose(greens[0]), 0.051))
    assert bowls.score() == pytest.approx(1 / len(reds))


def _reset(world: World, seed: int) -> bool:
    world.reset(seed)
    return True


def test_scenes_of_place_red_in_green(bowls: World) -> None:
    counts = set()
    for seed in range(12):
        bowls.reset(seed)
        greens, reds = len(_bodies(bowls, "green bowl")), len(_bodies(bowls, "red block"))
        counts.add(greens)
        assert 1 <= reds <= greens <= 3
        assert len(bowls.object_names) == 2 + greens + reds + 10
        things = [body for body, name in bowls.object_names.items() if name not in ("table", "robot")]
        xy = np.array([bowls.pose(body)[:2, 3] for body in things])
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + np.eye(len(things))
        assert gaps.min() > 0.04 * np.sqrt(2)
        assert all(bowls.pose(body)[2, 3] < 0.021 for body in things)
    assert counts == {1, 2, 3}


def test_everything_to_move_is_within_reach_and_sight(insertion: World, bowls: World) -> None:
    for world, names in ((insertion, ("block", "fixture")), (bowls, ("red", "green"))):
        camera = world.cameras[0]
        for seed in range(8):
            world.reset(seed)
            for body in (body for name in names for body in _bodies(world, name)):
                centre = world.pose(body)[:3, 3]
                assert world.reach[0] < np.hypot(*centre[:2]) < world.reach[1]
                ((u, v),), _ = project(centre[None], camera.K, camera.T_base_camera)
                assert 10 < u < camera.width - 10
                assert 10 < v < camera.height - 10


def test_oracle_carries_the_block_to_its_place(insertion: World) -> None:
    for seed in range(5):
        insertion.reset(seed)
        (block,), (fixture,) = _bodies(insertion, "block"), _bodies(insertion, "fixture")
        action = insertion.task.oracle(insertion, np.random.default_rng(seed))
        x, y, z = action.pick[:3, 3]
        assert insertion.surface(x, y)[0] == block
        assert z == pytest.approx(0.04, abs=5e-4)
        carried = action.place @ np.linalg.inv(action.pick) @ insertion.pose(block)
        difference = carried - insertion.pose(fixture)
        np.testing.assert_allclose(difference[:2, 3], 0, atol=1e-4)
        np.testing.assert_allclose(difference[:3, :3], 0, atol=1e-3)
        assert 0.02 < difference[2, 3] < 0.03
        assert action.stamp_ns == insertion.time_ns


def test_oracle_picks_anywhere_on_the_visible_top(insertion: World) -> None:
    insertion.reset(2)
    (block,) = _bodies(insertion, "block")
    rng = np.random.default_rng(0)
    points = np.array([visible_point(insertion, block, rng) for _ in range(40)])
    local = (np.linalg.inv(insertion.pose(block)) @ np.c_[points, np.ones(len(points))].T).T
    assert np.ptp(local[:, 0]) > 0.06
    assert np.ptp(local[:, 1]) > 0.06
    # The corner that the L lacks is never picked.
    assert not ((local[:, 0] > 0.01) & (local[:, 1] > 0.01)).any()


def test_oracle_of_a_solved_scene_says_so(insertion: World) -> None:
    insertion.reset(0)
    (block,), (fixture,) = _bodies(insertion, "block"), _bodies(insertion, "fixture")
    insertion.put(block, insertion.pose(fixture))
    with pytest.raises(RunFailed, match="already sits in the fixture"):
        insertion.task.oracle(insertion, np.random.default_rng(0))


def test_placer_says_when_nothing_is_free(insertion: World) -> None:
    placer = Placer(insertion, np.random.default_rng(0))
    with pytest.raises(RunFailed, match="no free place for 'giant'"):
        placer.require("giant", 0.24)

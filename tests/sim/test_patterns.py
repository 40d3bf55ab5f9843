"""Blocks that differ in their pattern alone: alike to a coarse eye, and sorted, stacked and rejected by pattern."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from embodied_vision.geometry import deproject
from embodied_vision.types import RGBD
from embodied_vision_sim.tasks.patterns import EDGE_M, PATTERNS, texture
from embodied_vision_sim.tasks.poses import upright
from embodied_vision_sim.tasks.reject_worn import RejectWorn
from embodied_vision_sim.tasks.sort_striped import SortStriped
from embodied_vision_sim.tasks.stack_by_pattern import StackByPattern
from embodied_vision_sim.world import World
from tests.sim_scenes import assert_within_reach, bodies, shifted, solved_by_expert


def test_patterns_share_their_mean_and_nothing_else() -> None:
    pictures = [texture(pattern).astype(float) for pattern in PATTERNS]
    for picture in pictures:
        assert picture.mean() == pytest.approx(0.75 * 255, abs=0.5)
    for one, other in combinations(pictures, 2):
        assert np.abs(one - other).mean() > 30


def test_a_coarse_eye_sees_no_difference_and_a_fine_one_does() -> None:
    """The pictures of the blocks' tops, under `strong` randomisation as well: means alike, spreads apart."""
    with World("sort-striped", randomisation="strong") as world:
        for seed in range(3):
            world.reset(seed)
            (frame,), (ids,) = world.views(world.cameras)
            means: dict[str, list[float]] = {}
            spreads: dict[str, list[float]] = {}
            for body in bodies(world, ""):
                pattern = world.object_names[body].split()[0]
                if pattern in PATTERNS:
                    top = (ids == body) & (_heights(frame) > 0.028)
                    seen = frame.color[top].mean(1)
                    means.setdefault(pattern, []).append(float(seen.mean()))
                    spreads.setdefault(pattern, []).append(float(seen.std()))
            assert set(means) == {"striped", "plain", "dotted"}
            middle = np.mean([np.mean(values) for values in means.values()])
            for pattern, values in means.items():
                assert np.mean(values) == pytest.approx(middle, rel=0.05), pattern
            assert max(spreads["plain"]) < 0.3 * min(*spreads["striped"], *spreads["dotted"])


def _heights(frame: RGBD) -> np.ndarray:
    return np.asarray(deproject(frame.depth, frame.camera.K, frame.camera.T_base_camera)[..., 2])


def test_wrong_blocks_in_the_tray_cost_what_right_ones_earn() -> None:
    with World("sort-striped") as world:
        world.reset(4)
        assert isinstance(world.task, SortStriped)
        first, second = world.task._tray.places()
        striped, plain = bodies(world, "striped"), bodies(world, "plain")
        assert_within_reach(world, [*striped, *plain, *bodies(world, "tray")])
        assert world.score() == 0
        world.put(plain[0], first)
        assert world.score() == 0
        world.put(striped[0], second)
        assert world.score() == 0
        world.put(plain[0], upright((0.5, 0.45, 0.015)))
        assert world.score() == 0.5
        world.put(striped[1], shifted(first, 0.005, degrees=30))
        assert world.score() == 1


def test_worn_parts_are_one_or_two_of_four_and_nothing_else_counts() -> None:
    numbers = set()
    with World("reject-worn") as world:
        for seed in range(8):
            world.reset(seed)
            assert isinstance(world.task, RejectWorn)
            worn, good = bodies(world, "plain part"), bodies(world, "checked part")
            assert len(worn) + len(good) == 4
            numbers.add(len(worn))
            places = world.task._tray.places()
            for body, place in zip(worn, places, strict=False):
                world.put(body, place)
            assert world.score() == 1
            world.put(good[0], shifted(places[-1], dz=0.03))
            assert world.score() == 1 - 1 / len(worn)
    assert numbers == {1, 2}


def test_a_stack_counts_from_below_and_in_its_order_alone() -> None:
    with World("stack-by-pattern") as world:
        world.reset(2)
        assert isinstance(world.task, StackByPattern)
        goals = [world.task.goal(row) for row in range(3)]
        striped, dotted, plain = (bodies(world, name)[0] for name in ("striped", "dotted", "plain"))
        world.put(dotted, goals[0])
        world.put(striped, goals[1])
        assert world.score() == 0
        world.put(striped, shifted(goals[0], degrees=90))
        world.put(dotted, upright((0.5, 0.4, 0.015)))
        assert world.score() == pytest.approx(1 / 3)
        world.put(plain, goals[1])
        assert world.score() == pytest.approx(1 / 3)
        world.put(plain, goals[2])
        world.put(dotted, shifted(goals[1], 0.009))
        assert world.score() == 1
        world.put(dotted, shifted(goals[1], 0.011))
        assert world.score() == pytest.approx(1 / 3)
        assert np.linalg.norm(goals[2][:3, 3] - goals[0][:3, 3]) == pytest.approx(EDGE_M)


@pytest.mark.parametrize(("task", "actions"), [("stack-by-pattern", 3), ("reject-worn", 2)])
def test_the_expert_wastes_nothing(task: str, actions: int) -> None:
    with solved_by_expert(task, 0) as (world, rewards):
        assert world.score() == 1
        assert len(rewards) <= actions
        assert min(rewards) > 0

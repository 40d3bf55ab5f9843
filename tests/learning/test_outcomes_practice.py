"""Mistakes are what they are called, and a practised store goes on where it was."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embodied_vision import geometry, locks
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning import outcomes_practice
from embodied_vision.learning.outcomes_practice import (
    BESIDE_M,
    LIFTED_M,
    MISTAKES,
    NEAR_M,
    PRACTICE,
    TURNED_RAD,
    practise,
    spoil,
)
from tests.block_world import action, camera, frame

ACTION = action((0.4, 0.1), (0.5, -0.1), 1)


def test_mistakes_are_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert np.array_equal(spoil(ACTION, "none", rng).place, ACTION.place)
        for kind, (least, most) in (("near", NEAR_M), ("beside", BESIDE_M)):
            moved = spoil(ACTION, kind, rng)  # type: ignore[arg-type]
            far = np.linalg.norm((moved.place - ACTION.place)[:3, 3])
            assert least <= far <= most
            assert np.array_equal(moved.pick, ACTION.pick)
        turned = spoil(ACTION, "turned", rng)
        angle = abs(math.remainder(geometry.yaw_of(turned.place) - geometry.yaw_of(ACTION.place), 2 * math.pi))
        assert TURNED_RAD[0] - 1e-9 <= angle <= TURNED_RAD[1] + 1e-9
        assert np.allclose(turned.place[:3, 3], ACTION.place[:3, 3])
        missed = spoil(ACTION, "missed", rng)
        assert LIFTED_M[0] <= (missed.pick - ACTION.pick)[2, 3] <= LIFTED_M[1]
        assert np.array_equal(missed.place, ACTION.place)
    assert sum(MISTAKES.values()) == pytest.approx(1.0)


class World:
    """An environment that is done after two actions and pays for right ones."""

    robot_name, preset, renderer = "panda_suction", "none", "software"
    cameras = (camera(),)

    def __init__(self) -> None:
        self.stamp, self.count, self.total = 1, 0, 0.0
        self.closed = False
        self.unwrapped = self

    def reset(self, seed: int) -> None:
        if seed == 2:
            raise RunFailed("does not settle")
        self.count, self.total = 0, 0.0

    def frames(self) -> list[Any]:
        return [frame([(0.5, 0.0)], self.stamp)]

    def oracle(self) -> Any:
        return ACTION

    def step(self, poses: dict[str, Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        right = all(np.allclose(poses[name], geometry.pose_to_vector(getattr(ACTION, name))) for name in poses)
        self.stamp, self.count, self.total = self.stamp + 1, self.count + 1, self.total + 0.5 * right
        return (
            None,
            0.5 * right,
            self.total >= 1,
            self.count >= 2,
            {"reward_total": self.total, "solved": self.total >= 1},
        )

    def close(self) -> None:
        self.closed = True


def test_a_store_is_filled_and_what_a_killed_run_left_is_done_again(tmp_path: Path) -> None:
    store, world = EpisodeStore(tmp_path / "store"), World()
    conditions: Any = SimpleNamespace(make=lambda _: world)
    left = EpisodeWriter(
        store,
        task="t",
        robot="r",
        cameras=[camera()],
        policy_id=PRACTICE,
        attributes={"seed": 1},
        color_codec="lossless",
    )
    left.append_frame(frame([], 1))
    left.release()
    done = list(practise("t", store, 4, conditions=conditions))
    assert [each.seed for each in done] == [0, 1, 2, 3]
    assert done[2].episode_id is None
    assert world.closed
    assert store.staging_ids() == []
    for each in done:
        if each.episode_id is None:
            continue
        episode = store.open(each.episode_id)
        assert [episode.decisions.info(i)["mistake"] for i in range(len(episode.decisions))] == list(each.mistakes)
        assert episode.stream("reward")[1][:, 0].tolist() == list(each.earned)
        assert [good > 0 for good in each.earned] == [mistake == "none" for mistake in each.mistakes]
    again = list(practise("t", store, 4, conditions=conditions))
    assert [each.episode_id for each in again] == [each.episode_id for each in done]


def test_a_second_run_into_the_same_store_is_refused(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    conditions: Any = SimpleNamespace(make=lambda _: World())
    with locks.exclusive(tmp_path / "locks" / "t.practice", "busy"), pytest.raises(RunFailed, match="already"):
        next(practise("t", store, 1, conditions=conditions))
    with pytest.raises(BadInput, match="at least 1"):
        next(practise("t", store, 0, conditions=conditions))
    assert outcomes_practice.practised_seeds("t", EpisodeStore(tmp_path / "nowhere")) == {}

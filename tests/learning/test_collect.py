"""Demonstrations are complete, repeatable and never collected twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.geometry import pose_to_vector
from embodied_vision.learning.collect import ORACLE, Demonstrator, collect
from embodied_vision.learning.environments import env_id, make_env
from embodied_vision.learning.seeds import scene_seed

TASK = "block-insertion"


def test_collected_demonstrations_solve_their_scenes_again(tmp_path: Path) -> None:
    results = list(collect(TASK, tmp_path, 2, seed_offset=3))
    assert [result.seed for result in results] == [scene_seed("train", 3), scene_seed("train", 4)]
    store = EpisodeStore(tmp_path)
    assert store.ids() == sorted(str(result.episode_id) for result in results)
    for result in results:
        episode = store.open(str(result.episode_id))
        assert (episode.task, episode.robot, episode.policy_id) == (TASK, "panda_suction", ORACLE)
        assert episode.attributes["seed"] == result.seed
        assert episode.outcome["solved"]
        assert episode.outcome["reward"] > 0.99
        env = make_env(TASK)
        env.reset(seed=result.seed)
        for decision in episode.decisions:
            (logged,), (seen,) = decision.frames, env.unwrapped.frames()
            np.testing.assert_array_equal(logged.color, seen.color)
            np.testing.assert_array_equal(logged.depth, seen.depth)
            assert logged.stamp_ns == seen.stamp_ns == decision.action.stamp_ns
            action = decision.action
            env.step({"pick": pose_to_vector(action.pick), "place": pose_to_vector(action.place)})
        np.testing.assert_array_equal(episode.frames("camera")[-1].color, env.unwrapped.frames()[0].color)
        stamps, states = episode.stream("joint_state")
        assert states.shape == (len(episode.decisions) + 1, 21)
        np.testing.assert_array_equal(stamps, episode.frames("camera").stamps_ns)
        assert episode.stream("reward")[1].sum() == pytest.approx(episode.outcome["reward"])
        env.close()


def test_collecting_goes_on_where_it_stopped(tmp_path: Path) -> None:
    (first,) = collect(TASK, tmp_path, 1)
    again = list(collect(TASK, tmp_path, 2))
    assert [result.seed for result in again] == [scene_seed("train", 0), scene_seed("train", 1)]
    assert again[0].episode_id == first.episode_id
    assert again[0].steps == 0
    assert len(EpisodeStore(tmp_path).ids()) == 2


def test_workers_use_the_same_scenes(tmp_path: Path) -> None:
    results = list(collect(TASK, tmp_path, 2, workers=2))
    assert {result.seed for result in results} == {scene_seed("train", 0), scene_seed("train", 1)}
    assert len(EpisodeStore(tmp_path).ids()) == 2


def test_a_failed_scene_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embodied_vision.learning.collect.SUFFICIENT", 2.0)
    job = Demonstrator(TASK, tmp_path)
    result = job(0)
    job.close()
    assert result.episode_id is None
    assert "total reward 1.00 after 1 actions" in result.reason
    store = EpisodeStore(tmp_path)
    assert store.ids() == store.staging_ids() == []


def test_unknown_task_and_impossible_counts_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'juggling' has no environment embodied_vision/Juggling-v0; registered are"):
        make_env("juggling")
    with pytest.raises(BadInput, match="0 episodes with 1 workers"):
        next(collect(TASK, tmp_path, 0))
    assert env_id("place-red-in-green") == "embodied_vision/PlaceRedInGreen-v0"

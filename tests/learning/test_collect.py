"""Demonstrations are complete, repeatable and never collected twice."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import BadInput, EpisodeError, RunFailed
from embodied_vision.geometry import pose_to_vector
from embodied_vision.learning.collect import ORACLE, Demonstrator, collect
from embodied_vision.learning.environments import Conditions, env_id, make_env
from embodied_vision.learning.seeds import scene_seed

TASK = "block-insertion"
SOFTWARE = Conditions(renderer="software")


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


@pytest.mark.parametrize("task", ["block-insertion", "manipulating-rope", "palletizing-boxes"])
def test_an_environment_that_is_used_again_gives_the_same_bits(task: str) -> None:
    fresh, used = SOFTWARE.make(task), SOFTWARE.make(task)
    used.reset(seed=3)
    used.step(_expert(used))
    for env in (fresh, used):
        env.reset(seed=4)
    first = [(env.unwrapped.frames()[0], _expert(env)) for env in (fresh, used)]
    after = [env.step(action)[0] for env, (_, action) in zip((fresh, used), first, strict=True)]
    np.testing.assert_array_equal(first[0][0].color, first[1][0].color)
    np.testing.assert_array_equal(first[0][1]["pick"], first[1][1]["pick"])
    for name in ("color", "depth"):
        np.testing.assert_array_equal(after[0]["camera"][name], after[1]["camera"][name])
    np.testing.assert_array_equal(after[0]["joint_positions"], after[1]["joint_positions"])
    fresh.close()
    used.close()


def _expert(env: Any) -> dict[str, np.ndarray]:
    decision = env.unwrapped.oracle()
    return {"pick": pose_to_vector(decision.pick), "place": pose_to_vector(decision.place)}


def test_a_second_collection_of_the_same_task_is_refused(tmp_path: Path) -> None:
    first = collect(TASK, tmp_path, 2, conditions=SOFTWARE)
    next(first)
    refusal = f"already being collected .*lock {tmp_path}/locks.* held by process {os.getpid()}"
    with pytest.raises(RunFailed, match=refusal):
        next(collect(TASK, tmp_path, 2, conditions=SOFTWARE))
    first.close()
    assert len(list(collect(TASK, tmp_path, 1, conditions=SOFTWARE))) == 1


def test_workers_of_a_killed_collection_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embodied_vision.learning.collect.ORPHANS_S", 0.1)
    orphan = Demonstrator(TASK, tmp_path, SOFTWARE)
    with pytest.raises(RunFailed, match=r"workers of a killed collection of 'block-insertion' .* still run"):
        next(collect(TASK, tmp_path, 1))
    orphan.close()
    assert next(collect(TASK, tmp_path, 1, conditions=SOFTWARE)).episode_id


def test_a_killed_worker_costs_no_scene(tmp_path: Path) -> None:
    results = collect(TASK, tmp_path, 4, conditions=SOFTWARE, workers=2)
    seeds = [next(results).seed]
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    seeds += [result.seed for result in results]
    assert sorted(seeds) == [scene_seed("train", index) for index in range(4)]
    store = EpisodeStore(tmp_path)
    assert sorted(episode.attributes["seed"] for episode in store.select(TASK)) == sorted(seeds)
    assert store.staging_ids() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_named_and_the_store_stays_whole(tmp_path: Path, workers: int) -> None:
    (first,) = collect(TASK, tmp_path, 1, conditions=SOFTWARE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(EpisodeError, match="free space or fix the disk"):
            list(collect(TASK, tmp_path, 3, conditions=SOFTWARE, workers=workers))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store = EpisodeStore(tmp_path)
    assert (store.ids(), store.staging_ids()) == ([first.episode_id], [])
    assert len(list(collect(TASK, tmp_path, 2, conditions=SOFTWARE))) == 2


PROGRAM = """
import typer
from embodied_vision.cli.collect import command
typer.run(command)
"""


def _run_until(number: int, tmp_path: Path, condition: Callable[[], bool]) -> subprocess.CompletedProcess[str]:
    """Collect three demonstrations with two workers, and send the program a signal when a condition holds."""
    command = [sys.executable, "-c", PROGRAM, "--task", TASK, "--renderer", "software", "--output", str(tmp_path)]
    command += ["--episodes", "3", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        end = time.monotonic() + 60
        while process.poll() is None and not condition():
            assert time.monotonic() < end
            time.sleep(0.002)
        process.send_signal(number)
        text, _ = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, text)


@pytest.mark.parametrize("closed", [0, 1])
def test_a_collection_that_is_killed_goes_on_and_nothing_is_lost_or_doubled(tmp_path: Path, closed: int) -> None:
    """Killed while the first scenes are written, or as soon as the first of them appears in the store."""
    store = EpisodeStore(tmp_path)
    killed = _run_until(signal.SIGKILL, tmp_path, lambda: len(store.ids() if closed else store.staging_ids()) > 0)
    assert killed.returncode == -signal.SIGKILL
    before = store.ids()
    seeds = [result.seed for result in collect(TASK, tmp_path, 3, conditions=SOFTWARE)]
    assert sorted(seeds) == [scene_seed("train", index) for index in range(3)]
    assert sorted(episode.attributes["seed"] for episode in store.select(TASK)) == sorted(seeds)
    assert set(before) <= set(store.ids())
    assert store.staging_ids() == []
    assert all(report.ok for report in verify(store))


def test_control_c_ends_a_collection_in_order(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    stopped = _run_until(signal.SIGINT, tmp_path, lambda: len(store.staging_ids()) > 0)
    assert stopped.returncode == 130
    assert "run the same command again to go on" in stopped.stdout
    assert "Traceback" not in stopped.stdout
    assert store.staging_ids() == []

"""Demonstrations: an oracle solves training scenes, and the episode store keeps what it saw and did."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.geometry import pose_to_vector
from embodied_vision.learning.environments import env_id, make_env
from embodied_vision.learning.seeds import scene_seed

ORACLE = "oracle"
"""Policy id under which demonstrations are stored."""
SUFFICIENT = 0.99
"""Total reward that makes a run a demonstration."""
FAILURES_PER_EPISODE = 1
"""A collection is given up when more scenes fail than this times the episodes asked for, and ten."""


@dataclass(frozen=True)
class Demonstration:
    """What became of one scene.

    Attributes:
        seed: of the scene.
        episode_id: where it is stored, None when the oracle failed.
        reward: total reward.
        steps: actions taken.
        reason: why it failed, empty when it did not.
    """

    seed: int
    episode_id: str | None
    reward: float
    steps: int
    reason: str = ""


def demonstrate(task: str, store_path: Path, seed: int) -> Demonstration:
    """Let the oracle solve the scene of `seed`, and store the episode when it does.

    Decisions are kept with their frames, losslessly; `joint_state` holds positions, velocities and efforts,
    `reward` what each action earned. Scenes that the oracle fails leave nothing behind.
    """
    env = make_env(task)
    try:
        return _run(env, task, EpisodeStore(store_path), seed)
    finally:
        env.close()


def _run(env: Any, task: str, store: EpisodeStore, seed: int) -> Demonstration:
    cell = env.unwrapped
    try:
        env.reset(seed=seed)
    except RunFailed as error:
        return Demonstration(seed, None, 0.0, 0, str(error))
    writer = EpisodeWriter(
        store,
        task=task,
        robot=cell.robot_name,
        cameras=cell.cameras,
        policy_id=ORACLE,
        attributes={"seed": seed, "source": ORACLE, "env": env_id(task)},
        color_codec="lossless",
    )
    steps, total, reason, over = 0, 0.0, "", False
    try:
        _log_state(writer, cell)
        while not over:
            decision = cell.oracle()
            writer.append_decision(decision, cell.frames())
            action = {"pick": pose_to_vector(decision.pick), "place": pose_to_vector(decision.place)}
            _, reward, terminated, truncated, info = env.step(action)
            steps, over = steps + 1, terminated or truncated
            total = float(info["reward_total"])
            _log_state(writer, cell)
            writer.append("reward", cell.frames()[0].stamp_ns, [float(reward)])
            if "refused" in info:
                reason = f"the guard refused: {info['refused']}"
        if total > SUFFICIENT:
            return Demonstration(seed, writer.close({"reward": total, "solved": True}), total, steps)
        reason = reason or f"total reward {total:.2f} after {steps} actions"
    except RunFailed as error:
        reason = str(error)
    except BaseException:
        writer.discard()
        raise
    writer.discard()
    return Demonstration(seed, None, total, steps, reason)


def _log_state(writer: EpisodeWriter, cell: Any) -> None:
    for frame in cell.frames():
        writer.append_frame(frame)
    writer.append("joint_state", cell.frames()[0].stamp_ns, np.concatenate(cell.joint_state()))


def stored_seeds(task: str, store: EpisodeStore) -> dict[int, str]:
    """Scene seeds of the demonstrations of a task that a store holds, with their episode ids."""
    episodes = store.select(task, policy_id=ORACLE) if store.exists() else iter(())
    return {int(episode.attributes["seed"]): episode.id for episode in episodes}


def collect(
    task: str, store_path: Path, episodes: int, *, seed_offset: int = 0, workers: int = 1
) -> Iterator[Demonstration]:
    """Fill a store up to `episodes` demonstrations of the training scenes from number `seed_offset` on.

    Scenes that the store already holds count and are not run again, so an interrupted collection goes on where
    it stopped. Which scenes are used does not depend on the number of workers.

    Args:
        task: name of the task.
        store_path: folder of the episode store.
        episodes: how many demonstrations the store shall hold of those scenes.
        seed_offset: number of the first training scene.
        workers: processes to run at once.

    Yields:
        What became of every scene, in the order in which they are finished.

    Raises:
        BadInput: unusable arguments.
        RunFailed: too many scenes failed.
    """
    if episodes < 1 or workers < 1:
        raise BadInput(f"{episodes} episodes with {workers} workers; give at least 1 of each")
    known = stored_seeds(task, EpisodeStore(store_path))
    index, done, failed = seed_offset, 0, 0
    running: set[Future[Demonstration]] = set()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers > 1 else None
    try:
        while done < episodes:
            # Each scene that runs gives at most one episode: never more of them than are still missing.
            while done + len(running) < episodes and len(running) < workers:
                seed = scene_seed("train", index)
                index += 1
                if seed in known:
                    done += 1
                    yield Demonstration(seed, known[seed], 1.0, 0)
                elif pool is None:
                    running.add(_finished(demonstrate(task, store_path, seed)))
                else:
                    running.add(pool.submit(demonstrate, task, store_path, seed))
            finished, running = wait(running, return_when=FIRST_COMPLETED) if running else (set(), set())
            for future in finished:
                result = future.result()
                done += result.episode_id is not None
                failed += result.episode_id is None
                yield result
                if failed > FAILURES_PER_EPISODE * episodes + 10:
                    raise RunFailed(
                        f"{failed} scenes of {task!r} failed, the last one, seed {result.seed}: {result.reason}; "
                        "is the workspace within the arm's reach?"
                    )
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _finished(result: Demonstration) -> Future[Demonstration]:
    future: Future[Demonstration] = Future()
    future.set_result(result)
    return future

"""Demonstrations: an oracle solves training scenes, and the episode store keeps what it saw and did."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embodied_vision import locks
from embodied_vision.episodes.leftovers import clear
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.geometry import pose_to_vector
from embodied_vision.learning.environments import FIRST_RENDERER, USUAL, Conditions, env_id
from embodied_vision.learning.processes import Processes
from embodied_vision.learning.ray_workers import RayWorkers
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.learning.workers import Here, Pool, Workers

ORACLE = "oracle"
"""Policy id under which demonstrations are stored."""
SUFFICIENT = 0.99
"""Total reward that makes a run a demonstration."""
FAILURES_PER_EPISODE = 1
"""A collection is given up when more scenes fail than this times the episodes asked for, and ten."""
ORPHANS_S = 30.0
"""How long the workers of a killed collection may take to notice."""


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


class Demonstrator:
    """Lets the oracle solve scenes of a task, all in one environment, and stores the episodes of those it solves.

    Decisions are kept with their frames, losslessly; `joint_state` holds positions, velocities and efforts,
    `reward` what each action earned. Scenes that the oracle fails leave nothing behind.

    Args:
        task: name of the task.
        store_path: folder of the episode store.
        conditions: under which the scenes are run.
    """

    def __init__(self, task: str, store_path: Path, conditions: Conditions = USUAL) -> None:
        self._task = task
        self._store = EpisodeStore(store_path)
        self._env = conditions.make(task)
        self._presence = ExitStack()
        self._presence.enter_context(locks.shared(_lock(self._store, task, "workers")))

    def __call__(self, seed: int) -> Demonstration:
        """Run the scene of `seed`."""
        return _run(self._env, self._task, self._store, seed)

    def close(self) -> None:
        """Free the environment."""
        self._env.close()
        self._presence.close()


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
        attributes={
            "seed": seed,
            "source": ORACLE,
            "env": env_id(task),
            "preset": cell.preset,
            "renderer": cell.renderer,
        },
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


def stored_seeds(task: str, store: EpisodeStore, preset: str = "none") -> dict[int, str]:
    """Scene seeds of the demonstrations of a task and a preset that a store holds, with their episode ids."""
    return {
        int(episode.attributes["seed"]): episode.id
        for episode in _demonstrations(task, store)
        if episode.attributes.get("preset", "none") == preset
    }


def _demonstrations(task: str, store: EpisodeStore) -> Iterator[Episode]:
    wanted = store.select(task, {"solved": True}, policy_id=ORACLE) if store.exists() else iter(())
    return (episode for episode in wanted if "seed" in episode.attributes)


def _of_one_renderer(task: str, store: EpisodeStore, conditions: Conditions) -> Conditions:
    """The conditions with the renderer of what the store already holds, where any will do.

    Raises:
        BadInput: another one is asked for.
    """
    there = {str(e.attributes.get("renderer", FIRST_RENDERER)) for e in _demonstrations(task, store)}
    if not there or there == {conditions.renderer}:
        return conditions
    if conditions.renderer != "auto" or len(there) > 1:
        raise BadInput(
            f"{store.path} holds demonstrations of {task!r} drawn by {' and '.join(sorted(there))}, asked for "
            f"{conditions.renderer}; a policy learns one renderer's pictures: name another store or renderer"
        )
    return replace(conditions, renderer=there.pop())


def collect(
    task: str,
    store_path: Path,
    episodes: int,
    *,
    conditions: Conditions = USUAL,
    seed_offset: int = 0,
    workers: int = 1,
    ray: str | None = None,
) -> Generator[Demonstration]:
    """Fill a store up to `episodes` demonstrations of the training scenes from number `seed_offset` on.

    Scenes that the store already holds count and are not run again, so an interrupted collection goes on where
    it stopped, also after a `kill -9`. Which scenes are used does not depend on the number of workers, nor on where
    they run. A second collection of the same task into the same store is refused while the first one runs.

    Args:
        task: name of the task.
        store_path: folder of the episode store; with `ray`, on storage that all nodes share.
        episodes: how many demonstrations the store shall hold of those scenes under these conditions.
        conditions: preset of the randomisation, and renderer; `auto` is the one of what the store holds, if anything.
        seed_offset: number of the first training scene.
        workers: how many scenes to run at once, each in a process of its own when there are more than one.
        ray: address of the Ray cluster to run on, `local` for one on this machine.

    Yields:
        What became of every scene, in the order in which they are finished.

    Raises:
        BadInput: unusable arguments, or another renderer than that of the demonstrations in the store.
        EpisodeError: the store cannot be written; what it holds is kept.
        RunFailed: too many scenes failed, or workers get lost, or another collection is at work.
    """
    if episodes < 1 or workers < 1:
        raise BadInput(f"{episodes} episodes with {workers} workers; give at least 1 of each")
    store = EpisodeStore(store_path.absolute())
    with _alone(task, store):
        conditions = _of_one_renderer(task, store, conditions)
        with _workers(task, store, conditions, workers, ray) as running:
            yield from _fill(task, store, conditions, running, episodes, seed_offset)


def _fill(
    task: str,
    store: EpisodeStore,
    conditions: Conditions,
    workers: Workers[int, Demonstration],
    episodes: int,
    seed_offset: int,
) -> Iterator[Demonstration]:
    known = stored_seeds(task, store, conditions.preset)
    index, done, failed = seed_offset, 0, 0
    while done < episodes:
        seeds: list[int] = []  # each gives at most one episode: never more of them than are still missing
        while done + len(seeds) < episodes:
            seed = scene_seed("train", index)
            index += 1
            if seed in known:
                done += 1
                yield Demonstration(seed, known[seed], 1.0, 0)
            else:
                seeds.append(seed)
        for result in workers.run(seeds):
            done += result.episode_id is not None
            failed += result.episode_id is None
            yield result
            if failed > FAILURES_PER_EPISODE * episodes + 10:
                raise RunFailed(
                    f"{failed} scenes of {task!r} failed, the last one, seed {result.seed}: {result.reason}; "
                    "is the workspace within the arm's reach?"
                )


def _workers(
    task: str, store: EpisodeStore, conditions: Conditions, count: int, ray: str | None
) -> Workers[int, Demonstration]:
    make = partial(Demonstrator, task, store.path, conditions)
    if count == 1 and ray is None:
        return Here(make)
    backend = Processes(make) if ray is None else RayWorkers(make, ray, count, store.path)
    return Pool(backend, count, partial(_settle, task, store, conditions.preset))


def _settle(task: str, store: EpisodeStore, preset: str, seed: int) -> Demonstration | None:
    """What a lost worker left of the scene that it had: a demonstration, or nothing."""
    _clear(task, store)
    episode_id = stored_seeds(task, store, preset).get(seed)
    if episode_id is None:
        return None
    episode = store.open(episode_id)
    return Demonstration(seed, episode_id, float(episode.outcome["reward"]), len(episode.decisions))


@contextmanager
def _alone(task: str, store: EpisodeStore) -> Iterator[None]:
    """Keep other collections out, wait for what is left of a killed one, and tidy up after it and after us."""
    busy = f"{task!r} is already being collected into {store.path}: wait until that ends, or name another store"
    orphans = f"workers of a killed collection of {task!r} into {store.path} still run: end them"
    with locks.exclusive(_lock(store, task, "collection"), busy):
        locks.wait_for_shared(_lock(store, task, "workers"), ORPHANS_S, orphans)
        _clear(task, store)
        try:
            yield
        finally:
            _clear(task, store)


def _clear(task: str, store: EpisodeStore) -> None:
    clear(store, lambda head: head["task"] == task and head["policy_id"] == ORACLE and "seed" in head["attributes"])


def _lock(store: EpisodeStore, task: str, whose: str) -> Path:
    return store.path / "locks" / f"{task}.{whose}"

"""Episodes with mistakes: the oracle's actions, some of them spoilt, and what each of them earned.

Demonstrations hold successes alone, and a judge of outcomes must have seen failures: objects left where they were, put
beside their place, turned too far, and by how little an action may be off to be still right. What is right is said by
the simulator and not by what was done to the action.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from embodied_vision import geometry, locks
from embodied_vision.episodes.leftovers import clear
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning.environments import Conditions, env_id
from embodied_vision.learning.seeds import Split, scene_seed
from embodied_vision.types import PickPlace

PRACTICE = "practice"
"""Policy id under which these episodes are stored."""
Mistake = Literal["none", "near", "beside", "turned", "missed"]
MISTAKES: dict[Mistake, float] = {"none": 0.4, "near": 0.15, "beside": 0.15, "turned": 0.15, "missed": 0.15}
"""How often each is made."""
_KINDS = tuple(MISTAKES)
NEAR_M, BESIDE_M = (0.003, 0.015), (0.02, 0.1)
"""Least and largest offset of the place, m."""
TURNED_RAD = (0.17, math.pi)
LIFTED_M = (0.02, 0.06)
"""So far above the object the tool closes on nothing."""
_STREAM = 0x0C0


@dataclass(frozen=True)
class Practised:
    """What became of one scene.

    Attributes:
        seed: of the scene.
        episode_id: where it is stored, None where the simulator could not run the scene.
        earned: what each action earned.
        mistakes: what was done to each.
    """

    seed: int
    episode_id: str | None
    earned: tuple[float, ...] = ()
    mistakes: tuple[Mistake, ...] = ()


def spoil(action: PickPlace, mistake: Mistake, rng: np.random.Generator) -> PickPlace:
    """The action with a mistake in it.

    Args:
        action: a right one.
        mistake: `none` leaves it as it is; `near` and `beside` put the object so far off as `NEAR_M` and `BESIDE_M`
            say; `turned` turns it by `TURNED_RAD` more; `missed` picks `LIFTED_M` above it.
        rng: how far and which way.
    """
    pick, place = np.array(action.pick, float), np.array(action.place, float)
    if mistake in ("near", "beside"):
        bearing = rng.uniform(-math.pi, math.pi)
        far = rng.uniform(*(NEAR_M if mistake == "near" else BESIDE_M))
        place[:2, 3] += far * np.array([math.cos(bearing), math.sin(bearing)])
    elif mistake == "turned":
        angle = rng.uniform(*TURNED_RAD) * rng.choice([-1.0, 1.0])
        c, s = math.cos(angle), math.sin(angle)
        place[:3, :3] = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ place[:3, :3]
    elif mistake == "missed":
        pick[2, 3] += rng.uniform(*LIFTED_M)
    return replace(action, pick=pick, place=place)


def practise(
    task: str,
    store: EpisodeStore,
    episodes: int,
    *,
    split: Split = "train",
    seed_offset: int = 0,
    conditions: Conditions,
) -> Iterator[Practised]:
    """Fill a store up to `episodes` episodes with mistakes, of the scenes of a split from number `seed_offset` on.

    Scenes that the store holds already are not run again, so that it goes on where it was stopped, also after a
    `kill -9`. Which mistakes are made depends on the scene alone.

    Raises:
        BadInput: fewer than one episode, or no such task.
        EpisodeError: the store cannot be written.
        RunFailed: another process does the same at the moment.
    """
    if episodes < 1:
        raise BadInput(f"{episodes} episodes; ask for at least 1")
    busy = f"{task!r} is already being practised into {store.path}: wait until that ends, or name another store"
    with ExitStack() as held:
        held.enter_context(locks.exclusive(store.path / "locks" / f"{task}.practice", busy))
        clear(store, lambda head: head["task"] == task and head["policy_id"] == PRACTICE)
        known = practised_seeds(task, store)
        env: Any = None
        for index in range(episodes):
            seed = scene_seed(split, seed_offset + index)
            if seed in known:
                yield Practised(seed, known[seed])
                continue
            if env is None:
                env = held.enter_context(closing(conditions.make(task)))
            yield _scene(env, task, store, seed)


def practised_seeds(task: str, store: EpisodeStore) -> dict[int, str]:
    """Scene seeds of a task that were practised in a store, with their episode ids."""
    if not store.exists():
        return {}
    return {int(e.attributes["seed"]): e.id for e in store.select(task, policy_id=PRACTICE) if "seed" in e.attributes}


def _scene(env: Any, task: str, store: EpisodeStore, seed: int) -> Practised:
    cell, rng = env.unwrapped, np.random.default_rng([_STREAM, seed])
    try:
        env.reset(seed=seed)
    except RunFailed:
        return Practised(seed, None)
    about = {"seed": seed, "source": PRACTICE, "env": env_id(task), "preset": cell.preset, "renderer": cell.renderer}
    writer = EpisodeWriter(
        store,
        task=task,
        robot=cell.robot_name,
        cameras=cell.cameras,
        policy_id=PRACTICE,
        attributes=about,
        color_codec="lossless",
    )
    earned: list[float] = []
    mistakes: list[Mistake] = []
    info: dict[str, Any] = {"reward_total": 0.0, "solved": False}
    try:
        over = False
        while not over:
            try:
                right = cell.oracle()
            except RunFailed:
                break  # what is left to do cannot be seen any more
            mistake = _KINDS[int(rng.choice(len(_KINDS), p=list(MISTAKES.values())))]
            action = spoil(right, mistake, rng)
            writer.append_decision(action, cell.frames(), {"mistake": mistake})
            poses = {"pick": geometry.pose_to_vector(action.pick), "place": geometry.pose_to_vector(action.place)}
            _, reward, terminated, truncated, info = env.step(poses)
            over = terminated or truncated
            mistakes.append(mistake)
            earned.append(float(reward))
            for frame in cell.frames():
                writer.append_frame(frame)
            writer.append("reward", cell.frames()[0].stamp_ns, [float(reward)])
        outcome = {"reward": float(info["reward_total"]), "solved": bool(info["solved"]), "practice": True}
        return Practised(seed, writer.close(outcome), tuple(earned), tuple(mistakes))
    except RunFailed:
        writer.discard()
        return Practised(seed, None)
    except BaseException:
        writer.discard()
        raise

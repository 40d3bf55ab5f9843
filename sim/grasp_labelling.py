"""Labelled grasps for training: candidates in scenes of diverse objects, each tried in simulation.

An episode of the store holds one scene: its frame, and for each grasp a decision (primitive `grasp`, what the
sampler knew of it under `info`), with its success in `info` and, in the same order, in the stream `reward`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.leftovers import clear
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.learning.processes import Processes
from embodied_vision.learning.seeds import Split, scene_seed
from embodied_vision.learning.workers import Here, Pool, Workers
from embodied_vision_sim.diverse import IN_BIN, DiverseBin, objects_of
from embodied_vision_sim.grasp_candidates import Candidate, candidates, near, random_grasps
from embodied_vision_sim.grasping import GraspDiverseEnv, grasp_of

SAMPLER = "grasp-sampler"
"""Policy id under which labelled grasps are stored."""


@dataclass(frozen=True)
class Labelled:
    """What became of one scene.

    Attributes:
        seed: of the scene.
        episode_id: where it is stored, None when it could not be built.
        grasps, succeeded: how many were tried and how many lifted an object; 0 for a scene that was there already.
        reason: why it failed, empty when it did not.
    """

    seed: int
    episode_id: str | None
    grasps: int = 0
    succeeded: int = 0
    reason: str = ""


class Labeller:
    """Tries grasps in scenes and stores them, an episode a scene.

    A third of the grasps are antipodal by geometry, of any quality, a third lie beside such a grasp, and the others
    close at random on an object. Every one starts from the same state of its scene.

    Args:
        store_path: folder of the episode store.
        grasps: tried in each scene.
        image_size: rows and columns of the images, px.
        in_bin: objects in the bin.
    """

    def __init__(self, store_path: Path, grasps: int, image_size: int, in_bin: int) -> None:
        self._store = EpisodeStore(store_path)
        self._grasps = grasps
        self._env = GraspDiverseEnv(image_size=image_size, in_bin=in_bin)

    def __call__(self, seed: int) -> Labelled:
        """Label the scene of `seed`."""
        env = self._env
        try:
            env.reset(seed=seed)
        except EmbodiedVisionError as error:
            return Labelled(seed, None, reason=str(error))
        task = env.world.task
        assert isinstance(task, DiverseBin)
        rng = np.random.default_rng([seed, self._grasps])
        chosen = self._choose(rng)
        (frame,) = env.frames()
        writer = EpisodeWriter(
            self._store,
            task=env.task_name,
            robot=env.robot_name,
            cameras=env.cameras,
            policy_id=SAMPLER,
            attributes={
                "seed": seed,
                "source": SAMPLER,
                "objects": objects_of(seed),
                "numbers": sorted(task.numbers.values()),
                "renderer": env.world.renderer,
            },
            color_codec="lossless",
        )
        succeeded = 0
        try:
            writer.append_frame(frame)
            writer.append("joint_state", frame.stamp_ns, np.concatenate(env.joint_state()))
            for number, (kind, candidate) in enumerate(chosen):
                if number:
                    env.reset(seed=seed)
                action = env.action_at(*grasp_of(np.asarray(candidate.pose, np.float64)))
                decision = env.decision(action)
                reward, info = self._try(action)
                succeeded += int(reward)
                label = {
                    "kind": kind,
                    "object": task.numbers[candidate.body],
                    "width_m": candidate.width_m,
                    "quality": candidate.quality,
                    "success": reward > 0,
                    **info,
                }
                writer.append_decision(decision, [frame], label)
                writer.append("reward", frame.stamp_ns, [reward])
            outcome = {"reward": succeeded / max(len(chosen), 1), "grasps": len(chosen), "succeeded": succeeded}
            return Labelled(seed, writer.close(outcome), len(chosen), succeeded)
        except BaseException:
            writer.discard()
            raise

    def _choose(self, rng: np.random.Generator) -> list[tuple[str, Candidate]]:
        world = self._env.world
        antipodal = candidates(world, rng)
        picked = [antipodal[index] for index in rng.permutation(len(antipodal))[: self._grasps // 3]]
        chosen = [("antipodal", grasp) for grasp in picked] + [("near", near(grasp, rng)) for grasp in picked]
        return chosen + [("random", grasp) for grasp in random_grasps(world, rng, self._grasps - len(chosen))]

    def _try(self, action: NDArray[np.float64]) -> tuple[float, dict[str, str]]:
        _, reward, _, _, info = self._env.step(action)
        return float(reward), {key: info[key] for key in ("refused", "failed") if key in info}

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


def labelled_seeds(store: EpisodeStore) -> dict[int, str]:
    """Seeds of the scenes that a store holds labelled grasps of, with their episode ids."""
    found = store.select(GraspDiverseEnv.task_name, policy_id=SAMPLER) if store.exists() else iter(())
    return {int(episode.attributes["seed"]): episode.id for episode in found}


def label(
    store_path: Path,
    scenes: int,
    *,
    grasps: int = 8,
    split: Split = "train",
    seed_offset: int = 0,
    image_size: int = 128,
    in_bin: int = IN_BIN,
    workers: int = 1,
) -> Iterator[Labelled]:
    """Label the scenes number `seed_offset` … `seed_offset + scenes − 1` of a split.

    Scenes that the store already holds are not run again, so an interrupted run goes on where it stopped. What is
    stored does not depend on the number of workers.

    Args:
        store_path: folder of the episode store.
        scenes: how many.
        grasps: tried in each scene.
        split: of the scenes; test scenes show held-out objects.
        seed_offset: number of the first scene.
        image_size: rows and columns of the images, px.
        in_bin: objects in the bin.
        workers: how many scenes to run at once, each in a process of its own when there are more than one.

    Yields:
        What became of every scene, in the order in which they are finished.

    Raises:
        BadInput: unusable arguments.
        EpisodeError: the store cannot be written.
    """
    if scenes < 1 or grasps < 1 or workers < 1:
        raise BadInput(f"{scenes} scenes of {grasps} grasps with {workers} workers; give at least 1 of each")
    store = EpisodeStore(store_path.absolute())
    clear(store, lambda head: head["policy_id"] == SAMPLER)
    known = labelled_seeds(store)
    seeds = [scene_seed(split, seed_offset + index) for index in range(scenes)]
    yield from (Labelled(seed, known[seed]) for seed in seeds if seed in known)
    make = partial(Labeller, store.path, grasps, image_size, in_bin)
    pool: Workers[int, Labelled] = Here(make) if workers == 1 else Pool(Processes(make), workers)
    with pool:
        yield from pool.run(seed for seed in seeds if seed not in known)

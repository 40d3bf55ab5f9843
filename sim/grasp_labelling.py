"""Labelled grasps for training: candidates in scenes of diverse objects, each tried in simulation.

An episode of the store holds one scene: its frame, and for each grasp a decision (primitive `grasp`, what the
sampler knew of it under `info`), with its success in `info` and, in the same order, in the stream `reward`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.leftovers import clear
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.learning.processes import Processes
from embodied_vision.learning.seeds import Split, scene_seed
from embodied_vision.learning.workers import Here, Pool, Workers
from embodied_vision.policies.grasp_policy import GraspPolicy
from embodied_vision.types import RGBD, FloatArray
from embodied_vision_sim.aside import aside
from embodied_vision_sim.diverse import IN_BIN, DiverseBin, objects_of
from embodied_vision_sim.grasp_candidates import candidates, near, random_grasps
from embodied_vision_sim.grasping import GraspDiverseEnv, grasp_of
from embodied_vision_sim.world import World

SAMPLER = "grasp-sampler"
"""Policy id under which labelled grasps are stored."""
Attempt = tuple[str, FloatArray, dict[str, Any]]
"""Kind of a grasp, tip pose (4, 4), and what is known of it."""


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


def sampled(world: World, rng: np.random.Generator, count: int) -> list[Attempt]:
    """Grasps to try: a third antipodal by geometry, of any quality, a third beside those, the others at random."""
    antipodal = candidates(world, rng)
    picked = [antipodal[index] for index in rng.permutation(len(antipodal))[: count // 3]]
    chosen = [("antipodal", grasp) for grasp in picked] + [("near", near(grasp, rng)) for grasp in picked]
    chosen += [("random", grasp) for grasp in random_grasps(world, rng, count - len(chosen))]
    task = world.task
    assert isinstance(task, DiverseBin)
    return [
        (kind, grasp.pose, {"object": task.numbers[grasp.body], "width_m": grasp.width_m, "quality": grasp.quality})
        for kind, grasp in chosen
    ]


class Labeller:
    """Tries grasps in scenes and stores them, an episode a scene.

    The grasps are `sampled`, or proposed by a policy that learnt from such grasps: what it wrongly believes in teaches
    it most. Every one starts from the same state of its scene.

    Args:
        store_path: folder of the episode store.
        grasps: tried in each scene.
        image_size: rows and columns of the images, px.
        in_bin: objects in the bin.
        policy: folder of the grasp policy that proposes, None for none; it reads no encoder's features.

    Raises:
        CheckpointError: the policy cannot be read, or needs an encoder.
    """

    def __init__(self, store_path: Path, grasps: int, image_size: int, in_bin: int, policy: Path | None) -> None:
        self._policy = None if policy is None else GraspPolicy.load(policy, None)
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
        (frame,) = env.frames()
        chosen = sampled(env.world, rng, self._grasps) if self._policy is None else self._proposed(frame, rng)
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
                "proposed_by": SAMPLER if self._policy is None else self._policy.checkpoint_id,
            },
            color_codec="lossless",
        )
        succeeded = 0
        try:
            writer.append_frame(frame)
            writer.append("joint_state", frame.stamp_ns, np.concatenate(env.joint_state()))
            for kind, pose, known in chosen:
                action = env.action_at(*grasp_of(np.asarray(pose, np.float64)))
                decision = env.decision(action)
                reward, info = aside(partial(self._try, action))
                succeeded += int(reward)
                label = {"kind": kind, "success": reward > 0, **known, **info}
                writer.append_decision(decision, [frame], label)
                writer.append("reward", frame.stamp_ns, [reward])
            outcome = {"reward": succeeded / max(len(chosen), 1), "grasps": len(chosen), "succeeded": succeeded}
            return Labelled(seed, writer.close(outcome), len(chosen), succeeded)
        except BaseException:
            writer.discard()
            raise

    def _proposed(self, frame: RGBD, rng: np.random.Generator) -> list[Attempt]:
        """Half of the grasps are those that the policy holds most of, the others drawn as it believes in them."""
        assert self._policy is not None
        found = self._policy.judge([frame], [])
        best = self._policy.proposals(found, self._grasps // 2)
        drawn = self._policy.samples(found, self._grasps - len(best), rng)
        return [
            (kind, action.pick, {"score": action.scores["grasp"]})
            for kind, actions in (("best", best), ("drawn", drawn))
            for action in actions
        ]

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
    policy: Path | None = None,
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
        policy: folder of the grasp policy that proposes the grasps; left out, they are sampled.
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
    make = partial(Labeller, store.path, grasps, image_size, in_bin, policy)
    pool: Workers[int, Labelled] = Here(make) if workers == 1 else Pool(Processes(make), workers)
    with pool:
        yield from pool.run(seed for seed in seeds if seed not in known)

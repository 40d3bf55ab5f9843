"""First-grasp success of a grasp policy on scenes that training never saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from embodied_vision.control.robot import RobotModel
from embodied_vision.cores import use_cores
from embodied_vision.encoders.region import encode_frame
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.errors import BadInput, Refused
from embodied_vision.learning.environments import make_env
from embodied_vision.learning.evaluate import summarise
from embodied_vision.learning.processes import Processes
from embodied_vision.learning.scene_results import SceneResult
from embodied_vision.learning.workers import Here, Pool, Workers
from embodied_vision.policies import grasp_checkpoint
from embodied_vision.policies.grasp_policy import GraspPolicy

TASK = "grasp-diverse"


@dataclass(frozen=True)
class GraspConditions:
    """Under what conditions grasps are tried.

    Attributes:
        in_bin: objects in the bin.
        image_size: rows and columns of the images, px; None for the task's own.
        preset: of the domain randomisation.
        renderer: who draws.
    """

    in_bin: int = 5
    image_size: int | None = None
    preset: str = "none"
    renderer: str = "software"

    def settings(self) -> dict[str, Any]:
        """What the environment takes; one grasp a scene."""
        own = {"image_size": self.image_size} if self.image_size is not None else {}
        return {
            "in_bin": self.in_bin,
            "attempts": 1,
            "randomisation": self.preset,
            "renderer": self.renderer,
            **own,
        }


class GraspExamination:
    """A grasp policy and a bin that it is tried in, one scene after another, one grasp each."""

    def __init__(self, checkpoint: Path, encoder: str, conditions: GraspConditions) -> None:
        use_cores(1)
        needed = bool(grasp_checkpoint.read_manifest(checkpoint).get("encoder_id"))
        self._encoder = load_encoder(encoder) if needed else None
        self._env = make_env(TASK, **conditions.settings())
        cell: Any = self._env.unwrapped
        robot: RobotModel = cell.world.robot
        self._policy = GraspPolicy.load(checkpoint, self._encoder, robot)

    def __call__(self, seed: int) -> SceneResult:
        """Grasp once in the scene of `seed`; a policy that finds nothing to grasp has failed."""
        self._env.reset(seed=seed)
        cell: Any = self._env.unwrapped
        start = time.perf_counter()
        frames, encoder = cell.frames(), self._encoder
        features = [encode_frame(encoder, frame) for frame in frames] if encoder is not None else []
        try:
            action = self._policy.decide(frames, features)
        except Refused as error:
            return SceneResult(seed, 0.0, False, 0, refused=(str(error),), renderer=cell.renderer)
        seconds = time.perf_counter() - start
        _, reward, _, _, info = self._env.step(cell.action_of(action))
        return SceneResult(
            seed=seed,
            reward=float(reward),
            solved=bool(info["solved"]),
            steps=1,
            actions=(action.to_dict(),),
            refused=(str(info["refused"]),) if info.get("refused") else (),
            failed=str(info.get("failed", "")),
            decision_s=(seconds,),
            renderer=cell.renderer,
        )

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


def evaluate_grasps(
    checkpoint: Path,
    seeds: Sequence[int],
    conditions: GraspConditions,
    *,
    encoder: str = "default",
    workers: int = 1,
    report: Callable[[SceneResult], None] | None = None,
) -> list[SceneResult]:
    """Let the policy grasp once in the scenes of `seeds`; in their order whatever the number of workers.

    Args:
        checkpoint: folder of the policy.
        seeds: of the scenes.
        conditions: what is in the bin and how it is seen.
        encoder: name or folder of the encoder, where the policy reads its features.
        workers: processes to run at once.
        report: called with every result as soon as it is there.

    Raises:
        BadInput: no seeds, or the checkpoint does not load.
    """
    if not seeds:
        raise BadInput("no scene to evaluate on; ask for at least 1")
    grasp_checkpoint.read_manifest(checkpoint)
    make = partial(GraspExamination, checkpoint, encoder, conditions)
    count = min(workers, len(seeds))
    running: Workers[int, SceneResult] = Here(make) if count <= 1 else Pool(Processes(make), count)
    by_seed: dict[int, SceneResult] = {}
    with running:
        for result in running.run(seeds):
            by_seed[result.seed] = result
            if report is not None:
                report(result)
    return [by_seed[seed] for seed in seeds]


def grasp_figures(checkpoint: Path, results: Sequence[SceneResult], conditions: GraspConditions) -> dict[str, Any]:
    """Figures of an evaluation, JSON-ready: those of `summarise`, and what was in the bin."""
    figures = summarise(TASK, str(checkpoint), results, conditions.preset)
    return {**figures, "in_bin": conditions.in_bin, "image_size": conditions.image_size}

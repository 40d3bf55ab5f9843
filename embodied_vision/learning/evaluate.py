"""Success of a policy on scenes that training never saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_vision import geometry
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.errors import BadInput
from embodied_vision.learning.dataset import renderer_of
from embodied_vision.learning.environments import Conditions
from embodied_vision.learning.processes import Processes
from embodied_vision.learning.seeds import Split, scene_seed
from embodied_vision.learning.statistics import bootstrap, wilson
from embodied_vision.learning.workers import Here, Pool, Workers
from embodied_vision.pictures import action_on_scene
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.policy import Policy
from embodied_vision.types import RGBD, Features, PickPlace, Workspace


class Decider(Protocol):
    """What an evaluation needs of a policy."""

    workspace: Workspace

    def decide(self, frames: Sequence[RGBD], features: Sequence[Features]) -> PickPlace:
        """The next action for these frames, one a camera, and their features."""
        ...


@dataclass(frozen=True)
class SceneResult:
    """How one scene went.

    Attributes:
        seed: of the scene.
        reward: total, in [0, 1].
        solved: whether the task was solved.
        steps: actions taken.
        actions: the decisions, JSON-ready.
        refused: what the guard said to actions that it refused.
        decision_s: seconds that each decision took, encoder included.
        pictures: uint8 (H, W, 3) map with the decision drawn on it, for each, when asked for.
        renderer: who drew what the policy saw, where the environment says so.
    """

    seed: int
    reward: float
    solved: bool
    steps: int
    actions: Sequence[dict[str, Any]] = field(default_factory=tuple)
    refused: Sequence[str] = field(default_factory=tuple)
    decision_s: Sequence[float] = field(default_factory=tuple)
    pictures: Sequence[NDArray[np.uint8]] = field(default_factory=tuple)
    renderer: str = ""


def split_seeds(split: Split, scenes: int, offset: int = 0) -> list[int]:
    """Seeds of `scenes` scenes of a split, from number `offset` on."""
    return [scene_seed(split, offset + index) for index in range(scenes)]


def run_scene(env: Any, policy: Decider, encoder: Encoder | None, seed: int, *, draw: bool = False) -> SceneResult:
    """Act until the scene is solved or its steps are used up.

    An action that the guard refuses costs a step. Deterministic, but for `decision_s`.
    """
    env.reset(seed=seed)
    cell = env.unwrapped
    actions: list[dict[str, Any]] = []
    refused: list[str] = []
    seconds: list[float] = []
    pictures: list[NDArray[np.uint8]] = []
    while True:
        start = time.perf_counter()
        frames = cell.frames()
        features = [encoder.encode(frame.color, frame.stamp_ns) for frame in frames] if encoder is not None else []
        action = policy.decide(frames, features)
        seconds.append(time.perf_counter() - start)
        actions.append(action.to_dict())
        if draw:
            pictures.append(action_on_scene(geometry.fuse_scene(frames, [], policy.workspace), action, 1))
        vectors = {name: geometry.pose_to_vector(getattr(action, name)) for name in ("pick", "place")}
        _, _, terminated, truncated, info = env.step(vectors)
        if info.get("refused"):
            refused.append(str(info["refused"]))
        if terminated or truncated:
            return SceneResult(
                seed=seed,
                reward=float(info["reward_total"]),
                solved=bool(info["solved"]),
                steps=len(actions),
                actions=actions,
                refused=refused,
                decision_s=seconds,
                pictures=pictures,
            )


def evaluate(
    task: str,
    checkpoint: Path,
    seeds: Sequence[int],
    *,
    encoder: str = "default",
    preset: str = "none",
    renderer: str | None = None,
    workers: int = 1,
    draw: bool = False,
    report: Callable[[SceneResult], None] | None = None,
) -> list[SceneResult]:
    """Run the policy on the scenes of `seeds`, in their order whatever the number of workers.

    Args:
        task: name of the task.
        checkpoint: folder of the policy.
        seeds: of the scenes.
        encoder: name or folder of the encoder.
        preset: of the domain randomisation.
        renderer: who draws; left out, the renderer whose pictures the policy learnt from.
        workers: processes to run at once.
        draw: whether results carry pictures of the decisions.
        report: called with every result as soon as it is there.

    Raises:
        BadInput: the checkpoint does not load, is for another task, or its renderer is not there.
    """
    if not seeds:
        raise BadInput("no scene to evaluate on; ask for at least 1")
    manifest = checkpoints.read_manifest(checkpoint)
    trained = manifest.get("task")
    if trained != task:
        raise BadInput(f"checkpoint {checkpoint} is for task {trained!r}, asked to evaluate on {task!r}")
    conditions = Conditions(preset, renderer or renderer_of(manifest.get("training", {})))
    make = partial(Examination, task, checkpoint, encoder, conditions, draw)
    count = min(workers, len(seeds))
    running: Workers[int, SceneResult] = Here(make) if count <= 1 else Pool(Processes(make), count)
    by_seed: dict[int, SceneResult] = {}
    with running:
        for result in running.run(seeds):
            by_seed[result.seed] = result
            if report is not None:
                report(result)
    return [by_seed[seed] for seed in seeds]


class Examination:
    """A policy and an environment that it is tried in, one scene after another."""

    def __init__(self, task: str, checkpoint: Path, encoder: str, conditions: Conditions, draw: bool) -> None:
        torch.set_num_threads(1)
        needs_encoder = bool(checkpoints.read_manifest(checkpoint).get("encoder_id"))
        self._encoder = load_encoder(encoder) if needs_encoder else None
        self._policy = Policy.load(checkpoint, self._encoder)
        self._env = conditions.make(task)
        self._draw = draw

    def __call__(self, seed: int) -> SceneResult:
        """Run the scene of `seed`."""
        result = run_scene(self._env, self._policy, self._encoder, seed, draw=self._draw)
        cell: Any = self._env.unwrapped
        return replace(result, renderer=cell.renderer)

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


def summarise(task: str, checkpoint: str, results: Sequence[SceneResult], preset: str = "none") -> dict[str, Any]:
    """Figures of an evaluation, JSON-ready; scores and shares × 100 with 95 % intervals."""
    score = bootstrap([result.reward for result in results])
    solved = wilson(sum(result.solved for result in results), len(results))
    seconds = [s for result in results for s in result.decision_s]
    seeds = [result.seed for result in results]
    return {
        "task": task,
        "checkpoint": checkpoint,
        "preset": preset,
        "renderer": results[0].renderer,
        "seeds": [min(seeds), max(seeds)],
        "scenes": len(results),
        "score": round(100 * score.value, 2),
        "ci_low": round(100 * score.low, 2),
        "ci_high": round(100 * score.high, 2),
        "seconds_per_decision": round(sorted(seconds)[len(seconds) // 2], 4) if seconds else 0.0,
        "solved": sum(result.solved for result in results),
        "solved_share": round(100 * solved.value, 2),
        "solved_low": round(100 * solved.low, 2),
        "solved_high": round(100 * solved.high, 2),
        "failed_seeds": [result.seed for result in results if not result.solved],
        "refused": sum(len(result.refused) for result in results),
    }

"""Success of a policy on scenes that training never saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from embodied_vision import geometry
from embodied_vision.cores import use_cores
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.region import encode_frame
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.errors import BadInput
from embodied_vision.learning import drawings, provenance
from embodied_vision.learning.dataset import renderer_of
from embodied_vision.learning.environments import SIMULATOR, Conditions
from embodied_vision.learning.processes import Processes
from embodied_vision.learning.scene_results import Examined, SceneLog, SceneResult
from embodied_vision.learning.seeds import Split, scene_seed
from embodied_vision.learning.statistics import bootstrap, wilson
from embodied_vision.learning.workers import Here, Pool, Workers
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.attempts import Attempts
from embodied_vision.policies.policy import Explanation, Policy
from embodied_vision.types import RGBD, Features


class Decider(Protocol):
    """What an evaluation needs of a policy."""

    def explain(
        self, frames: Sequence[RGBD], features: Sequence[Features], attempts: Attempts | None = None
    ) -> Explanation:
        """The next action for these frames, one a camera, and their features, with what led to it."""
        ...


def split_seeds(split: Split, scenes: int, offset: int = 0) -> list[int]:
    """Seeds of `scenes` scenes of a split, from number `offset` on."""
    return [scene_seed(split, offset + index) for index in range(scenes)]


def run_scene(
    env: Any,
    policy: Decider,
    encoder: Encoder | None,
    seed: int,
    watch: Callable[[Explanation], None] | None = None,
) -> SceneResult:
    """Act until the scene is solved or its steps are used up; `watch` is called with every decision.

    An action that the guard refuses costs a step. Deterministic, but for `decision_s`.
    """
    env.reset(seed=seed)
    cell = env.unwrapped
    actions: list[dict[str, Any]] = []
    refused: list[str] = []
    seconds: list[float] = []
    attempts = Attempts()
    while True:
        start = time.perf_counter()
        frames = cell.frames()
        features = [encode_frame(encoder, frame) for frame in frames] if encoder is not None else []
        explanation = policy.explain(frames, features, attempts)
        action = explanation.action
        attempts.note(explanation)
        seconds.append(time.perf_counter() - start)
        actions.append(action.to_dict())
        if watch is not None:
            watch(explanation)
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
                failed=str(info.get("failed", "")),
                decision_s=seconds,
            )


def examined(task: str, checkpoint: Path, preset: str = "none", renderer: str | None = None) -> Examined:
    """What an evaluation of a checkpoint examines.

    Args:
        task: name of the task.
        checkpoint: folder of the policy.
        preset: of the domain randomisation.
        renderer: who draws; left out, the renderer whose pictures the policy learnt from.

    Raises:
        BadInput: there is no such checkpoint, it is for another task, or its renderer is not there.
    """
    manifest = checkpoints.read_manifest(checkpoint)
    trained = manifest.get("task")
    if trained != task:
        raise BadInput(f"checkpoint {checkpoint} is for task {trained!r}, asked to evaluate on {task!r}")
    conditions = Conditions(preset, renderer or renderer_of(manifest.get("training", {})))
    if conditions.renderer == "auto":
        env: Any = conditions.make(task)
        conditions = replace(conditions, renderer=env.unwrapped.renderer)
        env.close()
    code = provenance.scene_code(SIMULATOR)
    return Examined(str(manifest["checkpoint_id"]), task, conditions.preset, conditions.renderer, code)


def evaluate(
    task: str,
    checkpoint: Path,
    seeds: Sequence[int],
    *,
    encoder: str = "default",
    preset: str = "none",
    renderer: str | None = None,
    workers: int = 1,
    log: SceneLog | None = None,
    draw: Path | None = None,
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
        log: scenes that it holds are not run again; the others are added.
        draw: folder for pictures of failed scenes, one folder a seed, see `drawings`; a failed scene that the log
            holds is run again when its pictures are missing.
        report: called with every result as soon as it is there.

    Raises:
        BadInput: the checkpoint does not load, is for another task, or its renderer is not there.
    """
    if not seeds:
        raise BadInput("no scene to evaluate on; ask for at least 1")
    what = examined(task, checkpoint, preset, renderer)
    known = log.known(what) if log is not None else {}
    by_seed = {seed: known[seed] for seed in seeds if seed in known and _is_drawn(known[seed], what, draw)}
    for result in by_seed.values():
        if report is not None:
            report(result)
    missing = [seed for seed in seeds if seed not in by_seed]
    make = partial(Examination, what, checkpoint, encoder, draw)
    count = min(workers, len(missing))
    running: Workers[int, SceneResult] = Here(make) if count <= 1 else Pool(Processes(make), count)
    with running:
        for result in running.run(missing):
            by_seed[result.seed] = result
            if log is not None:
                log.add(what, result)
            if report is not None:
                report(result)
    return [by_seed[seed] for seed in seeds]


def _is_drawn(result: SceneResult, what: Examined, draw: Path | None) -> bool:
    """Whether all pictures of a scene are there that are asked for."""
    return draw is None or result.solved or bool(drawings.decisions(draw / str(result.seed), what))


class Examination:
    """A policy and an environment that it is tried in, one scene after another."""

    def __init__(self, what: Examined, checkpoint: Path, encoder: str, draw: Path | None) -> None:
        use_cores(1)
        needs_encoder = bool(checkpoints.read_manifest(checkpoint).get("encoder_id"))
        self._encoder = load_encoder(encoder) if needs_encoder else None
        self._policy = Policy.load(checkpoint, self._encoder)
        self._env = Conditions(what.preset, what.renderer).make(what.task)
        self._what = what
        self._draw = draw

    def __call__(self, seed: int) -> SceneResult:
        """Run the scene of `seed`."""
        drawing = drawings.Drawing() if self._draw is not None else None
        result = run_scene(self._env, self._policy, self._encoder, seed, drawing.add if drawing is not None else None)
        if drawing is not None and self._draw is not None and not result.solved:
            drawing.save(self._draw / str(seed), self._what)
        return replace(result, renderer=self._what.renderer)

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

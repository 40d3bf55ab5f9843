"""Continual learning: from newly logged episodes to a promoted checkpoint, or a refusal that says why."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.dataset import Dataset, load_dataset, renderer_of, teaching_ids
from embodied_vision.learning.evaluate import SceneResult, evaluate, split_seeds
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.runs import Clock, training_record
from embodied_vision.learning.statistics import bootstrap
from embodied_vision.learning.train import Report, TrainConfig, train
from embodied_vision.paths import shipped
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.policy import Policy

Progress = Callable[[str, SceneResult], None]
"""Called with `candidate` or `baseline` and each scene's result."""


@dataclass(frozen=True)
class LearnConfig:
    """Settings of one round of learning.

    Attributes:
        steps: of fine-tuning, each stage.
        minutes: fine-tuning ends after these at the latest, with what it has by then.
        learning_rate: at its highest; a quarter of that of training from scratch.
        scenes: validation scenes on which candidate and baseline are compared.
        seed_offset: number of the first of them.
        tolerated_loss: the comparison's lower bound may lie this far below zero, as a share of the score.
        seed: of order and augmentation.
        threads: 2 trains the stages side by side.
        workers: processes that evaluate.
    """

    steps: int = 150
    minutes: float = 10.0
    learning_rate: float = 5e-4
    scenes: int = 20
    seed_offset: int = 0
    tolerated_loss: float = 0.05
    seed: int = 0
    threads: int = 2
    workers: int = 1


@dataclass(frozen=True)
class Difference:
    """Score of the candidate less that of the baseline over the same scenes, × 100, with its 95 % interval."""

    task: str
    difference: float
    ci_low: float
    ci_high: float
    candidate_score: float
    baseline_score: float
    scenes: int
    seeds: tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """What a round of learning ended in.

    Attributes:
        task: name of the task.
        candidate: id of the fine-tuned checkpoint, None when nothing was trained.
        baseline: id of the checkpoint in use before.
        decision: promoted or refused.
        reason: why.
        differences: one a task.
        new_episodes: ids that were learnt from for the first time.
        replayed: number of older episodes in the replay buffer.
        minutes: of fine-tuning.
    """

    task: str
    candidate: str | None
    baseline: str
    decision: str
    reason: str
    differences: Sequence[Difference] = field(default_factory=tuple)
    new_episodes: Sequence[str] = field(default_factory=tuple)
    replayed: int = 0
    minutes: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def learn(
    task: str,
    store: EpisodeStore,
    policies: Path,
    config: LearnConfig,
    *,
    encoder: str = "default",
    replay: EpisodeStore | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Fine-tune the checkpoint in use on episodes that it has not learnt from, and promote it if it does no worse.

    The first round in a folder starts from the shipped checkpoint of the task. Half of each batch comes from the
    episodes that the checkpoint was trained on, as far as `replay` or `store` still hold them.

    Args:
        task: name of the task.
        store: newly logged episodes.
        policies: folder of pointers and checkpoints, see `promotion`.
        config: settings.
        encoder: name or folder of the encoder.
        replay: store of older episodes, when they lie elsewhere.
        report: progress of fine-tuning.
        progress: progress of the comparison.

    Raises:
        BadInput: no checkpoint to start from, unusable settings, or episodes of another renderer.
        CheckpointError: the checkpoint in use was trained with another encoder.
        RunFailed: another learner is at work, or a loss is not finite.
    """
    pointer = Pointer(policies, task)
    with pointer.locked():
        baseline = _baseline(pointer)
        known = set(baseline.training.get("episodes", ()))
        new = [episode_id for episode_id in teaching_ids(store, task) if episode_id not in known]
        if not new:
            reason = f"no new solved episode of {task} in {store.path}; validation and test scenes do not count"
            return _refuse(pointer, baseline, None, reason)
        eyes = load_encoder(encoder) if baseline.encoder_id else None
        Policy(baseline, eyes)  # refuses another encoder before any time is spent
        fresh = load_dataset(store, task, eyes, baseline.workspace, episode_ids=new)
        _require_renderer(fresh, baseline, store)
        old = _replay(task, known, [replay, store] if replay is not None else [store], eyes, baseline)
        start = time.monotonic()
        candidate = _fine_tune(baseline, fresh, old, config, report)
        minutes = (time.monotonic() - start) / 60
        folder = pointer.add(candidate)
        difference = _compare(task, folder, pointer.path(baseline.checkpoint_id), encoder, config, progress)
        outcome = Outcome(
            task=task,
            candidate=candidate.checkpoint_id,
            baseline=baseline.checkpoint_id,
            decision="refused",
            reason=_objection(difference, config),
            differences=(difference,),
            new_episodes=tuple(new),
            replayed=len(old.episode_ids) if old is not None else 0,
            minutes=round(minutes, 2),
        )
        if outcome.reason:
            pointer.log("refused", candidate.checkpoint_id, baseline.checkpoint_id, outcome.reason)
            return outcome
        reason = f"{_signed(difference)} on {difference.scenes} validation scenes, {len(new)} new episodes learnt"
        pointer.promote(candidate.checkpoint_id, reason)
        return replace(outcome, decision="promoted", reason=reason)


def _baseline(pointer: Pointer) -> Checkpoint:
    if pointer.current is None:
        pointer.promote(checkpoints.load(_first(pointer)).checkpoint_id, "where learning starts")
    assert pointer.current is not None
    return checkpoints.load(pointer.path(pointer.current))


def _first(pointer: Pointer) -> Path:
    try:
        return pointer.add(checkpoints.load(shipped(pointer.task)))
    except BadInput as error:
        raise BadInput(
            f"no checkpoint of {pointer.task!r} to start from: none in {pointer.folder}, none ships; "
            f"train one: embodied-vision train --task {pointer.task}"
        ) from error


def _require_renderer(fresh: Dataset, baseline: Checkpoint, store: EpisodeStore) -> None:
    known = renderer_of(baseline.training)
    if fresh.renderer not in ("", known):
        raise BadInput(
            f"episodes in {store.path} were drawn by {fresh.renderer}, the checkpoint in use learnt from pictures by "
            f"{known}; log them with the renderer {known}, or train a policy of their own"
        )


def _replay(
    task: str, known: set[str], stores: Sequence[EpisodeStore], encoder: Encoder | None, baseline: Checkpoint
) -> Dataset | None:
    """What the baseline learnt from, as far as the stores still hold it."""
    for store in stores:
        there = known & set(store.ids()) if store.exists() else set()
        if there:
            return load_dataset(store, task, encoder, baseline.workspace, episode_ids=there)
    return None


def _fine_tune(
    baseline: Checkpoint, fresh: Dataset, old: Dataset | None, config: LearnConfig, report: Report | None
) -> Checkpoint:
    settings = TrainConfig(steps=config.steps, learning_rate=config.learning_rate, seed=config.seed)
    start, start_cpu = time.monotonic(), time.process_time()
    weights = train(
        fresh,
        baseline.network().requires_grad_(True),
        baseline.normalisation,
        settings,
        threads=config.threads,
        report=report,
        replay=old,
        limit_s=60 * config.minutes,
    )
    clock = Clock((time.monotonic() - start) / 60, (time.process_time() - start_cpu) / 60)
    ids = sorted({*baseline.training.get("episodes", ()), *fresh.episode_ids})
    record = training_record(
        ids, settings, clock, len(fresh), parent=baseline.checkpoint_id, renderer=renderer_of(baseline.training)
    )
    return replace(baseline, weights=weights, training=record, measured={})


def _compare(
    task: str, candidate: Path, baseline: Path, encoder: str, config: LearnConfig, progress: Progress | None
) -> Difference:
    seeds = split_seeds("validation", config.scenes, config.seed_offset)

    def rewards(name: str, folder: Path) -> list[float]:
        def tell(result: SceneResult) -> None:
            if progress is not None:
                progress(name, result)

        results = evaluate(task, folder, seeds, encoder=encoder, workers=config.workers, report=tell)
        return [result.reward for result in results]

    ours, theirs = rewards("candidate", candidate), rewards("baseline", baseline)
    interval = bootstrap([a - b for a, b in zip(ours, theirs, strict=True)])
    return Difference(
        task=task,
        difference=round(100 * interval.value, 2),
        ci_low=round(100 * interval.low, 2),
        ci_high=round(100 * interval.high, 2),
        candidate_score=round(100 * sum(ours) / len(ours), 2),
        baseline_score=round(100 * sum(theirs) / len(theirs), 2),
        scenes=len(seeds),
        seeds=(seeds[0], seeds[-1]),
    )


def _objection(difference: Difference, config: LearnConfig) -> str:
    """Why not to promote, empty when nothing speaks against it: no worse on average, nor plausibly much worse."""
    if difference.difference < 0:
        return f"candidate scores lower on the same scenes: {_signed(difference)}"
    if difference.ci_low < -100 * config.tolerated_loss:
        return f"candidate may be worse by more than {100 * config.tolerated_loss:g}: {_signed(difference)}"
    return ""


def _signed(difference: Difference) -> str:
    return f"{difference.difference:+.1f} ({difference.ci_low:+.1f} to {difference.ci_high:+.1f})"


def _refuse(pointer: Pointer, baseline: Checkpoint, candidate: str | None, reason: str) -> Outcome:
    pointer.log("refused", candidate or "", baseline.checkpoint_id, reason)
    return Outcome(pointer.task, candidate, baseline.checkpoint_id, "refused", reason)

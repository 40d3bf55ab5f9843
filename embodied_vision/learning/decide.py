"""A candidate at the gate: what it is compared with and on, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.registry import DEFAULT, load_encoder, whole_name
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning import canary, shadow
from embodied_vision.learning.evaluate import SceneResult, evaluate, split_seeds
from embodied_vision.learning.gate import Pairs, judge, score_difference
from embodied_vision.learning.gate_evidence import Reader, broken_rules, cost, held_out_of_both, logged, simulated
from embodied_vision.learning.holdout import is_held_out
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.scene_results import LOG, SceneLog
from embodied_vision.paths import shipped
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.binding import require_encoder
from embodied_vision.policies.checkpoint import Checkpoint

Progress = Callable[[str, SceneResult], None]
"""Called with `candidate` or `baseline` and each scene's result."""
RunScenes = Callable[[str, Path, Sequence[int]], Sequence[SceneResult]]
"""Runs the policy of a folder on scenes of a task."""


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
        failed: number of actions that failed and were made less likely.
        left_out: decisions of these episodes that taught nothing because the arm never began them.
        replayed: number of older episodes in the replay buffer.
        minutes: of fine-tuning.
        gate: everything that was examined, see `gate.Verdict`.
    """

    task: str
    candidate: str | None
    baseline: str
    decision: str
    reason: str
    differences: Sequence[Difference] = field(default_factory=tuple)
    new_episodes: Sequence[str] = field(default_factory=tuple)
    failed: int = 0
    left_out: int = 0
    replayed: int = 0
    minutes: float = 0.0
    gate: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def decide(
    pointer: Pointer,
    candidate: Checkpoint,
    config: LearnConfig,
    *,
    store: EpisodeStore | None = None,
    encoder: str = "default",
    baseline_encoder: str | None = None,
    old_tasks: Sequence[str] = (),
    run: RunScenes | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Put a trained candidate to the gate, and promote it or refuse it. The caller holds `pointer.locked()`.

    Args:
        pointer: of the task that the candidate was trained for; a policy is in use there.
        candidate: any checkpoint of the task.
        config: settings.
        store: logged episodes, of which those are tried that neither policy learnt from.
        encoder: name or folder of the encoder.
        baseline_encoder: of the policy in use; left out, the same.
        old_tasks: other tasks that the candidate must not have lost.
        run: runs scenes; left out, `evaluate`.
        progress: progress of the comparison.

    Raises:
        BadInput: nothing to judge by.
        CheckpointError: a checkpoint cannot be loaded, or was trained with another encoder.
        RunFailed: another checkpoint was put to use meanwhile.
    """
    assert pointer.current is not None
    baseline_id, task = pointer.current, pointer.task
    baseline = pointer.path(baseline_id)
    in_use = checkpoints.load(baseline)
    eyes, baseline_eyes = _eyes(candidate, encoder, in_use, baseline_encoder or encoder)
    folder, name = pointer.add(candidate), candidate.checkpoint_id
    if name == baseline_id or pointer.was_rolled_back(name):
        why = "is in use already" if name == baseline_id else "was in use and was rolled back; log other episodes"
        return refuse(pointer, in_use, name, f"checkpoint {name} {why}")
    sides = (folder, encoder), (baseline, baseline_encoder or encoder)
    evidence: list[Pairs] = []
    broken: list[str] = []
    if config.scenes:
        for which in (task, *old_tasks):
            ours, theirs = _run(which, *sides, config, run, progress)
            evidence.append(simulated(which, ours, theirs, is_new=which == task))
            broken += broken_rules(ours, theirs, candidate.workspace)
    if store is not None:
        readers = Reader.load(folder, eyes), Reader.load(baseline, baseline_eyes)
        pairs, problems = _logged(task, store, *readers, config)
        evidence += [pairs] if pairs is not None else []
        broken += problems
    shadowed = shadow.pairs(pointer, name, store)
    evidence += [shadowed] if shadowed is not None else []
    broken += shadow.problems(pointer, name)
    if not evidence:
        reason = (
            "nothing to judge it by: no simulated scenes, no held-out logged episode whose outcome is known, and no "
            "shadow; let it run in the shadow first"
        )
        return refuse(pointer, in_use, name, reason)
    costs = cost(folder, baseline, eyes, baseline_eyes)
    verdict = judge(evidence, config.limits, broken=broken, cost=costs)
    differences = tuple(_difference(pairs) for pairs in evidence if pairs.source == "simulation")
    outcome = Outcome(
        task, name, baseline_id, "refused", verdict.reason, differences=differences, gate=verdict.to_dict()
    )
    if not verdict.passed:
        pointer.log("refused", name, baseline_id, verdict.reason, gate=verdict.to_dict())
        return outcome
    thresholds = {
        "canary": canary.plan(pointer, store, evidence, config.canary).to_dict() if config.canary else None,
        "margin": config.margin,
    }
    wanted = whole_name(encoder)
    pointer.promote(name, verdict.reason, expected=baseline_id, thresholds=thresholds, encoder=wanted)
    return replace(outcome, decision="promoted")


def _eyes(
    candidate: Checkpoint, encoder: str, in_use: Checkpoint, baseline_encoder: str
) -> tuple[Encoder | None, Encoder | None]:
    """The encoders that the two read, one and the same where they are named alike; None where one reads none."""
    ours = load_encoder(encoder) if candidate.encoder_id else None
    require_encoder(candidate, ours)
    if not in_use.encoder_id:
        return ours, None
    theirs = ours if ours is not None and baseline_encoder == encoder else load_encoder(baseline_encoder)
    if theirs.encoder_id != in_use.encoder_id:
        raise CheckpointError(
            f"policy {in_use.checkpoint_id} in use reads encoder {in_use.encoder_id!r}, {baseline_encoder!r} is "
            f"{theirs.encoder_id!r}, the candidate reads {candidate.encoder_id or 'none'!r}; name that of the policy "
            "in use with --baseline-encoder"
        )
    return ours, theirs


def begin(pointer: Pointer, checkpoint: Checkpoint, encoder: str = DEFAULT) -> None:
    """Put a checkpoint to use where none is yet, instead of the shipped one.

    Args:
        pointer: of its task.
        checkpoint: to begin with.
        encoder: name or folder of the encoder that it reads.

    Raises:
        BadInput: a policy is in use already.
        CheckpointError: it was trained with another encoder.
        RunFailed: a learner is at work.
    """
    require_encoder(checkpoint, load_encoder(encoder) if checkpoint.encoder_id else None)
    with pointer.locked():
        if pointer.current is not None:
            raise BadInput(
                f"{pointer.current} is in use in {pointer.folder} already; compare with it by `embodied-vision learn "
                "gate`, or begin another folder"
            )
        pointer.promote(pointer.add(checkpoint).name, "where learning begins", encoder=whole_name(encoder))


def start(pointer: Pointer) -> Checkpoint:
    """The checkpoint in use; where there is none, the shipped one of the task is put to use.

    Raises:
        BadInput: none ships for the task.
    """
    if pointer.current is None:
        pointer.promote(_first(pointer).name, "where learning starts", encoder=DEFAULT)
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


def _run(
    task: str,
    candidate: tuple[Path, str],
    baseline: tuple[Path, str],
    config: LearnConfig,
    run: RunScenes | None,
    progress: Progress | None,
) -> tuple[list[SceneResult], list[SceneResult]]:
    """Results of both, each a folder and its encoder, on the same validation scenes."""
    seeds = split_seeds("validation", config.scenes, config.seed_offset)
    log = SceneLog(baseline[0].parent.parent / LOG)

    def results(name: str, folder: Path, encoder: str) -> list[SceneResult]:
        def tell(result: SceneResult) -> None:
            if progress is not None:
                progress(name, result)

        if run is not None:
            return list(run(task, folder, seeds))
        return evaluate(task, folder, seeds, encoder=encoder, workers=config.workers, log=log, report=tell)

    return results("candidate", *candidate), results("baseline", *baseline)


def _logged(
    task: str, store: EpisodeStore, candidate: Reader, baseline: Reader, config: LearnConfig
) -> tuple[Pairs | None, list[str]]:
    """How both decide again in the newest held-out episodes.

    Those in which the policy in use acted itself count only where nothing else tells: it repeats all of them.
    """
    acting = baseline.policy.checkpoint_id
    found = store.select(task=task) if store.exists() else ()
    ids = [episode.id for episode in found if not config.scenes or episode.policy_id != acting]
    ids = [e for e in held_out_of_both(ids, candidate.policy, baseline.policy) if is_held_out(e, config.holdout)]
    return logged(task, store, ids[-config.logged :] if config.logged else [], candidate, baseline)


def _difference(pairs: Pairs) -> Difference:
    interval, scenes = score_difference(pairs), len(pairs.names)
    return Difference(
        task=pairs.task,
        difference=round(100 * interval.value, 2),
        ci_low=round(100 * interval.low, 2),
        ci_high=round(100 * interval.high, 2),
        candidate_score=round(100 * sum(pairs.candidate_score) / scenes, 2),
        baseline_score=round(100 * sum(pairs.baseline_score) / scenes, 2),
        scenes=scenes,
        seeds=(int(pairs.names[0]), int(pairs.names[-1])),
    )


def refuse(pointer: Pointer, baseline: Checkpoint, candidate: str | None, reason: str) -> Outcome:
    pointer.log("refused", candidate or "", baseline.checkpoint_id, reason)
    return Outcome(pointer.task, candidate, baseline.checkpoint_id, "refused", reason)

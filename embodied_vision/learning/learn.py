"""Continual learning: from newly logged episodes to a promoted checkpoint, or a refusal that says why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.registry import DEFAULT, load_encoder, whole_name
from embodied_vision.episodes.corrections import CORRECTIONS
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning import canary, shadow
from embodied_vision.learning.dataset import Dataset, may_teach, renderer_of, teaches, teaching_ids
from embodied_vision.learning.environments import FIRST_RENDERER
from embodied_vision.learning.evaluate import SceneResult, evaluate, split_seeds
from embodied_vision.learning.experience import DEMONSTRATORS, Sample, Weights, earns_at_once
from embodied_vision.learning.gate import Limits, Pairs, judge, score_difference
from embodied_vision.learning.gate_evidence import Reader, broken_rules, cost, held_out_of_both, logged, simulated
from embodied_vision.learning.holdout import SHARE, is_held_out
from embodied_vision.learning.lessons import MOST_FAILED, Lessons, lessons
from embodied_vision.learning.non_inferiority import fewest_scenes
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.runs import Clock, training_record
from embodied_vision.learning.scene_results import LOG, SceneLog
from embodied_vision.learning.train import Report, TrainConfig, train
from embodied_vision.paths import shipped
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.binding import require_encoder
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.policy import Policy

Progress = Callable[[str, SceneResult], None]
"""Called with `candidate` or `baseline` and each scene's result."""
RunScenes = Callable[[str, Path, Sequence[int]], Sequence[SceneResult]]
"""Runs the policy of a folder on scenes of a task."""
LIMITS = Limits()


@dataclass(frozen=True)
class LearnConfig:
    """Settings of one round of learning.

    Attributes:
        steps: of fine-tuning, each stage.
        minutes: fine-tuning ends after these at the latest, with what it has by then.
        learning_rate: at its highest; a quarter of that of training from scratch.
        failed: weight of an action that failed, and is to be avoided, against one that is to be done, 0 … 1; 0 leaves
            such actions out, see `experience_losses`.
        scenes: validation scenes on which candidate and policy in use are compared; 0 where no simulator knows the
            cell, then logged episodes and shadow decide.
        seed_offset: number of the first of them.
        holdout: share of the logged episodes that is never learnt from, see `holdout`.
        logged: held-out logged episodes that both decide again, the newest, at most.
        margin, level, latency_ratio, latency_ms, size_mb: what is asked of a candidate, see `gate.Limits`.
        canary: episodes for which a promoted policy is watched, see `canary`; 0 for none.
        seed: of order and augmentation.
        threads: 2 trains the stages side by side.
        workers: processes that evaluate.
    """

    steps: int = 150
    minutes: float = 10.0
    learning_rate: float = 5e-4
    failed: float = Weights.failed
    scenes: int = 100
    seed_offset: int = 0
    holdout: float = SHARE
    logged: int = 100
    margin: float = LIMITS.margin
    level: float = LIMITS.level
    latency_ratio: float = LIMITS.latency_ratio
    latency_ms: float | None = LIMITS.latency_ms
    size_mb: float = LIMITS.size_mb
    canary: int = 20
    seed: int = 0
    threads: int = 2
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.failed <= 1:
            raise BadInput(f"the weight of what failed is {self.failed:g}; give 0 to 1, 0 to leave it out")
        fewest = fewest_scenes(self.margin, self.level)
        if 0 < self.scenes < fewest:
            raise BadInput(
                f"{self.scenes} scenes cannot show that a candidate is not worse by {100 * self.margin:g} %, even if "
                f"it loses none; compare on at least {fewest}, see `embodied-vision learn scenes`, or allow a larger "
                "margin"
            )

    @property
    def limits(self) -> Limits:
        """What is asked of a candidate."""
        return Limits(self.margin, self.level, self.latency_ratio, self.latency_ms, self.size_mb)


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
    What failed in the newest unsolved episodes goes along and is made less likely, see `experience_losses`.

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
        baseline = start(pointer)
        known = set(baseline.training.get("episodes", ()))
        ids = [*teaching_ids(store, task), *corrected_ids(store, task)]
        new = sorted({e for e in ids if e not in known and not is_held_out(e, config.holdout)})
        if not new:
            reason = (
                f"no new solved or corrected episode of {task} in {store.path}; validation and test scenes do not "
                f"count, nor does the {100 * config.holdout:g} % that is held out"
            )
            return _refuse(pointer, baseline, None, reason)
        eyes = load_encoder(encoder) if baseline.encoder_id else None
        Policy(baseline, eyes)  # refuses another encoder before any time is spent
        stores = [replay, store] if replay is not None else [store]
        failed = failed_ids(store, task, renderer_of(baseline.training)) if config.failed else []
        failed = [e for e in failed if e not in known and not is_held_out(e, config.holdout)][-MOST_FAILED:]
        at_once = any(earns_at_once(each, task) for each in stores)
        fresh = taught(task, store, new, eyes, baseline, failed=failed, weight=config.failed, at_once=at_once)
        _require_renderer(fresh.good, baseline, store)
        old = _replay(task, known, stores, eyes, baseline)
        began = time.monotonic()
        candidate = fine_tune(baseline, fresh.good, old, config, report, failed=fresh.failed)
        minutes = (time.monotonic() - began) / 60
        outcome = decide(pointer, candidate, config, store=store, encoder=encoder, progress=progress)
        return replace(
            outcome,
            new_episodes=tuple(fresh.episode_ids),
            failed=len(fresh.failed),
            left_out=fresh.good.left_out,
            replayed=len(old.episode_ids) if old is not None else 0,
            minutes=round(minutes, 2),
        )


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
        return _refuse(pointer, in_use, name, f"checkpoint {name} {why}")
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
        return _refuse(pointer, in_use, name, reason)
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
        if there and (found := taught(task, store, there, encoder, baseline).good):
            return found
    return None


def corrected_ids(store: EpisodeStore, task: str) -> list[str]:
    """Ids of the episodes of a task in which an operator corrected something, but for validation and test scenes."""
    found = store.select(task=task) if store.exists() else ()
    return [episode.id for episode in found if episode.attributes.get(CORRECTIONS) and may_teach(episode.attributes)]


def failed_ids(store: EpisodeStore, task: str, renderer: str) -> list[str]:
    """Ids of the unsolved episodes of a task that policies worked on, oldest first, but for validation and test scenes.

    Args:
        store: where they lie.
        task: name of the task.
        renderer: simulated ones that another one drew are left out.
    """
    return [
        episode.id
        for episode in (store.select(task, {"solved": False}) if store.exists() else ())
        if episode.policy_id not in ("", *DEMONSTRATORS)
        and may_teach(episode.attributes)
        and (episode.attributes.get("seed") is None or _drew(episode.attributes) == renderer)
    ]


def _drew(attributes: Mapping[str, Any]) -> str:
    return str(attributes.get("renderer") or FIRST_RENDERER)


def taught(
    task: str,
    store: EpisodeStore,
    episode_ids: Iterable[str],
    encoder: Encoder | None,
    baseline: Checkpoint,
    *,
    failed: Iterable[str] = (),
    weight: float = 0.0,
    at_once: bool | None = None,
) -> Lessons:
    """What these episodes teach: all of the solved ones, of the others what earned something or was corrected.

    Args:
        task: of all of them.
        store: where they lie.
        episode_ids: which.
        encoder: of the policy.
        baseline: the policy.
        failed: episodes of which what failed is learnt as well; damaged ones are left out.
        weight: of what failed, there and in the others.
        at_once: as of `experience.samples`.

    Raises:
        BadInput: an episode is of another task, or two renderers drew them.
        EpisodeError: one is damaged.
    """
    ids = set(episode_ids)
    opened = [store.open(episode_id) for episode_id in sorted(ids)]
    whole = {episode.id for episode in opened if teaches(episode) and not episode.attributes.get(CORRECTIONS)}
    return lessons(
        store,
        task,
        encoder,
        baseline.workspace,
        whole=whole,
        judged=ids - whole,
        failed=failed,
        weights=Weights(failed=weight),
        at_once=at_once,
    )


def fine_tune(
    baseline: Checkpoint,
    fresh: Dataset,
    old: Dataset | None,
    config: LearnConfig,
    report: Report | None = None,
    *,
    failed: Sequence[Sample] = (),
) -> Checkpoint:
    """Train a checkpoint on, half of each batch from `old`, and now and then one of what failed.

    Raises:
        RunFailed: a loss is not finite.
    """
    settings = TrainConfig(steps=config.steps, learning_rate=config.learning_rate, seed=config.seed)
    began, began_cpu = time.monotonic(), time.process_time()
    weights = train(
        fresh,
        baseline.network().requires_grad_(True),
        baseline.normalisation,
        settings,
        threads=config.threads,
        report=report,
        replay=old,
        failed=failed,
        limit_s=60 * config.minutes,
    )
    clock = Clock((time.monotonic() - began) / 60, (time.process_time() - began_cpu) / 60)
    ids = {*baseline.training.get("episodes", ()), *Lessons(fresh, failed).episode_ids}
    record = training_record(
        sorted(ids),
        settings,
        clock,
        len(fresh),
        parent=baseline.checkpoint_id,
        renderer=renderer_of(baseline.training),
        failed=len(failed),
        left_out=fresh.left_out,
    )
    return replace(baseline, weights=weights, training=record, measured={})


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


def _refuse(pointer: Pointer, baseline: Checkpoint, candidate: str | None, reason: str) -> Outcome:
    pointer.log("refused", candidate or "", baseline.checkpoint_id, reason)
    return Outcome(pointer.task, candidate, baseline.checkpoint_id, "refused", reason)

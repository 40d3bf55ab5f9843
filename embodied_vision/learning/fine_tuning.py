"""A checkpoint trained on: from which episodes, and how."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.corrections import CORRECTIONS
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.dataset import Dataset, may_teach, renderer_of, teaches
from embodied_vision.learning.environments import FIRST_RENDERER
from embodied_vision.learning.experience import DEMONSTRATORS, Sample, Weights
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.lessons import Lessons, lessons
from embodied_vision.learning.runs import Clock, training_record
from embodied_vision.learning.train import Report, TrainConfig, train
from embodied_vision.policies.checkpoint import Checkpoint


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


def rehearsal(
    task: str, known: set[str], stores: Sequence[EpisodeStore], encoder: Encoder | None, baseline: Checkpoint
) -> Dataset | None:
    """What the baseline learnt from, as far as the stores still hold it."""
    for store in stores:
        there = known & set(store.ids()) if store.exists() else set()
        if there and (found := taught(task, store, there, encoder, baseline).good):
            return found
    return None


def require_renderer(fresh: Dataset, baseline: Checkpoint, store: EpisodeStore) -> None:
    known = renderer_of(baseline.training)
    if fresh.renderer not in ("", known):
        raise BadInput(
            f"episodes in {store.path} were drawn by {fresh.renderer}, the checkpoint in use learnt from pictures by "
            f"{known}; log them with the renderer {known}, or train a policy of their own"
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

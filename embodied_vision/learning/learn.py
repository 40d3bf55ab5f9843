"""Continual learning: from newly logged episodes to a promoted checkpoint, or a refusal that says why."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.learning.dataset import renderer_of, teaching_ids
from embodied_vision.learning.decide import Outcome, Progress, decide, refuse, start
from embodied_vision.learning.experience import earns_at_once
from embodied_vision.learning.fine_tuning import (
    corrected_ids,
    failed_ids,
    fine_tune,
    rehearsal,
    require_renderer,
    taught,
)
from embodied_vision.learning.holdout import is_held_out
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.lessons import MOST_FAILED
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.train import Report
from embodied_vision.policies.policy import Policy


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
            return refuse(pointer, baseline, None, reason)
        eyes = load_encoder(encoder) if baseline.encoder_id else None
        Policy(baseline, eyes)  # refuses another encoder before any time is spent
        stores = [replay, store] if replay is not None else [store]
        failed = failed_ids(store, task, renderer_of(baseline.training)) if config.failed else []
        failed = [e for e in failed if e not in known and not is_held_out(e, config.holdout)][-MOST_FAILED:]
        at_once = any(earns_at_once(each, task) for each in stores)
        fresh = taught(task, store, new, eyes, baseline, failed=failed, weight=config.failed, at_once=at_once)
        require_renderer(fresh.good, baseline, store)
        old = rehearsal(task, known, stores, eyes, baseline)
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

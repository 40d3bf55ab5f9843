"""Training a policy again without some episodes, from where it had not seen them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning import lineage
from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.decide import Outcome, Progress, decide
from embodied_vision.learning.fine_tuning import fine_tune, taught
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.runs import train_run
from embodied_vision.learning.train import Report
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.checkpoint import Checkpoint


def retrain(
    task: str,
    without: Sequence[str],
    store: EpisodeStore,
    policies: Path,
    config: LearnConfig,
    *,
    encoder: str = "default",
    report: Report | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train the policy in use again as if it had never seen some episodes, and put the result to the gate.

    Training goes on from the nearest ancestor that saw none of them; where there is none it begins anew.

    Args:
        task: name of the task.
        without: ids of the episodes.
        store: holds what else the policy learnt from; what it no longer holds is not learnt again.
        policies: folder of pointers and checkpoints.
        config: of fine-tuning and gate.
        encoder: name or folder of the encoder.
        report, progress: as of `learn`.

    Raises:
        BadInput: no policy is in use, or nothing is left to learn from.
        RunFailed: another learner is at work, or a loss is not finite.
    """
    pointer = Pointer(policies, task)
    with pointer.locked():
        folder, missing = lineage.untouched(task, without, policies)
        assert pointer.current is not None
        current = checkpoints.load(pointer.path(pointer.current))
        there = sorted(set(missing) & set(store.ids()))
        if folder is not None and not there:
            candidate = checkpoints.load(folder)
        elif not there:
            raise BadInput(
                f"{store.path} holds none of the other {len(missing)} episodes that {pointer.current} learnt from; "
                "name the store that does"
            )
        else:
            eyes = load_encoder(encoder) if current.encoder_id else None
            data = taught(task, store, there, eyes, current, weight=config.failed)
            if folder is not None:
                candidate = checkpoints.load(folder)
                if data.good:  # failures alone are no lesson
                    candidate = fine_tune(candidate, data.good, None, config, report, failed=data.failed)
            elif not data.good:
                raise BadInput(
                    f"the other {len(there)} episodes in {store.path} that {pointer.current} learnt from show nothing "
                    "that is to be done; name the store of its demonstrations"
                )
            else:
                with tempfile.TemporaryDirectory(dir=pointer.folder, prefix=".retrained-") as work:
                    candidate = train_run(
                        data.good,
                        eyes,
                        Path(work),
                        _settings(current),
                        network=current.config,
                        workspace=current.workspace,
                        threads=config.threads,
                        report=report,
                    )
            candidate = replace(candidate, training={**candidate.training, "without": sorted(without)})
        return decide(pointer, candidate, config, store=store, encoder=encoder, progress=progress)


def _settings(checkpoint: Checkpoint) -> TrainConfig:
    """How it was trained."""
    known = {field.name for field in fields(TrainConfig)}
    return TrainConfig(**{name: value for name, value in checkpoint.training.items() if name in known})

"""A training run from an episode store to a checkpoint folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from embodied_vision.encoders.base import Encoder
from embodied_vision.learning import provenance
from embodied_vision.learning.dataset import Dataset
from embodied_vision.learning.train import Report, TrainConfig, train
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from embodied_vision.types import Workspace

CHECKPOINT, STATE, CLOCK = "checkpoint", "state", "clock.json"


@dataclass(frozen=True)
class Clock:
    """Time spent on a run, over all its resumptions.

    Attributes:
        minutes: wall clock.
        cpu_minutes: of all threads.
    """

    minutes: float = 0.0
    cpu_minutes: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> Clock:
        """What earlier parts of the run took; nothing when there were none."""
        path = folder / CLOCK
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else cls()

    def write(self, folder: Path) -> None:
        """Keep it for the next part of the run."""
        folder.mkdir(parents=True, exist_ok=True)
        staging = folder / f".{CLOCK}"
        staging.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(staging, folder / CLOCK)


def train_run(
    dataset: Dataset,
    encoder: Encoder | None,
    output: Path,
    config: TrainConfig,
    *,
    workspace: Workspace | None = None,
    resume: bool = False,
    threads: int = 2,
    report: Report | None = None,
) -> Checkpoint:
    """Train from scratch and save `output`/checkpoint; `output`/state is what `resume` goes on from.

    Raises:
        BadInput: `resume` without a fitting state.
        RunFailed: a loss is not finite.
    """
    shapes = NetworkConfig(features=encoder.dimension if encoder is not None else 0)
    normalisation = dataset.normalisation()
    before = Clock.read(output / STATE) if resume else Clock()
    start, start_cpu = time.monotonic(), time.process_time()

    def now() -> Clock:
        return Clock(
            before.minutes + (time.monotonic() - start) / 60,
            before.cpu_minutes + (time.process_time() - start_cpu) / 60,
        )

    try:
        weights = train(
            dataset,
            PolicyNetwork.seeded(shapes, config.seed),
            normalisation,
            config,
            state=output / STATE,
            resume=resume,
            threads=threads,
            report=report,
        )
    finally:
        now().write(output / STATE)
    checkpoint = Checkpoint(
        task=dataset.task,
        encoder_id=dataset.encoder_id,
        workspace=workspace or Workspace(),
        config=shapes,
        normalisation=normalisation,
        weights=weights,
        primitive=dataset.primitive,
        release_m=dataset.release_m(),
        hang_m=dataset.hang_m(),
        tip_m=dataset.tip_m(),
        training=training_record(
            dataset.episode_ids,
            config,
            now(),
            len(dataset),
            scene_seeds=list(dataset.scene_seeds),
            renderer=dataset.renderer,
        ),
    )
    checkpoints.save(checkpoint, output / CHECKPOINT)
    return checkpoint


def training_record(
    episode_ids: Sequence[str], config: TrainConfig, clock: Clock, examples: int, **more: Any
) -> dict[str, Any]:
    """The `training` section of a manifest."""
    return {
        "demos": len(episode_ids),
        "examples": examples,
        "episodes": list(episode_ids),
        **asdict(config),
        "minutes": round(clock.minutes, 2),
        "cpu_minutes": round(clock.cpu_minutes, 2),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "command": provenance.command(),
        **more,
    }


def parameters(weights: Mapping[str, Tensor]) -> int:
    """Number of weights."""
    return sum(value.numel() for value in weights.values())

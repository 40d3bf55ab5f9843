"""A training run from an episode store to a checkpoint folder."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from embodied_vision import locks
from embodied_vision.encoders.base import Encoder
from embodied_vision.errors import BadInput
from embodied_vision.learning import provenance
from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.dataset import POOL, Dataset
from embodied_vision.learning.distributed import Group
from embodied_vision.learning.train import ALONE, Report, train
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from embodied_vision.types import Workspace

CHECKPOINT, STATE, CLOCK = "checkpoint", "state", "clock.json"
SHAPES = NetworkConfig()


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
        staging = folder / f".{CLOCK}.{uuid.uuid4().hex[:8]}"
        staging.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(staging, folder / CLOCK)


def train_run(
    dataset: Dataset,
    encoder: Encoder | None,
    output: Path,
    config: TrainConfig,
    *,
    network: NetworkConfig = SHAPES,
    workspace: Workspace | None = None,
    resume: bool = False,
    threads: int = 2,
    report: Report | None = None,
    save_every_s: float = 20.0,
    group: Group = ALONE,
) -> Checkpoint:
    """Train from scratch and save `output`/checkpoint; `output`/state is what `resume` goes on from.

    Args:
        dataset: what to learn from.
        encoder: whose features it carries; None for none.
        output: folder of the run; the leader of the group alone writes to it.
        config: how to optimise.
        network: shapes; how many features there are is the encoder's to say.
        workspace: the map.
        resume: go on from the state.
        threads: that compute gradients.
        report: progress.
        save_every_s: how often the state is written.
        group: the processes that share the work, and where they compute.

    Raises:
        BadInput: `resume` without a fitting state, or settings that do not fit the demonstrations.
        RunFailed: a loss is not finite, another run writes to `output`, or another process of the group has gone.
    """
    shapes = replace(network, features=encoder.dimension if encoder is not None else 0)
    if shapes.features and shapes.coarse_pool != POOL:
        raise BadInput(f"network.coarse_pool is {shapes.coarse_pool}, features are pooled by {POOL}; give {POOL}")
    normalisation = dataset.normalisation()
    before = Clock.read(output / STATE) if resume else Clock()
    start, start_cpu = time.monotonic(), time.process_time()

    def now() -> Clock:
        return Clock(
            before.minutes + (time.monotonic() - start) / 60,
            before.cpu_minutes + (time.process_time() - start_cpu) / 60,
        )

    with ExitStack() as held:
        if group.leads:
            busy = f"another training run writes to {output}; wait for its end or give another --output"
            held.enter_context(locks.exclusive(output / STATE / "lock", busy))
        weights = train(
            dataset,
            PolicyNetwork.seeded(shapes, config.seed),
            normalisation,
            config,
            state=output / STATE,
            resume=resume,
            threads=threads,
            report=report,
            save_every_s=save_every_s,
            on_save=lambda: now().write(output / STATE),
            group=group,
        )
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
                left_out=dataset.left_out,
                device=group.device.type,
                processes=group.size,
            ),
        )
        if group.leads:
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

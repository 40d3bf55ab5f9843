"""Training of the two stages, each a deterministic function of data, settings and seed.

The randomness of a step depends on the seed, the stage and the step's number alone, so a run that was interrupted and
resumed ends in the same weights, bit for bit, and so do one and two threads (a thread trains one stage).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning.dataset import Dataset
from embodied_vision.learning.losses import stage_losses
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import CoarseNet, FineNet, NetworkConfig, PolicyNetwork

Stage = Literal["coarse", "fine"]
STAGES: tuple[Stage, ...] = ("coarse", "fine")
Report = Callable[[Stage, int, Mapping[str, float]], None]
"""Called after each step with stage, number of steps done and losses; may run on any thread."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; one set serves every task.

    Attributes:
        steps: optimiser steps of each stage.
        batch: examples a step.
        learning_rate: at its highest; warms up over 5 % of the steps and falls as a cosine to 2 %.
        weight_decay: of AdamW.
        ema: decay of the averaged weights, which are the result.
        tried: rotation bins that a fine step tries, of all.
        clip: largest norm of the gradient.
        seed: all randomness.
    """

    steps: int = 600
    batch: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    ema: float = 0.995
    tried: int = 12
    clip: float = 1.0
    seed: int = 0


def train(
    dataset: Dataset,
    network: PolicyNetwork,
    normalisation: Normalisation,
    config: TrainConfig,
    *,
    state: Path | None = None,
    resume: bool = False,
    threads: int = 2,
    report: Report | None = None,
    save_every_s: float = 20.0,
    replay: Dataset | None = None,
    limit_s: float = math.inf,
) -> dict[str, Tensor]:
    """Train both stages and return the averaged weights; `network` holds the last ones.

    Args:
        dataset: what to learn from.
        network: where to start from; trained in place.
        normalisation: of the features.
        config: settings.
        state: folder for what `resume` needs; None keeps none.
        resume: go on from `state`.
        threads: 2 trains the stages side by side, 1 one after the other, with the same result.
        report: progress.
        save_every_s: how often `state` is written.
        replay: older data; when given, half of each batch comes from it.
        limit_s: training ends after these seconds at the latest, with the average so far.

    Raises:
        BadInput: `state` belongs to other data or settings.
        RunFailed: a loss is not finite.
    """
    torch.set_num_threads(1)
    fingerprint = _fingerprint(dataset, replay, network.config, config)
    stop = threading.Event()
    deadline = time.monotonic() + limit_s
    datasets = (dataset,) if replay is None else (dataset, replay)

    def run(stage: Stage) -> dict[str, Tensor]:
        path = state / f"{stage}.safetensors" if state is not None else None
        trainer = StageTrainer(stage, getattr(network, stage), datasets, normalisation, config, fingerprint)
        if path is not None and resume:
            trainer.restore(path)
        saved = time.monotonic()
        while trainer.step < config.steps and not stop.is_set() and time.monotonic() < deadline:
            losses = trainer.advance()
            if report is not None:
                report(stage, trainer.step, losses)
            if path is not None and time.monotonic() - saved > save_every_s:
                trainer.save(path)
                saved = time.monotonic()
        if path is not None:
            trainer.save(path)
        return {f"{stage}.{name}": value for name, value in trainer.average.items()}

    with ThreadPoolExecutor(max_workers=max(1, min(threads, len(STAGES)))) as pool:
        futures = [pool.submit(run, stage) for stage in STAGES]
        try:
            results = [future.result() for future in futures]
        finally:
            stop.set()
    return {name: value for result in results for name, value in result.items()}


class StageTrainer:
    """One stage's weights, optimiser and average."""

    def __init__(
        self,
        stage: Stage,
        net: CoarseNet | FineNet,
        datasets: Sequence[Dataset],
        normalisation: Normalisation,
        config: TrainConfig,
        fingerprint: str,
    ) -> None:
        self.stage, self.net, self.datasets = stage, net.train(), datasets
        self.normalisation, self.config, self.fingerprint = normalisation, config, fingerprint
        self.step = 0
        self.optimiser = torch.optim.AdamW(
            net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        self.average = {name: value.detach().clone() for name, value in net.state_dict().items()}

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns the losses."""
        config = self.config
        rng = np.random.default_rng([config.seed, STAGES.index(self.stage), self.step])
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule(self.step / config.steps)
        losses = self._losses(rng)
        total: Tensor = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise RunFailed(f"loss of the {self.stage} stage is {total.item()} at step {self.step}; lower the rate")
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), config.clip)
        self.optimiser.step()
        self.step += 1
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        chosen = []
        for k in range(self.config.batch):
            dataset = self.datasets[k % len(self.datasets)]
            chosen.append(dataset.examples[int(rng.integers(len(dataset)))])
        return stage_losses(self.net, chosen, self.normalisation, self.config, rng)

    def save(self, path: Path) -> None:
        """Write everything that `restore` needs, in one rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"weights.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for name, parameter in self.net.named_parameters():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"{key}.{name}"] = value
        staging = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        tensors = {name: value.detach().contiguous() for name, value in tensors.items()}
        save_file(tensors, staging, metadata={"step": str(self.step), "fingerprint": self.fingerprint})
        os.replace(staging, path)

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            BadInput: it belongs to other data or settings, or there is none.
        """
        if not path.is_file():
            raise BadInput(f"nothing to resume at {path}; leave out --resume to start anew")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["fingerprint"] != self.fingerprint:
            raise BadInput(
                f"{path} belongs to other demonstrations or settings; pass those of the first run, or leave out "
                "--resume to start anew"
            )
        self.net.load_state_dict(_under("weights.", tensors))
        self.average = _under("average.", tensors)
        for name, parameter in self.net.named_parameters():
            keys = ("step", "exp_avg", "exp_avg_sq")
            self.optimiser.state[parameter] = {k: tensors[f"{k}.{name}"] for k in keys if f"{k}.{name}" in tensors}
        self.step = int(metadata["step"])


def _schedule(done: float) -> float:
    """Share of the highest learning rate when `done` of the run, in [0, 1), lies behind."""
    if done < 0.05:
        return 0.05 + 0.95 * done / 0.05
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _fingerprint(dataset: Dataset, replay: Dataset | None, network: NetworkConfig, config: TrainConfig) -> str:
    text = json.dumps(
        [dataset.digest(), replay.digest() if replay else "", network.to_dict(), asdict(config)], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()

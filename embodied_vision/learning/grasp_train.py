"""Training of the grasp head on labelled grasps: a deterministic function of data, settings and seed.

A step's randomness depends on the seed and the step's number alone, so an interrupted run that is resumed ends in the
same weights, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from embodied_vision.encoders.base import Encoder
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning import provenance
from embodied_vision.learning.grasp_configuration import GraspRunConfig
from embodied_vision.learning.grasp_dataset import Attempts, Batch, GraspDataset
from embodied_vision.learning.runs import CHECKPOINT, STATE, Clock
from embodied_vision.learning.state import State, restore_state, save_state
from embodied_vision.policies import grasp_checkpoint
from embodied_vision.policies.grasp_checkpoint import GraspCheckpoint
from embodied_vision.policies.grasp_network import GraspConfig, GraspNet

Report = Callable[[int, float], None]
"""Called after each step with the number of steps done and the loss."""
FLOOR_M = 0.008
"""Least height of the tip, as in the labelled grasps."""


def logits_at(net: GraspNet, batch: Batch) -> Tensor:
    """Logits (N, K) at the tips."""
    size = batch.views.shape[-1]
    grid = (2 * batch.points.flip(1) + 1) / size - 1
    sampled = functional.grid_sample(net(batch.views), grid[:, None, None], mode="bilinear", align_corners=False)
    return sampled[:, :, 0, 0]


def grasp_loss(net: GraspNet, batch: Batch) -> Tensor:
    """Binary cross-entropy of success at the cell, angle and depth that were tried."""
    logits = logits_at(net, batch)
    wanted = batch.success[:, None].expand_as(logits)
    losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (batch.depths * losses).sum() / batch.depths.sum().clamp_min(1e-6)


class GraspTrainer:
    """Weights, optimiser and average."""

    def __init__(self, net: GraspNet, attempts: Attempts, config: GraspRunConfig, fingerprint: str) -> None:
        self.net, self.attempts, self.fingerprint = net.train(), attempts, fingerprint
        self.config, self.variation = config.train, config.variation
        self.step = 0
        self.optimiser = torch.optim.AdamW(
            net.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay, foreach=True
        )
        self.average = {name: value.detach().clone() for name, value in net.state_dict().items()}

    def advance(self) -> float:
        """One optimiser step; returns the loss.

        Raises:
            RunFailed: the loss is not finite.
        """
        config = self.config
        rng = np.random.default_rng([config.seed, self.step])
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule(self.step / config.steps)
        indices = self.attempts.draw(config.batch, rng)
        loss = grasp_loss(self.net, self.attempts.batch(self.net, indices, (self.variation, rng)))
        if not torch.isfinite(loss):
            raise RunFailed(f"loss is {loss.item()} at step {self.step}; lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), config.clip)
        self.optimiser.step()
        self.step += 1
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Write everything that `restore` needs, in one rename."""
        save_state(path, self.net, self.optimiser, State(self.step, self.average), self.fingerprint)

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            BadInput: it belongs to other data or settings, is damaged, or there is none.
        """
        state = restore_state(path, self.net, self.optimiser, self.fingerprint, "grasps")
        self.step, self.average = state.step, state.average


def _schedule(done: float) -> float:
    """Share of the highest learning rate when `done` of the run, in [0, 1), lies behind."""
    if done < 0.05:
        return 0.05 + 0.95 * done / 0.05
    return 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95))


@torch.inference_mode()
def check(net: GraspNet, attempts: Attempts) -> dict[str, float]:
    """How well a network tells successes from failures: share right at even odds, and area under the ROC curve."""
    logits = []
    for part in np.array_split(np.arange(len(attempts)), max(1, len(attempts) // 64)):
        batch = attempts.batch(net, part)
        logits.append((batch.depths * logits_at(net, batch)).sum(1) / batch.depths.sum(1).clamp_min(1e-6))
    scores = torch.cat(logits).numpy()
    right = float(((scores > 0) == attempts.success).mean())
    return {"accuracy": round(right, 4), "auc": round(roc_area(scores, attempts.success), 4)}


def roc_area(scores: NDArray[np.floating], success: NDArray[np.bool_]) -> float:
    """Share of pairs of a success and a failure that scores order rightly; 0.5 without both."""
    won, lost = scores[success], scores[~success]
    if not len(won) or not len(lost):
        return 0.5
    above = np.searchsorted(np.sort(lost), won, "left") + np.searchsorted(np.sort(lost), won, "right")
    return float(above.mean() / (2 * len(lost)))


def train_grasps(
    dataset: GraspDataset,
    encoder: Encoder | None,
    output: Path,
    config: GraspRunConfig,
    *,
    resume: bool = False,
    report: Report | None = None,
    save_every_s: float = 30.0,
) -> GraspCheckpoint:
    """Train from scratch and save `output`/checkpoint; `output`/state is what `resume` goes on from.

    Raises:
        BadInput: `resume` without a fitting state, or too few scenes.
        RunFailed: the loss is not finite.
    """
    if len(dataset.scenes) < 2:
        raise BadInput(f"{len(dataset.scenes)} scene with labelled grasps; label at least 2")
    shapes = replace(config.network, features=encoder.dimension if encoder is not None else 0)
    learnt, kept = dataset.parted(config.train.held_out)
    normalisation = learnt.normalisation()
    attempts = Attempts(learnt, normalisation, shapes.depths_m, FLOOR_M)
    fingerprint = _fingerprint(dataset, shapes, config)
    trainer = GraspTrainer(GraspNet.seeded(shapes, config.train.seed), attempts, config, fingerprint)
    state = output / STATE / "grasp.safetensors"
    before = Clock()
    if resume:
        trainer.restore(state)
        before = Clock.read(output / STATE)
    start, start_cpu = time.monotonic(), time.process_time()

    def keep() -> Clock:
        trainer.save(state)
        spent = (time.monotonic() - start) / 60, (time.process_time() - start_cpu) / 60
        clock = Clock(before.minutes + spent[0], before.cpu_minutes + spent[1])
        clock.write(output / STATE)
        return clock

    saved = time.monotonic()
    while trainer.step < config.train.steps:
        loss = trainer.advance()
        if report is not None:
            report(trainer.step, loss)
        if time.monotonic() - saved > save_every_s:
            keep()
            saved = time.monotonic()
    clock = keep()
    trainer.net.load_state_dict(trainer.average)
    checked = check(trainer.net.eval(), Attempts(kept, normalisation, shapes.depths_m, FLOOR_M))
    checkpoint = GraspCheckpoint(
        task=dataset.task,
        encoder_id=encoder.encoder_id if encoder is not None else "",
        workspace=dataset.workspace,
        config=shapes,
        normalisation=normalisation,
        weights=trainer.average,
        lift_m=dataset.lift_m(),
        floor_m=FLOOR_M,
        training={
            "attempts": dataset.attempts,
            "successes": dataset.successes,
            "scenes": len(dataset.scenes),
            "checked": {"attempts": kept.attempts, **checked},
            "data": dataset.digest(),
            "renderer": dataset.renderers[0] if len(dataset.renderers) == 1 else "",
            **asdict(config.train),
            "variation": asdict(config.variation),
            "minutes": round(clock.minutes, 2),
            "cpu_minutes": round(clock.cpu_minutes, 2),
            "versions": provenance.versions(),
            "git_commit": provenance.git_commit(),
            "command": provenance.command(),
        },
    )
    grasp_checkpoint.save(checkpoint, output / CHECKPOINT)
    return checkpoint


def _fingerprint(dataset: GraspDataset, shapes: GraspConfig, config: GraspRunConfig) -> str:
    settings = [shapes.to_dict(), asdict(config.train), asdict(config.variation)]
    text = json.dumps([dataset.digest(), *settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

"""One stage of the policy in training: a step is a sum over examples, each a job of its own.

The randomness of an example depends on the seed, the stage, the step's number and the example's number in the batch
alone, and gradients are added in a fixed order. So whoever computes them, one thread or several, and whether or not a
run was interrupted and resumed in between, the weights are the same to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from embodied_vision.errors import RunFailed
from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.dataset import Dataset
from embodied_vision.learning.distributed import Group
from embodied_vision.learning.losses import stage_losses
from embodied_vision.learning.state import State, restore_state, save_state
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import CoarseNet, FineNet

Stage = Literal["coarse", "fine"]
STAGES: tuple[Stage, ...] = ("coarse", "fine")
Draw = Callable[[int, int, np.random.Generator], dict[str, Tensor]]
"""The losses of an example, by step, number in the batch, and the randomness that belongs to these two; runs on several
threads at once."""


class StageTrainer:
    """One stage's weights, optimiser and average."""

    def __init__(
        self,
        stage: Stage,
        net: nn.Module,
        draw: Draw,
        config: TrainConfig,
        fingerprint: str,
        *,
        workers: Executor,
        group: Group,
    ) -> None:
        """Start at step 0.

        Args:
            stage: which one.
            net: its network, on the group's device; trained in place, but for what needs no gradient.
            draw: gives the losses of an example.
            config: settings.
            fingerprint: of data and settings; `restore` refuses another.
            workers: threads that compute gradients, one for each example.
            group: the processes that share a batch.
        """
        self.stage, self.net, self.draw = stage, net.train(), draw
        self.config, self.fingerprint = config, fingerprint
        self.step = 0
        self._workers, self._group, self._share = workers, group, group.share(config.batch)
        self._parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self._parameters, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        self.average = {name: value.detach().clone() for name, value in net.state_dict().items()}

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns the losses, means over the batch.

        Raises:
            RunFailed: a loss or a gradient is not finite, or another process has gone.
        """
        config = self.config
        for settings in self.optimiser.param_groups:
            settings["lr"] = learning_rate(config, self.step)
        jobs = [self._workers.submit(self._example, number) for number in self._share]
        done = [job.result() for job in jobs]
        names = done[0][0]
        summed = self._group.add(_sum([values for _, values in done]))
        losses = dict(zip(names, summed[: len(names)].tolist(), strict=True))
        total = sum(losses.values())
        self._set_gradients(summed[len(names) :])
        norm = float(nn.utils.clip_grad_norm_(self._parameters, config.clip))
        if not (math.isfinite(total) and math.isfinite(norm)):
            culprit = "loss" if not math.isfinite(total) else "gradient"
            value = total if culprit == "loss" else norm
            raise RunFailed(f"{culprit} of the {self.stage} stage is {value} at step {self.step}; lower the rate")
        self.optimiser.step()
        self.step += 1
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return losses

    def _example(self, number: int) -> tuple[tuple[str, ...], Tensor]:
        """Names of the losses; one vector of their values, then the gradients, over the size of the batch."""
        rng = np.random.default_rng([self.config.seed, STAGES.index(self.stage), self.step, number])
        losses = self.draw(self.step, number, rng)
        values = torch.stack(list(losses.values())) / self.config.batch
        gradients = torch.autograd.grad(values.sum(), self._parameters, materialize_grads=True)
        return tuple(losses), torch.cat([values.detach(), *(gradient.flatten() for gradient in gradients)])

    def _set_gradients(self, values: Tensor) -> None:
        parts = values.split([parameter.numel() for parameter in self._parameters])
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def save(self, path: Path) -> None:
        """Write everything that `restore` needs, in one rename."""
        save_state(path, self.net, self.optimiser, State(self.step, self.average), self.fingerprint)

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            BadInput: it belongs to other data or settings, is damaged, or there is none.
        """
        state = restore_state(path, self.net, self.optimiser, self.fingerprint, "demonstrations")
        self.step, self.average = state.step, state.average


def draw_in_turn(
    net: CoarseNet | FineNet, datasets: Sequence[Dataset], normalisation: Normalisation, config: TrainConfig
) -> Draw:
    """Examples drawn evenly; those of a batch come from the data sets in turn."""

    def draw(step: int, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        dataset = datasets[number % len(datasets)]
        example = dataset.examples[int(rng.integers(len(dataset)))]
        return stage_losses(net, [example], normalisation, config, rng)

    return draw


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of the step that follows after `step` of them."""
    done = step / config.steps
    if done < 0.05:
        return config.learning_rate * (0.05 + 0.95 * done / 0.05)
    return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95)))


def _sum(values: Sequence[Tensor]) -> Tensor:
    """Sum by halves, so that two processes with half of the values each arrive at the same bits as one with all."""
    if len(values) == 1:
        return values[0]
    middle = len(values) // 2
    return _sum(values[:middle]) + _sum(values[middle:])

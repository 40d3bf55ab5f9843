"""What keeps weights of the trunk from changing, as two baselines have it.

EWC (Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017) pulls each weight back to
where it was after every earlier task, as strongly as the task's Fisher information says; the sum of these quadratic
penalties needs two numbers a weight, however many tasks there are. PackNet (Mallya & Lazebnik, "PackNet: Adding
Multiple Tasks to a Single Network by Iterative Pruning", CVPR 2018) gives each task the largest of the weights that are
still free, trains these a little more, and never touches them again; a task is run with its own and earlier weights
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from embodied_vision.learning.continual.shared import SharedHead, SharedStage
from embodied_vision.learning.stage import STAGES

PRUNED_AFTER = 0.75
"""PackNet prunes after this share of the steps and spends the rest on what is left."""


class Guard(Protocol):
    """Holds the weights of one stage's trunk while it is trained."""

    def adjust(self) -> None:
        """Change the gradients before they are clipped."""
        ...

    def settle(self, step: int, average: dict[str, Tensor]) -> None:
        """Change weights and their average after so many steps."""
        ...


class Ewc:
    """Gradient of λ/2 Σ F (θ − θ*)² over earlier tasks.

    Args:
        net: the stage.
        memory: of the stage: `fisher.NAME`, Σ F, and `pull.NAME`, Σ F θ*.
        strength: λ.
    """

    def __init__(self, net: SharedStage, memory: Mapping[str, Tensor], strength: float) -> None:
        self._held = [
            (p, memory[f"fisher.{name}"], memory[f"pull.{name}"])
            for name, p in net.shared_parameters().items()
            if f"fisher.{name}" in memory
        ]
        self._strength = strength

    def adjust(self) -> None:
        """See `Guard`."""
        for parameter, fisher, pull in self._held:
            assert parameter.grad is not None
            # Out of place: gradients are views of the sum over the batch.
            parameter.grad = parameter.grad + self._strength * (fisher * parameter.detach() - pull)

    def settle(self, step: int, average: dict[str, Tensor]) -> None:
        """See `Guard`."""


def remember_ewc(memory: dict[str, Tensor], stage: str, net: SharedStage, fisher: Mapping[str, Tensor]) -> None:
    """Add a task that has just been learnt, with its Fisher information by parameter's name, to a head's memory."""
    for name, parameter in net.shared_parameters().items():
        for kind, value in (("fisher", fisher[name]), ("pull", fisher[name] * parameter.detach())):
            key = f"{stage}.{kind}.{name}"
            memory[key] = memory[key] + value if key in memory else value.clone()


class PackNet:
    """Leaves the weights of earlier tasks as they are, prunes the new ones once, and keeps what is pruned at zero.

    Args:
        net: the stage.
        owner: by parameter's name, int16: 0 for free, k for the k-th task.
        share: of the free weights of each tensor, so much is the new task's.
        prune_at: step after which it prunes.
    """

    def __init__(self, net: SharedStage, owner: Mapping[str, Tensor], share: float, prune_at: int) -> None:
        self._parameters = net.shared_parameters()
        self._fixed = {name: owner[name] > 0 for name in self._parameters}
        self._values = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._share, self._prune_at = share, prune_at
        self._pruned: dict[str, Tensor] | None = None

    def adjust(self) -> None:
        """See `Guard`."""
        for name, parameter in self._parameters.items():
            assert parameter.grad is not None
            still = self._fixed[name] if self._pruned is None else self._fixed[name] | self._pruned[name]
            parameter.grad = parameter.grad.masked_fill(still, 0)

    @torch.no_grad()
    def settle(self, step: int, average: dict[str, Tensor]) -> None:
        """See `Guard`."""
        if step >= self._prune_at and self._pruned is None:
            # A run that is resumed has pruned already: then the smallest ones are those at zero.
            self._pruned = {name: self._smallest(name) for name in self._parameters}
        for name, parameter in self._parameters.items():
            for tensor in (parameter, average[f"shared.{name.replace('.', '/')}"]):
                tensor.copy_(torch.where(self._fixed[name], self._values[name], tensor))
                if self._pruned is not None:
                    tensor.masked_fill_(self._pruned[name], 0)

    def _smallest(self, name: str) -> Tensor:
        """Of the free weights all but the largest."""
        value, free = self._parameters[name].detach().abs().flatten(), ~self._fixed[name].flatten()
        count = int(free.sum())
        kept = round(self._share * count)
        order = torch.where(free, value, -1.0).argsort(descending=True, stable=True)
        pruned = torch.zeros_like(free)
        pruned[order[kept:count]] = True
        return pruned.view_as(self._fixed[name])


def owners(head: SharedHead, stage: str) -> dict[str, Tensor]:
    """Whose each weight of a stage's trunk is; see `PackNet`."""
    names = head.stage(stage).shared_parameters()
    return {
        name: head.memory.get(f"{stage}.owner.{name}", torch.zeros(p.shape, dtype=torch.int16))
        for name, p in names.items()
    }


def remember_packnet(head: SharedHead) -> None:
    """Note in a head's memory whose its weights are, after its last task was learnt."""
    for stage in STAGES:
        for name, owner in owners(head, stage).items():
            new = (owner == 0) & (head.stage(stage).shared_parameters()[name].detach() != 0)
            head.memory[f"{stage}.owner.{name}"] = torch.where(new, len(head.tasks), owner).to(torch.int16)


def packed_trunk(head: SharedHead, task: str) -> dict[str, Tensor]:
    """The trunk as a task of PackNet uses it, by stage and name."""
    number = list(head.tasks).index(task) + 1
    trunk = {}
    for stage in STAGES:
        for name, owner in owners(head, stage).items():
            value: nn.Parameter = head.stage(stage).shared_parameters()[name]
            # Not a product: that would leave zeros of either sign.
            trunk[f"{stage}.{name}"] = value.detach().masked_fill((owner == 0) | (owner > number), 0)
    return trunk

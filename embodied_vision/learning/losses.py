"""What the two stages minimise on a batch of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from embodied_vision.learning import augment
from embodied_vision.learning.dataset import Example
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import CoarseNet, FineNet

Sample = TypeVar("Sample", augment.CoarseSample, augment.FineSample)


class LossConfig(Protocol):
    """What the losses need of the settings of a training run."""

    @property
    def tried(self) -> int:
        """Rotation bins that a fine step tries, of all."""
        ...


def stage_losses(
    net: CoarseNet | FineNet,
    examples: Sequence[Example],
    normalisation: Normalisation,
    config: LossConfig,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Scalar losses of a stage on a batch, each example augmented anew."""
    return label_losses(stage_outputs(net, stage_samples(net, examples, normalisation, config, rng)))


def stage_samples(
    net: CoarseNet | FineNet,
    examples: Sequence[Example],
    normalisation: Normalisation,
    config: LossConfig,
    rng: np.random.Generator,
) -> list[augment.CoarseSample] | list[augment.FineSample]:
    """What a stage is shown of a batch, each example augmented anew; on the device of `net`."""
    device = next(net.parameters()).device
    examples = [augment.mirrored(example) if rng.uniform() < 0.5 else example for example in examples]
    examples = [augment.relit(example, rng) if rng.uniform() < augment.RELIT else example for example in examples]
    if isinstance(net, CoarseNet):
        return [on_device(augment.coarse_sample(e, normalisation, net.config, rng), device) for e in examples]
    return [on_device(augment.fine_sample(e, net.config, config.tried, rng), device) for e in examples]


@dataclass(frozen=True, eq=False)
class Output:
    """What a stage says, and what it should.

    Attributes:
        logits: (N, …).
        label: (N, …), sums to one over all but its first axis.
    """

    logits: Tensor
    label: Tensor


def stage_outputs(
    net: CoarseNet | FineNet, samples: list[augment.CoarseSample] | list[augment.FineSample]
) -> dict[str, Output]:
    """Logits and labels by the name of their loss, for samples of the stage of `net`."""
    if isinstance(net, CoarseNet):
        coarse = cast(list[augment.CoarseSample], samples)
        pick, rest = net(torch.stack([s.pooled for s in coarse]))
        place = net.place(rest, torch.stack([s.picked for s in coarse]))
        return {
            "pick": Output(pick, torch.stack([s.pick for s in coarse])),
            "place": Output(place, torch.stack([s.place for s in coarse])),
        }
    fine = cast(list[augment.FineSample], samples)
    views = [augment.fine_views(net, s) for s in fine]
    logits = net(torch.stack([q for q, _ in views]), torch.stack([k for _, k in views]))
    logits = logits + torch.stack([s.log_weight for s in fine])[:, None, :, None, None]
    return {"fine": Output(logits, torch.stack([s.label for s in fine]))}


def label_losses(outputs: Mapping[str, Output]) -> dict[str, Tensor]:
    """Cross entropy of each output with its label, mean over the batch."""
    return {name: cross_entropy(output.logits, output.label) for name, output in outputs.items()}


def on_device(sample: Sample, device: torch.device) -> Sample:
    """The sample with its tensors, also those in lists, on a device."""
    moved: dict[str, Any] = {}
    for field in fields(sample):
        value = getattr(sample, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device)
        elif isinstance(value, list):
            moved[field.name] = [each.to(device) if isinstance(each, Tensor) else each for each in value]
    return replace(sample, **moved)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over the batch; logits and label (N, …), a label sums to one over all but its first axis."""
    log_probability = logits.flatten(1).log_softmax(1)
    return -(label.flatten(1) * log_probability).sum(1).mean()

"""What a stage minimises on weighted samples: to imitate, or to make less likely what failed.

What is to be avoided costs −ln(1 − p), with p the probability of all that its label covers (the unlikelihood of Welleck
et al., 2020): little where the policy would not do it anyway, and nothing is said about what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_vision.errors import BadInput
from embodied_vision.learning import augment
from embodied_vision.learning.experience import Sample
from embodied_vision.learning.losses import LossConfig, on_device, stage_losses
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import CoarseNet, FineNet

COVERED = 0.1
"""A label covers the cells where it is at least this share of its highest value."""
SUREST = 1 - 1e-4


def signed_losses(
    net: CoarseNet | FineNet,
    sample: Sample,
    normalisation: Normalisation,
    config: LossConfig,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Scalar losses of a stage on one sample, augmented anew, by the names of `stage_losses`, times its weight.

    Args:
        net: the stage's network.
        sample: what to learn from; where it is not about the pick, or the place, that loss is 0.
        normalisation: of the features.
        config: settings of the losses.
        rng: all randomness.
    """
    if sample.sign > 0:
        losses = stage_losses(net, [sample.example], normalisation, config, rng)
        return {name: sample.weight * loss for name, loss in losses.items()}
    example = augment.mirrored(sample.example) if rng.uniform() < 0.5 else sample.example
    device = next(net.parameters()).device
    nothing = torch.zeros((), device=device)
    if isinstance(net, CoarseNet):
        coarse = on_device(augment.coarse_sample(example, normalisation, net.config, rng), device)
        pick, rest = net(coarse.pooled[None])
        losses = {"pick": nothing, "place": nothing}
        if "pick" in sample.about:
            losses["pick"] = unlikelihood(pick, coarse.pick[None])
        if "place" in sample.about:
            losses["place"] = unlikelihood(net.place(rest, coarse.picked[None]), coarse.place[None])
        return {name: sample.weight * loss for name, loss in losses.items()}
    if "place" not in sample.about:
        return {"fine": nothing}
    fine = on_device(augment.fine_sample(example, net.config, config.tried, rng), device)
    query, key = augment.fine_views(net, fine)
    logits = net(query[None], key[None]) + fine.log_weight[:, None, None]
    return {"fine": sample.weight * unlikelihood(logits, fine.label[None])}


def draw_samples(
    net: CoarseNet | FineNet, given: Sequence[Sample], normalisation: Normalisation, config: LossConfig
) -> Callable[[int, int, np.random.Generator], dict[str, Tensor]]:
    """What a `StageTrainer` calls for the losses of an example, by step, number in the batch and randomness.

    Args:
        net: the stage's network.
        given: drawn evenly; their weights are in their losses.
        normalisation: of the features.
        config: settings of the losses.

    Raises:
        BadInput: no sample.
    """
    if not given:
        raise BadInput("no sample to learn from; log episodes that earned something, or correct some")

    def draw(_step: int, _number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        return signed_losses(net, given[int(rng.integers(len(given)))], normalisation, config, rng)

    return draw


def unlikelihood(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over the batch of −ln(1 − p), p the probability of what the label covers; both (N, …)."""
    flat = label.flatten(1)
    covered = flat >= COVERED * flat.amax(1, keepdim=True)
    probability = (logits.flatten(1).softmax(1) * covered).sum(1)
    return -torch.log1p(-probability.clamp(max=SUREST)).mean()

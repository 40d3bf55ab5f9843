"""What a stage minimises on an action that failed: that it becomes less likely.

It costs −ln(1 − p), with p the probability of the action and what is next to it (the unlikelihood of Welleck et al.,
2020): little where the policy would not do it anyway, and nothing is said about what to do instead. However sure the
policy is and however far it is wrong, the logits of what failed are pulled by no more than p times the sample's weight.
Failures are a small share of what is drawn, and their weight is small. So what a right example asks for stays the
likeliest even where a failure, or a wrong label, asks of the same picture for the opposite: with w the weight, a the
share of failures and b that of examples such as this one, the two are in balance at p = 1 / (1 + w a / b), which is
0.95 for 0.2, an eighth and half of what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_vision.learning import augment
from embodied_vision.learning.experience import Part, Sample
from embodied_vision.learning.losses import LossConfig, on_device, stage_outputs
from embodied_vision.learning.stage import Draw
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import CoarseNet, FineNet

COVERED = 0.1
"""A label covers the cells where it is at least this share of its highest value."""
FAILURE_SHARE = 0.25
"""Failures take at most this share of the draws of what is new."""


def with_failures(
    net: CoarseNet | FineNet,
    draw: Draw,
    failed: Sequence[Sample],
    normalisation: Normalisation,
    config: LossConfig,
    *,
    new: int,
    every: int,
) -> Draw:
    """Draws as `draw` does, now and then what failed in place of what is new; never likelier than any one new example.

    Args:
        net: the stage's network.
        draw: of what is to be done.
        failed: what is to be avoided; of these the stage takes what it is to blame for.
        normalisation: of the features.
        config: settings of the losses.
        new: how many new examples there are.
        every: in a batch, each `every`-th draw from the first on is of what is new.
    """
    blamed = [sample for sample in failed if _blamed(net) in sample.about]
    if not blamed:
        return draw
    share = min(FAILURE_SHARE, len(blamed) / (len(blamed) + new))

    def either(step: int, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        if number % every == 0 and rng.uniform() < share:
            return failure_losses(net, blamed[int(rng.integers(len(blamed)))], normalisation, config, rng)
        return draw(step, number, rng)

    return either


def failure_losses(
    net: CoarseNet | FineNet,
    sample: Sample,
    normalisation: Normalisation,
    config: LossConfig,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Scalar losses of a stage on what failed, by the names of `losses.stage_losses`, times its weight.

    The scene is turned, shifted and mirrored, but no object is taken elsewhere: it failed where it was. The coarse
    stage answers for picks alone. Of a place that failed the exact spot and turn are known to be wrong, not the
    centimetres around it, which are all that the coarse stage tells apart.

    Args:
        net: the stage's network.
        sample: what failed; where the stage is not to blame for it, its losses are 0.
        normalisation: of the features.
        config: settings of the losses.
        rng: all randomness.
    """
    example = augment.mirrored(sample.example) if rng.uniform() < 0.5 else sample.example
    device = next(net.parameters()).device
    if isinstance(net, CoarseNet):
        coarse = augment.coarse_sample(example, normalisation, net.config, rng, rearrange=False)
        answer, outputs = "pick", stage_outputs(net, [on_device(coarse, device)])
    else:
        fine = augment.fine_sample(example, net.config, config.tried, rng, rearrange=False)
        answer, outputs = "fine", stage_outputs(net, [on_device(fine, device)])
    losses = {name: torch.zeros((), device=device) for name in outputs}
    if _blamed(net) in sample.about:
        losses[answer] = sample.weight * unlikelihood(outputs[answer].logits, outputs[answer].label)
    return losses


def _blamed(net: CoarseNet | FineNet) -> Part:
    return "pick" if isinstance(net, CoarseNet) else "place"


def unlikelihood(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over the batch of −ln(1 − p), p the probability of what the label covers; both (N, …)."""
    flat, wanted = logits.flatten(1), label.flatten(1)
    covered = wanted >= COVERED * wanted.amax(1, keepdim=True)
    # As a difference of logarithms of sums, so that no p is too close to 1.
    return (flat.logsumexp(1) - flat.masked_fill(covered, -torch.inf).logsumexp(1)).mean()

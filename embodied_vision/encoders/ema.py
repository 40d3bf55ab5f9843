"""Averaged weights: a network that follows the one in training, and is better and steadier than it."""

from __future__ import annotations

import torch
from torch import nn


def decay_at(step: int, most: float) -> float:
    """Share of the average that stays after step number `step`, 0 first: little at the beginning, `most` in the end."""
    return min(most, (1 + step) / (10 + step))


@torch.no_grad()
def follow(average: nn.Module, source: nn.Module, decay: float) -> None:
    """Move the averaged weights and statistics towards those of `source`; counters are copied."""
    current = source.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])

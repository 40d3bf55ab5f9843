"""What an encoder can be trained for: each objective looks at the same pairs of crops and gives one loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_vision.encoders.correspondence import Pair, View

Figures = dict[str, float]


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a training run, as its objectives see it.

    Attributes:
        network: in training.
        average: that follows it; evaluates, and gets no gradient.
        pairs: P pairs of crops.
        crops: (2P, 3, S, S), as the network takes them, the two of each pair one after the other.
        features: (2P, D, S/stride, S/stride), what the network makes of the crops.
        rng: of this step and this objective alone.
    """

    network: nn.Module
    average: nn.Module
    pairs: tuple[Pair, ...]
    crops: Tensor
    features: Tensor
    rng: np.random.Generator

    @cached_property
    def sampled(self) -> list[tuple[Tensor, Tensor]]:
        """For each pair the features (N, D) at its points, in the first and in the second crop."""
        return self._at_points(self.features)

    @cached_property
    def averaged(self) -> list[tuple[Tensor, Tensor]]:
        """The same of the averaged network."""
        with torch.no_grad():
            return self._at_points(self.average(self.crops))

    def _at_points(self, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        crop_px = self.crops.shape[-1]
        return [
            (
                sample_points(features[2 * i], pair.first, crop_px),
                sample_points(features[2 * i + 1], pair.second, crop_px),
            )
            for i, pair in enumerate(self.pairs)
        ]


def sample_points(features: Tensor, view: View, crop_px: int) -> Tensor:
    """Bilinear samples (N, D) of one crop's features (D, h, w) at the view's points."""
    where = torch.from_numpy(2 * (view.pixels + 0.5) / crop_px - 1).to(torch.float32)
    out = F.grid_sample(features[None], where[None, None], align_corners=False, padding_mode="border")
    return out[0, :, 0].T


class Objective(nn.Module):
    """One loss, and whatever is trained beside the encoder for it and thrown away afterwards."""

    needs_poses = False
    """Whether it works only on frames with depth and poses."""

    def forward(self, step: Step) -> tuple[Tensor, Figures]:
        """The loss, a scalar, and figures for the record."""
        raise NotImplementedError

    def follow(self, decay: float) -> None:
        """Called after each step of the optimiser, for objectives that average weights of their own."""

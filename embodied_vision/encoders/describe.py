"""A linear read-out of a point's height above the base and of its color before the augmentation keeps both in the
features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_vision.encoders.objective import Figures, Objective, Step

HEIGHT_UNIT_M = 0.05


class Describe(Objective):
    """Height and color, linearly."""

    needs_poses = True

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.read_out = nn.Linear(dimension, 4)

    def forward(self, step: Step) -> tuple[Tensor, Figures]:
        """Smooth L1 loss of both."""
        losses = []
        for sampled, pair in zip(step.sampled, step.pairs, strict=True):
            height = torch.from_numpy(np.asarray(pair.points_m[:, 2:], np.float32)) / HEIGHT_UNIT_M
            for values, view in zip(sampled, pair.views, strict=True):
                target = torch.cat([height, torch.from_numpy(view.shades) * 4 - 2], dim=1)
                losses.append(F.smooth_l1_loss(self.read_out(values), target))
        return torch.stack(losses).mean(), {}

"""A small network from what is seen before and after an action to whether it succeeded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embodied_vision.learning.outcomes_views import POOL, View
from embodied_vision.policies.maps import GEOMETRY_CHANNELS

SHOWN = 40
"""Edge in cells of what the network sees of a crop."""
TURNS = 4
"""Turns over which a judgement is averaged."""


class OutcomeNetwork(nn.Module):
    """Convolutions over the pair of before and after, the same for pick and place, and a linear head on both."""

    def __init__(self, dimension: int) -> None:
        """Take features of `dimension` channels."""
        super().__init__()
        self.dimension = dimension
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("std", torch.ones(dimension))
        self.shape = nn.Conv2d(2 * GEOMETRY_CHANNELS, 24, 5, stride=2, padding=2)
        self.look = nn.Conv2d(2 * dimension, 16, 1)
        self.trunk = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(40, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(2 * 2 * 48, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))

    def forward(self, shapes: Tensor, features: Tensor) -> Tensor:
        """Logits (N,).

        Args:
            shapes: (N, 2, 2, 5, SHOWN, SHOWN), as in `View.geometry`, of as many cells.
            features: (N, 2, 2, D, SHOWN / POOL, SHOWN / POOL), as they come from the encoder, 0 where unseen.
        """
        count = len(shapes)
        shapes = shapes.flatten(0, 1).flatten(1, 2)
        seen = (features != 0).any(3, keepdim=True)
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        scaled = (features - self.mean[:, None, None]) / self.std[:, None, None] * seen
        both = torch.cat([self.shape(shapes), self.look(scaled.flatten(0, 1).flatten(1, 2))], dim=1)
        maps = self.trunk(both)
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
        logits: Tensor = self.head(pooled.view(count, -1))[:, 0]
        return logits


def batch(
    views: Sequence[View], angles_rad: np.ndarray[tuple[int, int], np.dtype[np.float64]], mirror: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Inputs of the network: the middle of the crops, turned.

    Args:
        views: N of them.
        angles_rad: (N, 2), how far the crops around pick and place are turned.
        mirror: of each, whether it is seen in a mirror.
    """
    shapes = torch.from_numpy(np.stack([view.geometry for view in views])).float()
    features = torch.from_numpy(np.stack([view.features for view in views])).float()
    if any(mirror):
        flags = torch.tensor(list(mirror)).view(-1, 1, 1, 1, 1, 1)
        shapes, features = (torch.where(flags, each.flip(-1), each) for each in (shapes, features))
    angles = torch.from_numpy(angles_rad.reshape(-1)).float()
    return _turned(shapes, angles, SHOWN, "nearest"), _turned(features, angles, SHOWN // POOL, "nearest")


def _turned(crops: Tensor, angles: Tensor, size: int, mode: str) -> Tensor:
    """(N, 2, 2, C, S, S) to (N, 2, 2, C, size, size), each pair turned by its angle (2N,) about the middle."""
    count, edge = len(crops), crops.shape[-1]
    flat = crops.flatten(0, 1).flatten(1, 2)
    offsets = torch.arange(size) - (size - 1) / 2
    rows, columns = torch.meshgrid(offsets, offsets, indexing="ij")
    c, s = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    grid = torch.stack([s * rows + c * columns, c * rows - s * columns], dim=-1) * (2 / edge)
    turned = functional.grid_sample(flat, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return turned.view(count, 2, 2, crops.shape[3], size, size)


def logits(
    network: OutcomeNetwork, views: Sequence[View], together: int = 64
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Logits (N,) averaged over `TURNS` turns; NaN for a view that holds numbers which are not finite."""
    found = np.full(len(views), np.nan)
    finite = [i for i, view in enumerate(views) if view.is_finite()]
    network.eval()
    for first in range(0, len(finite), together):
        chosen = finite[first : first + together]
        part = [views[i] for i in chosen]
        sums = torch.zeros(len(part))
        for turn in range(TURNS):
            angles = np.full((len(part), 2), turn * 2 * math.pi / TURNS)
            with torch.no_grad():
                sums += network(*batch(part, angles, [False] * len(part)))
        found[chosen] = (sums / TURNS).double().numpy()
    return found

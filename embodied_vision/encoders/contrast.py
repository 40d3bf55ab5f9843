"""A point keeps its features when view, light and sensor change, and differs from the scene's other points.

InfoNCE over pixel correspondences (dense object nets, Florence et al. 2018, arXiv:1806.08756; dense contrast, Wang et
al. 2021, arXiv:2011.09157).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from embodied_vision.encoders.objective import Figures, Objective, Step

FOUND_M = 0.015
"""A point counts as found when its nearest neighbour among the features lies so near."""


def correspondence_loss(
    first: Tensor, second: Tensor, points_m: Tensor, *, temperature: float, same_point_m: float
) -> Tensor:
    """Symmetric InfoNCE between the features (N, D) of the same N points (N, 3) in two views."""
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    squared = torch.cdist(points_m, points_m).square()
    same = torch.exp(-squared / (2 * same_point_m**2))
    target = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target))


class Contrast(Objective):
    """Correspondence between views."""

    needs_poses = True

    def __init__(self, temperature: float, same_point_m: float) -> None:
        """
        Args:
            temperature: in units of cosine similarity.
            same_point_m: points closer than about this count as partly the same.
        """
        super().__init__()
        self._settings = {"temperature": temperature, "same_point_m": same_point_m}

    def forward(self, step: Step) -> tuple[Tensor, Figures]:
        """The loss, and which share of points is found again within 15 mm."""
        losses, found = [], 0.0
        for (a, b), pair in zip(step.sampled, step.pairs, strict=True):
            points = torch.from_numpy(np.asarray(pair.points_m, np.float32))
            losses.append(correspondence_loss(a, b, points, **self._settings))
            with torch.no_grad():
                nearest = (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmax(1)
                found += float(((points[nearest] - points).norm(dim=1) < FOUND_M).float().mean())
        return torch.stack(losses).mean(), {"matched_within_15mm": found / len(step.pairs)}

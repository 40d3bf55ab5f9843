"""Self-distillation in the style of DINO: a point falls into the same soft cluster in two views.

The averaged network says which cluster, from the other crop of the pair; clusters are used alike by Sinkhorn's
iteration, which keeps the features from collapsing (Caron et al. 2020, arXiv:2006.09882, and 2021, arXiv:2104.14294;
on patches iBOT, Zhou et al. 2022, arXiv:2111.07832, and DINOv2, Oquab et al. 2024, arXiv:2304.07193).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_vision.encoders.ema import follow
from embodied_vision.encoders.objective import Figures, Objective, Step

CLUSTERS = 256
HIDDEN = 128
BOTTLENECK = 64
STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURE = 0.05
ITERATIONS = 3


@torch.no_grad()
def evenly_assigned(logits: Tensor, temperature: float = TEACHER_TEMPERATURE, iterations: int = ITERATIONS) -> Tensor:
    """Soft assignment (N, K) of N points to K clusters, each row summing to 1, each cluster as full as the others."""
    q = torch.exp((logits - logits.max()) / temperature).double()
    for _ in range(iterations):
        q = q / q.sum(0, keepdim=True).clamp_min(1e-30) / q.shape[1]
        q = q / q.sum(1, keepdim=True).clamp_min(1e-30) / q.shape[0]
    return (q * q.shape[0]).float()


class _Head(nn.Module):
    """Features (N, D) → logits (N, K): cosines to the clusters' directions.

    What the cosines are taken of is standardised over the points first. Without that all points soon say the same, all
    assignments become uniform, and nothing more is learnt.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(dimension, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, BOTTLENECK))
        self.clusters = nn.Parameter(F.normalize(torch.randn(CLUSTERS, BOTTLENECK), dim=1))

    def forward(self, features: Tensor) -> Tensor:
        values = self.body(features)
        values = (values - values.mean(0)) / (values.std(0) + 1e-4)
        return F.normalize(values, dim=1) @ F.normalize(self.clusters, dim=1).T


class SelfDistillation(Objective):
    """Soft clusters of points, kept between views."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.head = _Head(dimension)
        self.average = copy.deepcopy(self.head).requires_grad_(False)

    def forward(self, step: Step) -> tuple[Tensor, Figures]:
        """Cross-entropy, and how many clusters are in use (the exponential of the entropy of their mean)."""
        told = torch.cat([views[k] for views in step.sampled for k in (0, 1)])
        other = torch.cat([views[1 - k] for views in step.averaged for k in (0, 1)])
        target = evenly_assigned(self.average(other))
        loss = F.cross_entropy(self.head(told) / STUDENT_TEMPERATURE, target)
        with torch.no_grad():
            share = (self.head(told) / STUDENT_TEMPERATURE).softmax(1).mean(0)
            used = float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))
        return loss, {"clusters_in_use": used}

    def follow(self, decay: float) -> None:
        """Average the head as the network is averaged."""
        follow(self.average, self.head, decay)

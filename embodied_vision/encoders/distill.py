"""Distillation of a larger teacher into the compact network, on its dense features.

A linear layer makes the teacher's features, scaled channel by channel to mean 0 and deviation 1, out of the student's;
the loss is nine parts cosine and one part smooth L1 (Theia, Shang et al. 2024, arXiv:2407.20179; on why scaling is
needed RADIO, Ranzinger et al. 2024, arXiv:2410.01680). The layer is linear, so that what a linear read-out finds in
the teacher's main components it finds in the student. The teacher saw the whole image as it was, the student an
augmented crop of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_vision.encoders.objective import Figures, Objective, Step
from embodied_vision.encoders.teacher import TeacherFeatures

COSINE_SHARE = 0.9


class Distillation(Objective):
    """The teacher's features at the points of the crops."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dimension: int, teacher: TeacherFeatures) -> None:
        super().__init__()
        self._teacher = teacher
        mean, deviation = teacher.statistics()
        self.register_buffer("mean", torch.from_numpy(mean), persistent=False)
        self.register_buffer("deviation", torch.from_numpy(deviation), persistent=False)
        self.project = nn.Linear(dimension, len(mean))

    def forward(self, step: Step) -> tuple[Tensor, Figures]:
        """The loss, and the mean cosine between what the student says and the teacher's scaled features."""
        told = self.project(torch.cat([values for sampled in step.sampled for values in sampled]))
        seen = [
            torch.from_numpy(self._teacher.at(pair.scene, view.frame, view.in_image))
            for pair in step.pairs
            for view in pair.views
        ]
        target = (torch.cat(seen) - self.mean) / self.deviation
        cosine = F.cosine_similarity(told, target, dim=1).mean()
        loss = COSINE_SHARE * (1 - cosine) + (1 - COSINE_SHARE) * F.smooth_l1_loss(told, target)
        return loss, {"teacher_cosine": float(cosine.detach())}

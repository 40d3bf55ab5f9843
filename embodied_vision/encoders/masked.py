"""Masked modelling: what is hidden is told from what is around it.

Squares of the crop are painted over and the features must tell their pixels, each patch's scaled to its own mean and
deviation (masked autoencoders, He et al. 2022, arXiv:2111.06377), through one linear layer (SimMIM, Xie et al. 2022,
arXiv:2111.09886).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_vision.encoders.compact import STRIDE
from embodied_vision.encoders.objective import Figures, Objective, Step

CELL_PX = 16
SHARE = 0.5
PLAIN = 0.08
"""Deviation below which a patch counts as plain, normalised color: noise is not blown up."""


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norms learn nothing of what passes meanwhile: painted crops look like no camera's images."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def cell_px(stride_px: int) -> int:
    """Edge of what is hidden or not, px: about 16, in whole patches."""
    return stride_px * max(1, round(CELL_PX / stride_px))


def patches(crops: Tensor, stride_px: int = STRIDE) -> Tensor:
    """The pixels of every patch of (B, 3, S, S) crops, less their mean, over their deviation: (B, h, w, 3 p²)."""
    flat = F.pixel_unshuffle(crops, stride_px).permute(0, 2, 3, 1)
    mean = flat.mean(-1, keepdim=True)
    deviation = flat.std(-1, keepdim=True)
    return (flat - mean) / (deviation**2 + PLAIN**2).sqrt()


class Masked(Objective):
    """Masked modelling of the first crop of each pair."""

    def __init__(self, dimension: int, stride_px: int = STRIDE) -> None:
        super().__init__()
        self._stride_px, self._cell_px = stride_px, cell_px(stride_px)
        self.paint = nn.Parameter(torch.zeros(3, 1, 1))
        self.read_out = nn.Linear(dimension, 3 * stride_px**2)

    def painted(self, crops: Tensor, hidden: Tensor) -> Tensor:
        """Crops (B, 3, S, S) with the cells painted over of which `hidden` (B, 1, S/cell, S/cell) is true."""
        cell = self._cell_px
        return torch.where(hidden.repeat_interleave(cell, 2).repeat_interleave(cell, 3), self.paint, crops)

    def forward(self, step: Step) -> tuple[Tensor, Figures]:
        """Smooth L1 loss over the hidden patches."""
        crops = step.crops[::2]
        cells = crops.shape[-1] // self._cell_px
        hidden = torch.from_numpy(step.rng.random((len(crops), 1, cells, cells)) < SHARE)
        hidden[:, :, 0, 0] = True  # whatever is drawn, there is something to tell
        painted = self.painted(crops, hidden)
        with statistics_kept(step.network):
            features = step.network(painted.contiguous(memory_format=torch.channels_last))
        per_cell = self._cell_px // self._stride_px
        where = hidden[:, 0].repeat_interleave(per_cell, 1).repeat_interleave(per_cell, 2)
        told = self.read_out(features.permute(0, 2, 3, 1)[where])
        return F.smooth_l1_loss(told, patches(crops, self._stride_px)[where]), {}

"""The network of EfficientNet-Lite0 up to stride 16 (EfficientNet, Tan and Le 2019, arXiv:1905.11946; Lite: without
squeeze-and-excitation, with ReLU6)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

NAME = "efficientnet-lite0"
STRIDE = 8
"""Edge of the patches that its outputs are sampled at, px."""
_BLOCKS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Repeats, kernel, stride, expansion and channels of the stages up to stride 16; what comes after is not used."""
_FINE, _COARSE = 3, 5
"""Stages whose outputs are taken, counted from 1."""
_EPSILON = 1e-3
FINE_CHANNELS, COARSE_CHANNELS = _BLOCKS[_FINE - 1][-1], _BLOCKS[_COARSE - 1][-1]
"""Of the outputs of stride 8 and 16."""


def _same(kernel: int, stride: int) -> tuple[nn.Module, int]:
    """TensorFlow's padding of even sizes: before a convolution and in it; what is odd goes to the right and below."""
    if stride == 1:
        return nn.Identity(), kernel // 2
    total = kernel - stride
    return nn.ZeroPad2d((total // 2, total - total // 2, total // 2, total - total // 2)), 0


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        if expansion != 1:
            self._expand_conv = nn.Conv2d(inputs, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._pad, padding = _same(kernel, stride)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, padding, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._project_conv = nn.Conv2d(wide, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self._expands, self._skips = expansion != 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self._expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(self._pad(y))), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self._skips else y

    def fold(self) -> None:
        """The same function with every batch norm in its convolution."""
        if self._expands:
            _fold(self, "_expand_conv", "_bn0")
        _fold(self, "_depthwise_conv", "_bn1")
        _fold(self, "_project_conv", "_bn2")


class LiteNetwork(nn.Module):
    """(B, 3, H, W), both sides multiples of 16, to the outputs of stride 8 and 16: (B, 40, …) and (B, 112, …)."""

    def __init__(self) -> None:
        super().__init__()
        self._pad, padding = _same(3, 2)
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, padding, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPSILON)
        self._blocks = nn.ModuleList()
        self._taken: list[int] = []
        inputs = 32
        for stage, (repeats, kernel, stride, expansion, outputs) in enumerate(_BLOCKS, start=1):
            for i in range(repeats):
                self._blocks.append(_Block(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs
            if stage in (_FINE, _COARSE):
                self._taken.append(len(self._blocks) - 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu6(self._bn0(self._conv_stem(self._pad(x))), inplace=True)
        kept = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self._taken:
                kept.append(x)
        return kept[0], kept[1]

    def fold(self) -> None:
        """The same function, in evaluation, with every batch norm in its convolution."""
        _fold(self, "_conv_stem", "_bn0")
        for block in self._blocks:
            cast(_Block, block).fold()


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    fused = fuse_conv_bn_eval(
        cast(nn.Conv2d, module.get_submodule(convolution)), cast(nn.BatchNorm2d, module.get_submodule(norm))
    )
    setattr(module, convolution, fused)
    setattr(module, norm, nn.Identity())


def at_patches(grid: Tensor, stride: int, rows: int, columns: int) -> Tensor:
    """A map (B, C, h, w) at the middles of rows × columns patches of 8 px.

    Each strided layer moves the centre of what it sees by half an input pixel to the right and down, in all to
    stride · i + stride − 1.
    """

    def normalised(count: int, size: int) -> Tensor:
        middle = STRIDE * torch.arange(count, dtype=torch.float32) + (STRIDE - 1) / 2
        return (middle - (stride - 1)) / stride / max(size - 1, 1) * 2 - 1

    v, u = torch.meshgrid(normalised(rows, grid.shape[2]), normalised(columns, grid.shape[3]), indexing="ij")
    where = torch.stack([u, v], dim=-1).expand(grid.shape[0], rows, columns, 2)
    return F.grid_sample(grid, where, align_corners=True, padding_mode="border")

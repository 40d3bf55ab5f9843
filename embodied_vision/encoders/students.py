"""What an encoder's training trains: the compact network, or a low-rank adapter of a transformers model."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from embodied_vision.encoders.adapting import LEARNING_RATE as ADAPTER_LEARNING_RATE
from embodied_vision.encoders.adapting import AdapterStudent, LowRank
from embodied_vision.encoders.compact import (
    STRIDE,
    CompactArchitecture,
    CompactEncoder,
    CompactLiteNetwork,
    LiteArchitecture,
    as_input,
    initialised,
    normalise,
    weights_of,
)
from embodied_vision.encoders.correspondence import ViewSource
from embodied_vision.encoders.efficientnet_lite import installed_weights, trunk_weights
from embodied_vision.encoders.masked import cell_px

LEARNING_RATE, LITE_LEARNING_RATE = 3e-3, 5e-4
"""Of the residual network, which begins with random weights, and of EfficientNet-Lite0, which does not."""
BEGINNING = 100
"""Sets of frames, two of each, that EfficientNet-Lite0 looks at before the first step."""
CROP_PX = 160
"""Edge of a crop, about."""


class CompactStudent:
    """The compact network in training, and the averaged one that follows it and becomes the encoder.

    Attributes:
        architecture: of both.
        network, average: normalised crops (B, 3, S, S) to features (B, D, S/8, S/8).
        dimension: feature channels D.
        stride_px: of the features.
    """

    stride_px = STRIDE

    def __init__(self, architecture: CompactArchitecture, seed: int) -> None:
        """
        Args:
            architecture: of the network.
            seed: of its first weights; those of EfficientNet-Lite0 are ImageNet's.

        Raises:
            EncoderError: ImageNet's weights are not installed.
        """
        self.architecture, self.dimension = architecture, architecture.dimension
        self.network = initialised(architecture, seed)
        if isinstance(architecture, LiteArchitecture):
            self.network.get_submodule("trunk").load_state_dict(trunk_weights(installed_weights()), strict=False)
        self.average = deepcopy(self.network).requires_grad_(False).eval()

    def begin(self, sets: ViewSource) -> None:
        """Look at some of the frames before the first step: EfficientNet-Lite0 begins with its principal components."""
        if not isinstance(self.network, CompactLiteNetwork):
            return
        step = max(1, len(sets) // BEGINNING)
        images = (as_input(frame.color) for i in range(0, len(sets), step) for frame in sets[i].frames[:2])
        self.network.begin_with_components(images)
        self.average.load_state_dict(self.network.state_dict())

    def prepare(self, colors: Tensor) -> Tensor:
        """uint8 crops (B, 3, S, S) to what the network takes."""
        return normalise(colors).contiguous(memory_format=torch.channels_last)

    def zoom(self, image_size: tuple[int, int]) -> float:
        """Px of the network's input for a px of an image: it takes images as they are."""
        return 1.0

    def encoder(self) -> CompactEncoder:
        """The encoder with the averaged weights."""
        return CompactEncoder(self.architecture, self.weights())

    def weights(self) -> dict[str, NDArray[Any]]:
        """The averaged weights, as they are written to disk."""
        return weights_of(self.average)

    def identity(self) -> dict[str, str]:
        """What a saved state belongs to."""
        return {"architecture": json.dumps(asdict(self.architecture), sort_keys=True)}


Trained = CompactArchitecture | LowRank
Student = CompactStudent | AdapterStudent


def student_of(trained: Trained, seed: int) -> Student:
    """The student at its beginning."""
    return AdapterStudent(trained, seed) if isinstance(trained, LowRank) else CompactStudent(trained, seed)


def usual_learning_rate(trained: Trained) -> float:
    """Peak of the rate where none is given: weights that know something already are moved with care."""
    if isinstance(trained, LowRank):
        return ADAPTER_LEARNING_RATE
    return LITE_LEARNING_RATE if isinstance(trained, LiteArchitecture) else LEARNING_RATE


def crop_multiple_px(trained: Trained) -> int:
    """Edges of crops are multiples of it: whole patches, and whole squares of masked modelling."""
    return cell_px(trained.stride_px if isinstance(trained, LowRank) else STRIDE)


def crop_px_for(trained: Trained) -> int:
    """Edge of a crop in px where none is given: about 160, in whole patches."""
    multiple = crop_multiple_px(trained)
    return multiple * max(1, round(CROP_PX / multiple))

"""Training of a low-rank adapter: the backbone stays as it is, small updates of its linear layers are learnt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from embodied_vision.encoders.adapters import PREFIX, Base, adapter_id, attach, peft_library
from embodied_vision.encoders.device import computing_on
from embodied_vision.encoders.huggingface import HuggingFaceEncoder
from embodied_vision.encoders.registry import load_encoder, split_options
from embodied_vision.errors import EncoderError
from embodied_vision.types import Features

RANK = 8
LEARNING_RATE = 1e-3
"""Where none is given."""
_KEPT = ("size", "layers")
"""Options of the backbone that the adapter remembers."""
_TAKEN = (*_KEPT, "device", "code")
_APART = {"embeddings", "pooler", "head", "continuous_position_bias_mlp"}
"""Parts of a model that get no updates: what comes before the blocks and after them, and tables of positions."""


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of attention and MLP by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not _APART.intersection(name.split("."))
    }


class LowRank:
    """What of a transformers model is trained: updates of its linear layers, each of a low rank.

    Attributes:
        encoder: the model; it goes on computing what it did.
        base: name, options and hashes of the model.
        rank: of the updates.
        config: of peft, JSON-ready.
        whole: the network with the layers of the adapter in it, (1, 3, H, W) to (1, rows, columns, D).
        updates: shapes of the adapter's weights by their names in `whole`.
    """

    def __init__(self, name: str, rank: int = RANK) -> None:
        """
        Args:
            name: of a transformers model, a folder or a hub name, with options such as `+size=448`.
            rank: of the updates.

        Raises:
            EncoderError: it is no such model, has no linear layers, or the rank is too large for them.
        """
        plain, options = split_options(name)
        unfit = sorted(set(options).difference(_TAKEN))
        if unfit:
            raise EncoderError(
                f"backbone {name!r}: an adapter is trained without {', '.join(unfit)}; leave it away here, and give it "
                "with the adapter's folder afterwards"
            )
        peft = peft_library()
        encoder = load_encoder(name)
        if type(encoder) is not HuggingFaceEncoder:
            raise EncoderError(
                f"{name!r} is a {type(encoder).__name__}, which takes no low-rank adapter; give a transformers model "
                "such as facebook/dinov2-small. The compact network is small and convolutional: without --backbone "
                "all of it is trained"
            )
        layers = linear_layers(encoder.backbone)
        largest = min((min(layer.in_features, layer.out_features) for layer in layers.values()), default=0)
        if not 1 <= rank <= largest:
            raise EncoderError(
                f"rank {rank} for {name!r}, which has {len(layers)} linear layers, the smallest of {largest} channels; "
                f"give a rank from 1 to {largest}"
                if layers
                else f"{name!r} has no linear layers in its blocks, so that there is nothing to adapt"
            )
        local = Path(plain)
        self.encoder, self.rank = encoder, rank
        self.base = Base(
            str(local.resolve()) if local.is_dir() else plain,
            {option: value for option, value in options.items() if option in _KEPT},
            encoder.encoder_id,
            encoder.weights_sha256(),
        )
        settings = peft.LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=sorted(layers),
            base_model_name_or_path=self.base.name,
            inference_mode=True,
        ).to_dict()
        self.config: dict[str, object] = json.loads(json.dumps(settings, default=sorted))  # sets in a fixed order
        encoder.backbone.to(encoder.device)
        attach(encoder.backbone, self.config)
        encoder.backbone.requires_grad_(False)
        self.whole = _Whole(encoder)
        self.updates = {
            name: parameter.shape
            for name, parameter in self.whole.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        }

    @property
    def stride_px(self) -> int:
        """Edge of a patch, px of the network's input."""
        return self.encoder.front.stride_px


class _Whole(nn.Module):
    """An encoder's network as a module."""

    def __init__(self, encoder: HuggingFaceEncoder) -> None:
        super().__init__()
        self.backbone = encoder.backbone
        self._encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        return self._encoder.graph(pixels)


class AdaptedNetwork(nn.Module):
    """The backbone with updates of its own: normalised crops (B, 3, S, S) to features (B, D, S/p, S/p).

    Its parameters are the updates alone; several of them share one backbone.
    """

    def __init__(self, trained: LowRank, updates: Mapping[str, Tensor]) -> None:
        """
        Args:
            trained: the backbone.
            updates: first values of `trained.updates`, by the same names.
        """
        super().__init__()
        self._trained = trained
        self._keys = {name: name.replace(".", "/") for name in sorted(updates)}
        self.updates = nn.ParameterDict({key: updates[name].clone() for name, key in self._keys.items()})

    def forward(self, crops: Tensor) -> Tensor:
        trained = self._trained
        device = trained.encoder.device
        values = {name: self.updates[key] for name, key in self._keys.items()}
        with computing_on(device):
            grids = [
                functional_call(trained.whole, values, (crop[None],), tie_weights=False) for crop in crops.to(device)
            ]
        return torch.cat(grids).permute(0, 3, 1, 2).to(crops.device)

    def tensors(self) -> dict[str, Tensor]:
        """The updates by the names of peft's files."""
        return {
            PREFIX + name.removeprefix("backbone.").replace(".default.", "."): self.updates[key].detach().cpu()
            for name, key in self._keys.items()
        }


class AdaptedAsItStands:
    """A backbone with the updates that a network has now, not merged."""

    def __init__(self, trained: LowRank, network: AdaptedNetwork) -> None:
        self._encoder, self._network = trained.encoder, network
        self.encoder_id = adapter_id(trained.base.encoder_id, trained.config, network.tensors())
        self.artefact_id = trained.encoder.artefact_id
        self.dimension = trained.encoder.dimension

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image.

        Raises:
            EncoderError: the image has another type or shape.
        """
        prepared = self._encoder.front.prepare(color)
        with torch.no_grad():
            grid = self._network(torch.from_numpy(prepared.pixels))[0].permute(1, 2, 0).contiguous().numpy()
        return Features(grid, prepared.stride, self.encoder_id, self.artefact_id, stamp_ns)


class AdapterStudent:
    """Updates in training, and averaged ones that follow them and become the adapter.

    Attributes:
        trained: the backbone.
        network, average: with the updates, and with the averaged ones.
        dimension: feature channels D.
        stride_px: of the features.
    """

    def __init__(self, trained: LowRank, seed: int) -> None:
        """
        Args:
            trained: what of which model.
            seed: of the first updates, which change nothing yet.
        """
        self.trained = trained
        self.dimension, self.stride_px = trained.encoder.dimension, trained.stride_px
        generator = torch.Generator().manual_seed(seed)
        first: dict[str, Tensor] = {}
        for name in sorted(trained.updates):
            first[name] = torch.zeros(trained.updates[name])
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(first[name], a=math.sqrt(5), generator=generator)
        self.network = AdaptedNetwork(trained, first).to(trained.encoder.device)
        self.average = AdaptedNetwork(trained, first).to(trained.encoder.device).requires_grad_(False)

    def prepare(self, colors: Tensor) -> Tensor:
        """uint8 crops (B, 3, S, S) to what the network takes."""
        about = self.trained.encoder.front.preprocessing
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (about.mean, about.std))
        return (colors.to(torch.float32) * about.scale - mean) / deviation

    def zoom(self, image_size: tuple[int, int]) -> float:
        """Px of the network's input for a px of an image of (rows, columns): crops are seen as large as images are."""
        seen = self.trained.encoder.front.preprocessing.input_size(image_size, self.stride_px)
        return math.sqrt(seen[0] / image_size[0] * seen[1] / image_size[1])

    def encoder(self) -> AdaptedAsItStands:
        """The encoder with the averaged updates."""
        return AdaptedAsItStands(self.trained, self.average)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The averaged updates, as they are written to disk."""
        return {name: value.numpy().copy() for name, value in self.average.tensors().items()}

    def identity(self) -> dict[str, str]:
        """What a saved state belongs to."""
        return {"backbone": self.trained.base.encoder_id, "rank": str(self.trained.rank)}

"""The network of the grasp head: how likely a jaw closed here lifts something, for each of a few depths.

One U-Net looks at views of the map in which the jaw always closes along the columns, so what it learns at one angle
holds at all (after Zeng et al., "Robotic Pick-and-Place of Novel Objects in Clutter", ICRA 2018).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embodied_vision.errors import BadInput
from embodied_vision.policies import maps
from embodied_vision.policies.networks import UNet


@dataclass(frozen=True)
class GraspConfig:
    """Shape of the network.

    Attributes:
        features: dimension D of the encoder's features, 0 for none.
        projected: channels that the features are projected to before any resampling.
        widths: channels of the U-Net, from full resolution down.
        depths_m: how far below the local top the tip reaches, K choices.
        angles: yaws tried, over 180°.
        crop: edge of the view around an attempt in training, cells.

    Raises:
        BadInput: no network has these shapes.
    """

    features: int = 0
    projected: int = 8
    widths: tuple[int, ...] = (16, 32, 64)
    depths_m: tuple[float, ...] = (0.015, 0.03, 0.045)
    angles: int = 12
    crop: int = 48

    def __post_init__(self) -> None:
        if not self.widths or any(width < 4 or width % 4 for width in self.widths):
            raise BadInput(f"widths are {list(self.widths)}, give multiples of 4")
        if not self.depths_m or not all(0 < depth < 1 for depth in self.depths_m):
            raise BadInput(f"depths_m are {list(self.depths_m)}, give lengths in m")
        if self.angles < 2 or self.features < 0 or self.projected < 1:
            raise BadInput(f"{self.angles} angles and {self.projected} projected channels; give at least 2 and 1")
        if self.crop < self.multiple or self.crop % self.multiple:
            raise BadInput(f"crop is {self.crop}, give a multiple of {self.multiple}, 2 to the number of widths")

    @property
    def multiple(self) -> int:
        """What the edges of views must be a multiple of."""
        return 2 ** len(self.widths)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GraspConfig:
        """Read what `to_dict` wrote."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**fields)


class GraspNet(nn.Module):
    """Views of the map to logits of success."""

    def __init__(self, config: GraspConfig) -> None:
        super().__init__()
        self.config = config
        projected = config.projected if config.features else 0
        self.projection = nn.Conv2d(config.features, projected, 1, bias=False) if projected else None
        self.trunk = UNet(maps.GEOMETRY_CHANNELS + projected, config.widths, len(config.depths_m))
        _judge_crops_as_maps(self.trunk)

    def project(self, stack: Tensor) -> Tensor:
        """(5 + D, H, W) to (5 + projected, H, W): geometry and color as they are, features projected cell by cell."""
        if self.projection is None:
            return stack
        features = self.projection(stack[None, maps.GEOMETRY_CHANNELS :])[0]
        return torch.cat([stack[: maps.GEOMETRY_CHANNELS], features])

    def forward(self, views: Tensor) -> Tensor:
        """Views (N, 5 + projected, S, S), S a multiple of `config.multiple`, to logits (N, K, S, S)."""
        logits: Tensor = self.trunk(views)
        return logits

    @classmethod
    def seeded(cls, config: GraspConfig, seed: int) -> GraspNet:
        """New weights that depend on the seed alone; the global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config)


def _judge_crops_as_maps(module: nn.Module) -> None:
    """Batch normalisation in place of group normalisation, whose mean over all cells differs between crop and map."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, nn.BatchNorm2d(child.num_channels))
        else:
            _judge_crops_as_maps(child)

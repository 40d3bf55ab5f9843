"""The two networks of the policy, coarse to fine.

`CoarseNet` looks at the whole map and says which object and roughly where to; `FineNet` looks at a crop around each
and says exactly where to and how turned, by correlating turned views of the object with the surroundings of the place
(after Zeng et al., "Transporter Networks", CoRL 2020, whose features are turned; here the inputs are).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from embodied_vision.errors import BadInput
from embodied_vision.policies import maps

TURNS_AT_ONCE = 9
"""Views of an object that are correlated together."""


@dataclass(frozen=True)
class NetworkConfig:
    """Shapes of the networks; one set serves every task.

    Attributes:
        features: dimension D of the encoder's features, 0 for none.
        coarse_pool: map cells per coarse cell, along each axis.
        coarse_widths: channels of the coarse U-Net, from full resolution down.
        embedding: dimension in which the picked object asks the map for its place.
        fine_widths: channels of the two fine U-Nets.
        fine_channels: channels that are correlated.
        query: edge of the crop around the object, map cells.
        window: edge of the square of place candidates around the coarse place, map cells; odd.
        bins: rotations of the object, over 360°.

    Raises:
        BadInput: a size cannot be.
    """

    features: int = 0
    coarse_pool: int = 4
    coarse_widths: tuple[int, ...] = (48, 64, 64)
    embedding: int = 16
    fine_widths: tuple[int, ...] = (24, 48)
    fine_channels: int = 16
    query: int = 40
    window: int = 33
    bins: int = 36

    def __post_init__(self) -> None:
        for name in ("coarse_pool", "embedding", "fine_channels", "bins"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, give at least 1")
        for name in ("coarse_widths", "fine_widths"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise BadInput(f"{name} is {list(getattr(self, name))}, give one or more numbers of at least 1")
        if self.query % 2 or self.query < 2:
            raise BadInput(f"query is {self.query}, give an even number of map cells")
        if self.window % 2 == 0 or self.window < 1:
            raise BadInput(f"window is {self.window}, give an odd number of map cells")

    @property
    def key(self) -> int:
        """Edge of the crop around the coarse place, map cells."""
        return self.query + self.window - 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NetworkConfig:
        """Read what `to_dict` wrote."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**fields)


class _Block(nn.Sequential):
    """Two 3 × 3 convolutions with group normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(4, outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """(N, C, H, W) to (N, outputs, H, W), H and W even.

    Works on 2 × 2 cells folded into channels, which costs a quarter of the memory traffic and loses no detail, and
    halves that resolution once per width after the first.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        chain = (4 * inputs, *widths)
        self.down = nn.ModuleList(_Block(a, b) for a, b in zip(chain, widths, strict=False))
        ups = list(zip(widths[1:], widths, strict=False))[::-1]
        self.up = nn.ModuleList(_Block(deep + skip, skip) for deep, skip in ups)
        self.head = nn.Conv2d(widths[0], 4 * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pixel_unshuffle(x, 2)
        skips: list[Tensor] = []
        for block in self.down:
            x = block(functional.avg_pool2d(x, 2) if skips else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([functional.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], 1))
        return functional.pixel_shuffle(self.head(x), 2)


class CoarseNet(nn.Module):
    """Which object to pick and roughly where to place it, on the pooled map.

    The U-Net reads geometry and color; encoder features are read cell by cell, by a linear map that is added to the
    logits of pick and place.
    Features do not turn with the scene and tell scenes apart: a network that sees neighbouring ones learns a few
    dozen demonstrations by heart.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = UNet(maps.GEOMETRY_CHANNELS, config.coarse_widths, 2 + 2 * config.embedding)
        self.readout = nn.Conv2d(config.features, 2, 1, bias=False) if config.features else None
        if self.readout is not None:
            nn.init.zeros_(self.readout.weight)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled maps (N, 5 + D, h, w) to pick logits (N, h, w) and what `place` needs, (N, 1 + 2E, h, w)."""
        out = self.trunk(pooled[:, : maps.GEOMETRY_CHANNELS])
        if self.readout is not None:
            read = self.readout(pooled[:, maps.GEOMETRY_CHANNELS :])
            out = torch.cat([out[:, :2] + read, out[:, 2:]], 1)
        return out[:, 0], out[:, 1:]

    def place(self, out: Tensor, picked: Tensor) -> Tensor:
        """Place logits (N, h, w) for the objects that cover `picked`, float (N, h, w) weights that sum to one."""
        embedding = self.config.embedding
        bias, key, query = out[:, 0], out[:, 1 : 1 + embedding], out[:, 1 + embedding :]
        asked = (query * picked[:, None]).sum((2, 3))
        return bias + torch.einsum("nehw,ne->nhw", key, asked) / math.sqrt(embedding)


class FineNet(nn.Module):
    """Where exactly and how turned, on crops at the map's own resolution.

    What has no turn, a bead of a rope say, goes where it correlates and where the surroundings by themselves tell.
    Where turns are to be told, correlation does it all: else the surroundings learn the place, and nothing the yaw.
    It reads geometry and color alone: an encoder's patches are larger than what is to be told here and do not turn
    with the scene, and with their features yaw was learnt several times more slowly.
    """

    window_mask: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.query_net = UNet(maps.GEOMETRY_CHANNELS + 1, config.fine_widths, config.fine_channels)
        self.key_net = UNet(maps.GEOMETRY_CHANNELS, config.fine_widths, config.fine_channels + 1)
        for net in (self.query_net, self.key_net):
            # A constant would show the edge of the window everywhere, before there is anything else to see.
            nn.init.zeros_(net.head.get_parameter("bias"))
        offsets = torch.arange(config.query) - (config.query - 1) / 2
        radius = torch.hypot(offsets[:, None], offsets[None])
        self.register_buffer("window_mask", (config.query / 2 - radius).clamp(0, 1), persistent=False)

    def query_views(
        self, patch: Tensor, mask: Tensor, centre: NDArray[np.float64], angles_rad: NDArray[np.float64]
    ) -> Tensor:
        """The object as it looks once turned by each angle, (R, 6, query, query), round about its anchor.

        Args:
            patch: (5, S, S) crop around the object.
            mask: (S, S) float, the object's cells.
            centre: (2,) its anchor in cells of the crop.
            angles_rad: (R,).
        """
        stacked = torch.cat([patch, mask[None]])
        return maps.turn(stacked, centre, -angles_rad, self.config.query) * self.window_mask

    def key_view(self, patch: Tensor, centre: NDArray[np.float64], angle_rad: float) -> Tensor:
        """Surroundings of the place (5, key, key) about `centre`, along axes turned by `angle_rad`."""
        turned = maps.turn(patch, centre, np.array([angle_rad]), self.config.key)
        return turned[0]

    def forward(self, query_views: Tensor, key_views: Tensor) -> Tensor:
        """Correlate turned objects with the surroundings of places.

        Args:
            query_views: (N, R, 6, query, query).
            key_views: (N, P, 5, key, key), P places for each object.

        Returns:
            (N, P, R, window, window) logits: object turned as in view r, its anchor at a cell about the key's middle.
        """
        return self.scores(self.kernels(query_views), self.keys(key_views), alone=query_views.shape[1] == 1)

    def kernels(self, query_views: Tensor) -> Tensor:
        """Views of objects (N, R, 6, query, query) as they are correlated, (N, R, C, query, query)."""
        kernels = self.query_net(query_views.flatten(0, 1)) * self.window_mask
        return kernels.unflatten(0, query_views.shape[:2])

    def keys(self, key_views: Tensor) -> Tensor:
        """Surroundings of places (N, P, 5, key, key) as they are correlated, (N, P, 1 + C, key, key)."""
        keys: Tensor = self.key_net(key_views.flatten(0, 1)).unflatten(0, key_views.shape[:2])
        return keys

    def scores(self, kernels: Tensor, keys: Tensor, *, alone: bool) -> Tensor:
        """Logits (N, P, R, window, window) of R turns at P places; see `forward`.

        Args:
            kernels: (N, R, C, query, query).
            keys: (N, P, 1 + C, key, key).
            alone: whether what the surroundings tell by themselves counts.
        """
        scores = correlate(kernels, keys[:, :, 1:]) / self.config.query
        if not alone:
            return scores
        # The anchor of an even query lies on the corner of four cells.
        inside = slice(self.config.query // 2 - 1, self.config.query // 2 + self.config.window)
        return scores + functional.avg_pool2d(keys[:, :, 0, inside, inside], 2, 1)[:, :, None]


def correlate(kernels: Tensor, keys: Tensor) -> Tensor:
    """Cross-correlation where kernels lie wholly within keys, through the FFT.

    Args:
        kernels: (N, R, C, q, q).
        keys: (N, P, C, k, k).

    Returns:
        (N, P, R, k − q + 1, k − q + 1), summed over channels.
    """
    edge = keys.shape[-1]
    window = edge - kernels.shape[-1] + 1
    key_channels = torch.fft.rfft2(keys).unsqueeze(2).unbind(3)
    scores = []
    # Part by part and channel by channel: all products at once are many times what the caches hold.
    for part in kernels.split(TURNS_AT_ONCE, 1):
        channels = torch.fft.rfft2(part, s=(edge, edge)).conj().resolve_conj().unsqueeze(1).unbind(3)
        summed = channels[0] * key_channels[0]
        for kernel, key in zip(channels[1:], key_channels[1:], strict=True):
            summed = summed.addcmul_(kernel, key)
        scores.append(torch.fft.irfft2(summed, s=(edge, edge))[..., :window, :window])
    return torch.cat(scores, 2)


class PolicyNetwork(nn.Module):
    """Both stages; trained apart, kept together."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.coarse = CoarseNet(config)
        self.fine = FineNet(config)

    @classmethod
    def seeded(cls, config: NetworkConfig, seed: int) -> PolicyNetwork:
        """New weights that depend on the seed alone; the global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config)

"""Scene to network input: normalisation, pooling, and turned crops.

Local coordinates are (row, column) = (x, y) in cells about a centre, so a turn by θ about the base's z
acts on them as [[cos θ, −sin θ], [sin θ, cos θ]], with no flips anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from embodied_vision.errors import BadInput
from embodied_vision.types import Scene

GEOMETRY_CHANNELS = 5
"""Red, green, blue, height, valid: the channels that come before the encoder features."""
HEIGHT_UNIT_M = 0.05
LEAST_SPREAD = 2.5
"""Colors (0 to 255) that differ by less are noise rather than something to be seen."""


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Mean and standard deviation (D,) float32 of each encoder feature over the training scenes."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def identity(cls, dimension: int) -> Normalisation:
        """Leaves features as they are."""
        return cls(np.zeros(dimension, np.float32), np.ones(dimension, np.float32))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; float32 values survive exactly."""
        return {
            "color": "(value − mean)/spread over the seen map, 0 where unseen",
            "height_m_per_unit": HEIGHT_UNIT_M,
            "feature_mean": [float(v) for v in self.mean],
            "feature_std": [float(v) for v in self.std],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Normalisation:
        """Read what `to_dict` wrote."""
        return cls(np.asarray(data["feature_mean"], np.float32), np.asarray(data["feature_std"], np.float32))


def stack_scene(scene: Scene, normalisation: Normalisation) -> Tensor:
    """Network input (5 + D, H, W) float32 of a scene; unseen cells are 0 in every channel.

    Raises:
        BadInput: the features have another dimension than in training, or hold non-finite values.
    """
    _require_dimension(scene, normalisation)
    if scene.features is None:
        return stack_geometry(scene)
    _require_finite(scene.features, scene.features)
    features = (scene.features.astype(np.float32, copy=False) - normalisation.mean) / normalisation.std
    features = features * scene.valid[..., None]
    return torch.cat([stack_geometry(scene), torch.from_numpy(np.ascontiguousarray(features.transpose(2, 0, 1)))])


def pool_scene(scene: Scene, normalisation: Normalisation, factor: int, exposure: Exposure | None = None) -> Tensor:
    """Network input (5 + D, H/factor, W/factor) float32 of a scene, see `pool`; unseen cells are 0 in every channel.

    Args:
        scene: the fused map.
        normalisation: of its features.
        factor: cells that are pooled, along each axis.
        exposure: that of the scene, for those who know it already.

    Raises:
        BadInput: the features have another dimension than in training, or hold non-finite values; the edges of the
            map are no multiples of 2 · factor.
    """
    _require_dimension(scene, normalisation)
    geometry = pool(stack_geometry(scene, exposure), factor)
    if scene.features is None:
        return geometry
    pooled = pool_features(scene.features, scene.valid, factor)
    _require_finite(pooled, scene.features)
    shown = torch.from_numpy((pooled - normalisation.mean) / normalisation.std).permute(2, 0, 1)
    return torch.cat([geometry, shown * (geometry[4:5] > 0)])


def pool_features(features: NDArray[np.floating[Any]], valid: NDArray[np.bool_], factor: int) -> NDArray[np.float32]:
    """Mean (H/factor, W/factor, D) of features (H, W, D), 0 where `valid` (H, W) is not, over the seen cells."""
    rows, columns = (edge // factor for edge in valid.shape)
    summed = np.zeros((rows, columns, features.shape[2]), np.float32)
    for i, j in np.ndindex(factor, factor):
        summed += features[i::factor, j::factor]
    seen = valid.reshape(rows, factor, columns, factor).sum((1, 3), dtype=np.float32)
    mean: NDArray[np.float32] = summed / np.maximum(seen, 1)[..., None]
    return mean


def _require_dimension(scene: Scene, normalisation: Normalisation) -> None:
    """Check that a scene's features are of the kind that was trained on.

    Raises:
        BadInput: they have another number of channels.
    """
    dimension = len(normalisation.mean)
    given = 0 if scene.features is None else scene.features.shape[2]
    if given != dimension:
        raise BadInput(f"scene has {given} feature channels, the policy was trained on {dimension}; use its encoder")


def _require_finite(derived: NDArray[np.floating[Any]], features: NDArray[np.floating[Any]]) -> None:
    """Refuse features (H, W, D) when what was made of them is not finite."""
    if not np.isfinite(derived).all():
        finite = np.isfinite(features).all(axis=2)
        raise BadInput(
            f"encoder features are not finite in {int((~finite).sum())} of {finite.size} map cells; "
            "check the encoder's weights and runtime, no decision is made on them"
        )


@dataclass(frozen=True, eq=False)
class Exposure:
    """What a map's colors are set against, so that the networks see nearly the same in bright and in dim light.

    Attributes:
        mean: (3,) float32 of the seen cells' colors, 0 to 255.
        spread: standard deviation of all three channels about it, and `LEAST_SPREAD` more.
    """

    mean: NDArray[np.float32]
    spread: float

    @classmethod
    def of(cls, scene: Scene) -> Exposure:
        """Of all that a map shows."""
        share = scene.valid.astype(np.float32).ravel() / np.float32(max(scene.valid.sum(), 1))
        color = scene.color.reshape(-1, 3).astype(np.float32)
        mean = (share @ color).astype(np.float32)
        variance = float((share @ np.square(color) - np.square(mean)).mean())
        return cls(mean, math.sqrt(max(variance, 0.0)) + LEAST_SPREAD)


def stack_geometry(scene: Scene, exposure: Exposure | None = None) -> Tensor:
    """Color, height and valid (5, H, W) float32 of a scene; unseen cells are 0 in every channel.

    Args:
        scene: a map or a part of one.
        exposure: of the whole map; that of the scene itself unless given.
    """
    exposure = exposure or Exposure.of(scene)
    valid = scene.valid.astype(np.float32)[..., None]
    color = (scene.color - exposure.mean) * (valid / np.float32(exposure.spread))
    height = (scene.height / np.float32(HEIGHT_UNIT_M))[..., None] * valid
    return torch.from_numpy(np.ascontiguousarray(np.concatenate([color, height, valid], axis=2).transpose(2, 0, 1)))


def pool(stack: Tensor, factor: int) -> Tensor:
    """Mean over factor × factor cells, (C, H, W) to (C, H/factor, W/factor); seen cells only count where valid.

    The valid channel becomes the share of seen cells.

    Raises:
        BadInput: the edges of the map are no multiples of 2 · factor.
    """
    require_poolable(tuple(stack.shape[1:]), factor)
    mean = functional.avg_pool2d(stack[None], factor)[0]
    share = mean[4:5]
    pooled = mean / share.clamp_min(1e-6)
    return torch.cat([pooled[:4], share, pooled[5:]])


def require_poolable(shape: tuple[int, ...], factor: int) -> None:
    """Check that a map can be pooled, and then be read two by two cells.

    Raises:
        BadInput: its edges are no multiples of that.
    """
    if any(edge % (2 * factor) for edge in shape):
        raise BadInput(
            f"the map has {shape[0]} x {shape[1]} cells, both must be multiples of {2 * factor}; "
            "choose a workspace of such a size"
        )


def rotation(angle_rad: float) -> NDArray[np.float64]:
    """(2, 2), acts on (row, column) column vectors."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[c, -s], [s, c]])


def rotations(count: int) -> NDArray[np.float64]:
    """The angles of `count` rotation bins, 0 first, in [0, 2π)."""
    angles: NDArray[np.float64] = np.arange(count, dtype=np.float64) * (2 * math.pi / count)
    return angles


def crop(scene: Scene, centre: NDArray[np.float64], size: int) -> tuple[Scene, NDArray[np.float64]]:
    """Square part of a map, `size` cells an edge, that `centre` is in the middle of, to half a cell; without features.

    Args:
        scene: the map; beyond its edge nothing is seen.
        centre: (2,) fractional cell.
        size: edge in cells.

    Returns:
        The part, and (2,) `centre` in its cells.
    """
    first = np.floor(centre - (size - 1) / 2 + 0.5).astype(int)
    part = replace(
        scene,
        color=crop_array(scene.color, first, size),
        height=crop_array(scene.height, first, size),
        features=None,
        valid=crop_array(scene.valid, first, size),
    )
    return part, centre - first


def crop_array(array: NDArray[Any], first: NDArray[np.int_], size: int) -> NDArray[Any]:
    """Cells first … first + size − 1 along both axes of (H, W, …); 0 beyond the edge."""
    out = np.zeros((size, size, *array.shape[2:]), array.dtype)
    low, high = np.maximum(first, 0), np.minimum(first + size, array.shape[:2])
    if (low < high).all():
        a, b = low - first, high - first
        out[a[0] : b[0], a[1] : b[1]] = array[low[0] : high[0], low[1] : high[1]]
    return out


def turn(patch: Tensor, centre: NDArray[np.float64], angles_rad: NDArray[np.float64], size: int) -> Tensor:
    """Turned resamplings (R, C, size, size) of a patch (C, S, S) about `centre`, bilinear, 0 outside.

    Cell v of output r, in cells about the output's middle, shows the patch at centre + R(angles_rad[r])·v. Content
    therefore appears turned by −angles_rad[r].
    """
    channels, rows, columns = patch.shape
    offsets = np.arange(size) - (size - 1) / 2
    v_row, v_column = np.meshgrid(offsets, offsets, indexing="ij")
    c, s = np.cos(angles_rad)[:, None, None], np.sin(angles_rad)[:, None, None]
    row = centre[0] + c * v_row - s * v_column
    column = centre[1] + s * v_row + c * v_column
    grid = np.stack([(2 * column + 1) / columns - 1, (2 * row + 1) / rows - 1], axis=-1)
    batch = patch[None].expand(len(angles_rad), channels, rows, columns)
    return functional.grid_sample(
        batch, torch.from_numpy(grid).to(patch), mode="bilinear", padding_mode="zeros", align_corners=False
    )

"""Examples turned and shifted at random, with soft labels to match; see Zeng et al. 2020 for the idea.

The scene is turned by θ about a point m and shifted: a point p of the table goes to m′ + R(θ)(p − m). Labels are
floats in cells, index = centre, so no turn leaves half a cell behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from embodied_vision.learning.dataset import Example
from embodied_vision.policies import maps
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import FineNet, NetworkConfig
from embodied_vision.policies.policy import object_crop, picked_weights
from embodied_vision.policies.segments import Segment

Cells = NDArray[np.float64]
MARGIN_CELLS = 6.0
PLACE_SIGMA_COARSE = 0.8
PLACE_SIGMA_FINE = 0.8
YAW_SIGMA_BINS = 0.6
OFF_CENTRE_CELLS = 6.0
SHOWN_AS_IT_IS = 0.15
"""Share of the coarse examples that are not turned."""


@dataclass(frozen=True, eq=False)
class CoarseSample:
    """Input and labels of the coarse stage; labels sum to one.

    Attributes:
        pooled: (5 + D, h, w).
        pick: (h, w), the picked object, most where it is thick.
        picked: (h, w), the picked object, evenly.
        place: (h, w), around the place.
    """

    pooled: Tensor
    pick: Tensor
    picked: Tensor
    place: Tensor


@dataclass(frozen=True, eq=False)
class FineSample:
    """Input and label of the fine stage, before the network's own resampling.

    Attributes:
        patch, mask, anchor: crop around the object, its cells, and its anchor in the crop's cells.
        angles_rad: (R,) turns to try; the first few are near the truth.
        log_weight: (R,) logarithm of how many bins each stands for.
        key_patch, key_centre, key_angle_rad: crop around the place.
        label: (R, window, window), sums to one.
    """

    patch: Tensor
    mask: Tensor
    anchor: Cells
    angles_rad: NDArray[np.float64]
    log_weight: Tensor
    key_patch: Tensor
    key_centre: Cells
    key_angle_rad: float
    label: Tensor


def rotation(angle_rad: float) -> NDArray[np.float64]:
    """(2, 2), acts on (row, column) column vectors."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[c, -s], [s, c]])


def coarse_sample(
    example: Example, normalisation: Normalisation, config: NetworkConfig, rng: np.random.Generator
) -> CoarseSample:
    """The whole map, turned and shifted such that pick and place stay on it."""
    shape = example.scene.valid.shape
    theta, origin, target = _turn_within(example.segment.anchor, example.place, shape, rng)
    geometry = maps.stack_scene(replace(example.scene, features=None), Normalisation.identity(0))
    depth = ndimage.distance_transform_edt(example.segment.mask).astype(np.float32)
    extra = torch.from_numpy(np.stack([example.segment.mask.astype(np.float32), depth]))
    both = torch.cat([geometry, extra])
    turned = _gather(both, theta, origin, target) if theta else both
    factor = config.coarse_pool
    moved = Segment(
        mask=turned[-2].numpy() > 0.5,
        anchor=target + rotation(theta) @ (example.segment.anchor - origin),
        grasp=example.segment.grasp,
        top_m=example.segment.top_m,
        support_m=example.segment.support_m,
    )
    pooled = maps.pool(turned[:-2], factor)
    if example.pooled_features is not None:
        features = (example.pooled_features.astype(np.float32) - normalisation.mean) / normalisation.std
        shown = torch.from_numpy(np.ascontiguousarray(features.transpose(2, 0, 1)))
        if theta:
            shown = _gather(shown, theta, (origin + 0.5) / factor - 0.5, (target + 0.5) / factor - 0.5)
        pooled = torch.cat([pooled, shown * (pooled[4:5] > 0)])
    picked = torch.from_numpy(picked_weights(moved, pooled.shape[-2:], factor))
    thick = torch.nn.functional.avg_pool2d(turned[-1:][None], factor)[0, 0] ** 2
    pick = thick / thick.sum() if thick.sum() > 0 else picked
    place = target + rotation(theta) @ (example.place - origin)
    return CoarseSample(
        pooled=pooled,
        pick=pick,
        picked=picked,
        place=_blob((place + 0.5) / factor - 0.5, pooled.shape[-2:], PLACE_SIGMA_COARSE),
    )


def fine_sample(
    example: Example, normalisation: Normalisation, config: NetworkConfig, tried: int, rng: np.random.Generator
) -> FineSample:
    """Object and place, seen along independently turned axes, and a few of the rotation bins.

    The object's axes turn by α, the place's by β about a point off the place by v: what the network must answer is
    the turn φ = yaw + α − β and the place v in turned cells.

    Args:
        example: what to learn from.
        normalisation: of the features.
        config: shapes.
        tried: rotation bins to try: four next to the truth, the others drawn from the rest, weighted to stand for it.
        rng: all randomness.
    """
    alpha, beta = rng.uniform(-math.pi, math.pi, 2)
    radius, bearing = OFF_CENTRE_CELLS * math.sqrt(rng.uniform()), rng.uniform(-math.pi, math.pi)
    shift = radius * np.array([math.cos(bearing), math.sin(bearing)])
    phi = (example.yaw_rad + alpha - beta) % (2 * math.pi)

    bins, exact = config.bins, phi / (2 * math.pi / config.bins)
    near = (math.floor(exact) + np.arange(-1, 3)) % bins
    rest = np.setdiff1d(np.arange(bins), near)
    drawn = rng.choice(rest, max(0, min(tried, bins) - len(near)), replace=False)
    chosen = np.concatenate([near, drawn])
    weights = np.concatenate([np.zeros(len(near)), np.full(len(drawn), math.log(len(rest) / max(1, len(drawn))))])

    away = np.remainder(chosen - exact + bins / 2, bins) - bins / 2
    yaw_label = np.exp(-0.5 * (away / YAW_SIGMA_BINS) ** 2) * (weights == 0)
    middle = (config.window - 1) / 2
    place_label = _blob(middle + shift, (config.window, config.window), PLACE_SIGMA_FINE)
    label = torch.from_numpy((yaw_label / yaw_label.sum()).astype(np.float32))[:, None, None] * place_label

    patch, mask, anchor = object_crop(example.scene, example.segment, normalisation, config)
    key_middle = example.place - rotation(beta) @ shift
    around, key_centre = maps.crop(example.scene, key_middle, math.ceil(config.key * math.sqrt(2)) + 4)
    return FineSample(
        patch=patch,
        mask=mask,
        anchor=anchor,
        angles_rad=maps.rotations(bins)[chosen] - alpha,
        log_weight=torch.from_numpy(weights.astype(np.float32)),
        key_patch=maps.stack_scene(around, normalisation),
        key_centre=key_centre,
        key_angle_rad=beta,
        label=label,
    )


def fine_views(net: FineNet, sample: FineSample) -> tuple[Tensor, Tensor]:
    """What `FineNet` correlates for a sample: views of the object (R, …) and of the place."""
    query = net.query_views(sample.patch, sample.mask, sample.anchor, sample.angles_rad)
    return query, net.key_view(sample.key_patch, sample.key_centre, sample.key_angle_rad)


def _turn_within(
    pick: Cells, place: Cells, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[float, Cells, Cells]:
    """A turn and a shift that keep both points on the map; the identity now and then, and when none is found."""
    origin = (pick + place) / 2
    high = np.array(shape) - 1 - MARGIN_CELLS
    if rng.uniform() < SHOWN_AS_IT_IS:
        return 0.0, origin, origin
    for _ in range(100):
        theta = rng.uniform(-math.pi, math.pi)
        arm = np.abs(rotation(theta) @ (pick - origin))
        low, top = MARGIN_CELLS + arm, high - arm
        if (low < top).all():
            return theta, origin, rng.uniform(low, top)
    return 0.0, origin, origin


def _gather(stack: Tensor, theta: float, origin: Cells, target: Cells) -> Tensor:
    """Nearest-cell resampling of (C, H, W): the output at target + R(θ)(p − origin) shows p."""
    channels, rows, columns = stack.shape
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    offset = np.stack([i - target[0], j - target[1]], axis=-1)
    source = np.floor(offset @ rotation(theta) + origin + 0.5).astype(np.int64)
    inside = ((source >= 0) & (source < [rows, columns])).all(-1)
    flat = np.where(inside, source[..., 0] * columns + source[..., 1], 0)
    out = stack.flatten(1)[:, torch.from_numpy(flat.ravel())].view(channels, rows, columns)
    return out * torch.from_numpy(inside)


def _blob(centre: Cells, shape: tuple[int, ...] | torch.Size, sigma: float) -> Tensor:
    """Gaussian (rows, columns) around a fractional index, sums to one."""
    rows = np.exp(-0.5 * ((np.arange(shape[0]) - centre[0]) / sigma) ** 2)
    columns = np.exp(-0.5 * ((np.arange(shape[1]) - centre[1]) / sigma) ** 2)
    blob = np.outer(rows, columns)
    return torch.from_numpy((blob / max(blob.sum(), 1e-12)).astype(np.float32))

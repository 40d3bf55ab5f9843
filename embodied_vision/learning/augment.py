"""Examples turned and shifted at random, with soft labels to match; see Zeng et al. 2020 for the idea.

The scene is turned by θ about a point m and shifted: a point p of the table goes to m′ + R(θ)(p − m). Labels are
floats in cells, index = centre, so no turn leaves half a cell behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from embodied_vision.learning.dataset import Example
from embodied_vision.learning.relocate import relocated
from embodied_vision.policies import maps
from embodied_vision.policies.maps import Normalisation, rotation
from embodied_vision.policies.networks import FineNet, NetworkConfig
from embodied_vision.policies.policy import object_crop, picked_weights
from embodied_vision.policies.segments import Segment

Cells = NDArray[np.float64]
MARGIN_CELLS = 6.0
PLACE_SIGMA_COARSE = 0.8
PLACE_SIGMA_FINE = 0.8
YAW_SIGMA_BINS = 0.6
OFF_CENTRE_CELLS = 12.0
WRONG_PLACES = 2
EYE_CELLS = 8
"""Edge of the blocks of the map whose contrast is compared."""
SHOWN_AS_IT_IS = 0.15
"""Share of the coarse examples that are not turned."""
RELOCATED, NEAR_THE_PLACE = 0.7, 0.7
"""Share of the objects that are taken elsewhere, and of these of the ones that are put near the place."""
MOST_RELOCATED = 6
RELIT = 0.7
"""Share of the examples that are seen in another light."""
IDLE = -30.0
"""Logarithm of the weight of a rotation bin that stands for nothing: samples of a batch have equally many."""
BRIGHTER, TINTED, PAINTED = 0.15, 0.05, 0.15
"""Standard deviations of the logarithms of the factors on all colors, on each channel, and on each of the table."""
FLAT_M, NOISE_M = 0.003, 0.0015
"""What lies lower is colored like the table; largest standard deviation of the noise of heights."""


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
        key_patches, key_centres, key_angle_rad: crops around the place and around other places, (P,).
        label: (P, R, window, window), sums to one; all of it lies at the first place.
    """

    patch: Tensor
    mask: Tensor
    anchor: Cells
    angles_rad: NDArray[np.float64]
    log_weight: Tensor
    key_patches: Sequence[Tensor]
    key_centres: Sequence[Cells]
    key_angle_rad: float
    label: Tensor


def coarse_sample(
    example: Example,
    normalisation: Normalisation,
    config: NetworkConfig,
    rng: np.random.Generator,
    *,
    rearrange: bool = True,
) -> CoarseSample:
    """The whole map, free objects elsewhere, turned and shifted such that pick and place stay on it.

    Args:
        example: what to learn from.
        normalisation: of the features.
        config: shapes.
        rng: all randomness.
        rearrange: whether objects are taken elsewhere.
    """
    if rearrange:
        example = _rearranged(example, [example.segment, *example.waiting], rng)
    shape = example.scene.valid.shape
    theta, origin, target = _turn_within(example.segment.anchor, example.place, shape, rng)
    geometry = maps.stack_geometry(example.scene)
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
    pick = thick / thick.sum() if thick.sum() > 0 else _blob_at(moved.anchor, factor, pooled.shape[-2:])
    place = target + rotation(theta) @ (example.place - origin)
    return CoarseSample(
        pooled=pooled,
        pick=pick,
        picked=picked,
        place=_blob_at(place, factor, pooled.shape[-2:]),
    )


def _rearranged(example: Example, objects: Sequence[Segment], rng: np.random.Generator) -> Example:
    """Some of the objects taken elsewhere."""
    if example.primitive != "pick_place":
        return example
    chosen = [objects[i] for i in rng.permutation(len(objects))][:MOST_RELOCATED]
    for segment in chosen:
        if rng.uniform() < RELOCATED:
            example = relocated(example, segment, rng, example.place if rng.uniform() < NEAR_THE_PLACE else None)
    return example


def relit(example: Example, rng: np.random.Generator) -> Example:
    """The example in another light, on a table of another color, through a noisier depth camera.

    Colors of the scene are scaled channel by channel, those at the table's height once more; cells that are not seen
    stay so. Features are left as they are.
    """
    scene = example.scene
    light = math.exp(rng.normal(0, BRIGHTER)) * np.exp(rng.normal(0, TINTED, 3))
    table = np.exp(rng.normal(0, PAINTED, 3))
    flat = (np.abs(scene.height) < FLAT_M)[..., None]
    color = _scaled(scene.color, light)
    color = np.where(flat, _scaled(color, table), color)
    noise_m = rng.uniform(0, NOISE_M) * rng.normal(size=scene.height.shape).astype(np.float32)
    height = np.where(scene.valid, scene.height + noise_m, np.float32(0)).astype(np.float32)
    return replace(example, scene=replace(scene, color=color, height=height))


def _scaled(color: NDArray[np.uint8], factors: Cells) -> NDArray[np.uint8]:
    """Colors (…, 3) times a factor (3,) for each channel, no more than white."""
    table = np.minimum(np.arange(256)[:, None] * factors + 0.5, 255).astype(np.uint8)
    return np.stack([table[color[..., c], c] for c in range(3)], axis=-1)


def mirrored(example: Example) -> Example:
    """The example as seen in a mirror: the base's y axis runs the other way, so turns do as well.

    What is to be done with rigid things on a table does not depend on which way it is mirrored, and an object that
    is not like its mirror image becomes a new one.
    """
    last = example.scene.valid.shape[1] - 1

    def across(cells: Cells) -> Cells:
        return np.stack([cells[..., 0], last - cells[..., 1]], axis=-1)

    def mirrored_segment(segment: Segment) -> Segment:
        return replace(segment, mask=segment.mask[:, ::-1], anchor=across(segment.anchor), grasp=across(segment.grasp))

    scene, pooled = example.scene, example.pooled_features
    return replace(
        example,
        scene=replace(
            scene,
            color=scene.color[:, ::-1],
            height=scene.height[:, ::-1],
            valid=scene.valid[:, ::-1],
            features=None if scene.features is None else scene.features[:, ::-1],
        ),
        segment=mirrored_segment(example.segment),
        place=across(example.place),
        elsewhere=across(example.elsewhere),
        waiting=[mirrored_segment(each) for each in example.waiting],
        yaw_rad=-example.yaw_rad,
        pooled_features=None if pooled is None else pooled[:, ::-1],
    )


def fine_sample(
    example: Example, config: NetworkConfig, tried: int, rng: np.random.Generator, *, rearrange: bool = True
) -> FineSample:
    """Object and places, other objects elsewhere, along independently turned axes, and a few of the rotation bins.

    The object's axes turn by α, the place's by β about a point off the place by v: what the network must answer is
    the turn φ = yaw + α − β and the place v in turned cells. What has no turn of its own, a bead of a rope or the
    start of a push, is seen along the axes of its place.

    Args:
        example: what to learn from.
        config: shapes.
        tried: rotation bins to try: four next to the truth, the others drawn from the rest, weighted to stand for it.
        rng: all randomness.
        rearrange: whether objects are taken elsewhere.
    """
    around = example.scene
    if rearrange:
        example = _rearranged(example, example.waiting, rng)
        around = _rearranged(example, [example.segment], rng).scene
    alpha, beta = rng.uniform(-math.pi, math.pi, 2)
    v = _off_centre(rng)
    if example.primitive == "pick_place":
        angles_rad, log_weight, yaw_label = _tried_turns(
            example.yaw_rad + alpha - beta, config.bins, tried, example.fold, rng
        )
        angles_rad = angles_rad - alpha
    else:
        angles_rad, log_weight, yaw_label = np.array([-beta]), np.zeros(1), np.ones(1)
    middle = (config.window - 1) / 2
    right = torch.from_numpy(yaw_label.astype(np.float32))[:, None, None] * _blob(
        middle + v, (config.window, config.window), PLACE_SIGMA_FINE
    )

    patch, mask, anchor = object_crop(example.scene, example.segment, config, maps.Exposure.of(example.scene))
    middles = [example.place - rotation(beta) @ v]
    middles += [wrong - rotation(beta) @ _off_centre(rng) for wrong in _wrong_places(example, config, rng)]
    size = math.ceil(config.key * math.sqrt(2)) + 4
    keys = [maps.crop(around, each, size) for each in middles]
    exposure = maps.Exposure.of(around)
    return FineSample(
        patch=patch,
        mask=mask,
        anchor=anchor,
        angles_rad=angles_rad,
        log_weight=torch.from_numpy(log_weight.astype(np.float32)),
        key_patches=[maps.stack_geometry(crop, exposure) for crop, _ in keys],
        key_centres=[centre for _, centre in keys],
        key_angle_rad=beta,
        label=torch.stack([right, *[torch.zeros_like(right)] * (len(keys) - 1)]),
    )


def _off_centre(rng: np.random.Generator) -> Cells:
    """A random offset within `OFF_CENTRE_CELLS`: the coarse place is never exact."""
    radius, bearing = OFF_CENTRE_CELLS * math.sqrt(rng.uniform()), rng.uniform(-math.pi, math.pi)
    return radius * np.array([math.cos(bearing), math.sin(bearing)])


def _tried_turns(
    phi: float, bins: int, tried: int, fold: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Angles (R,) of the bins that are tried, logarithms (R,) of how many each stands for, soft label (R,).

    Of the turns of an object that are alike one is taken for the right one, and the others are not for wrong.
    """
    alike = (phi + 2 * math.pi / fold * (np.arange(fold) + rng.integers(fold))) % (2 * math.pi) / (2 * math.pi / bins)
    near = (np.floor(alike)[:, None].astype(int) + np.arange(-1, 3)) % bins
    chosen = near[0]
    rest = np.setdiff1d(np.arange(bins), near)
    wanted = max(0, min(tried, bins) - len(chosen))
    drawn = rng.choice(rest, min(wanted, len(rest)), replace=False)
    idle = rng.choice(near.ravel(), wanted - len(drawn))
    stands_for = math.log(len(rest) / len(drawn)) if len(drawn) else 0.0
    log_weight = np.repeat([0.0, stands_for, IDLE], [len(chosen), len(drawn), len(idle)])
    away = np.remainder(chosen - alike[0] + bins / 2, bins) - bins / 2
    label = np.zeros(len(log_weight))
    label[: len(chosen)] = np.exp(-0.5 * (away / YAW_SIGMA_BINS) ** 2)
    return maps.rotations(bins)[np.concatenate([chosen, drawn, idle])], log_weight, label / label.sum()


def _wrong_places(example: Example, config: NetworkConfig, rng: np.random.Generator) -> Cells:
    """(up to `WRONG_PLACES`, 2) cells where the object does not go.

    The first is where others of its episode do, or where it is; the others are where there is something to be seen.
    They are so far from the right place that no window about them shows it.
    """
    known = np.concatenate([example.elsewhere, example.segment.anchor[None]])
    known = known[rng.permutation(len(known))]
    seen = _eye_catching(example, rng, 30)
    apart = [points[np.linalg.norm(points - example.place, axis=1) > config.window] for points in (known, seen)]
    return np.concatenate([apart[0][:1], apart[1]])[:WRONG_PLACES]


def _eye_catching(example: Example, rng: np.random.Generator, count: int) -> Cells:
    """(count, 2) cells drawn in proportion to how much colors and heights differ around them."""
    picture = maps.stack_geometry(example.scene)[:4]
    blocks = picture.unfold(1, EYE_CELLS, EYE_CELLS).unfold(2, EYE_CELLS, EYE_CELLS)
    contrast = (blocks.amax((3, 4)) - blocks.amin((3, 4))).sum(0).double().numpy()
    share = contrast.ravel() + 1e-3
    drawn = rng.choice(share.size, count, p=share / share.sum())
    corners = np.stack(np.unravel_index(drawn, contrast.shape), axis=1) * EYE_CELLS
    cells: Cells = corners + rng.uniform(-0.5, EYE_CELLS - 0.5, (count, 2))
    return cells


def fine_views(net: FineNet, sample: FineSample) -> tuple[Tensor, Tensor]:
    """What `FineNet` correlates for a sample: views of the object (R, …) and of its places (P, …)."""
    query = net.query_views(sample.patch, sample.mask, sample.anchor, sample.angles_rad)
    keys = zip(sample.key_patches, sample.key_centres, strict=True)
    return query, torch.stack([net.key_view(patch, centre, sample.key_angle_rad) for patch, centre in keys])


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


def _blob_at(cell: Cells, factor: int, shape: torch.Size) -> Tensor:
    """Label (h, w) of the coarse stage around a fractional cell of the map."""
    return _blob((cell + 0.5) / factor - 0.5, shape, PLACE_SIGMA_COARSE)


def _blob(centre: Cells, shape: tuple[int, ...] | torch.Size, sigma: float) -> Tensor:
    """Gaussian (rows, columns) around a fractional index, sums to one."""
    rows = np.exp(-0.5 * ((np.arange(shape[0]) - centre[0]) / sigma) ** 2)
    columns = np.exp(-0.5 * ((np.arange(shape[1]) - centre[1]) / sigma) ** 2)
    blob = np.outer(rows, columns)
    return torch.from_numpy((blob / max(blob.sum(), 1e-12)).astype(np.float32))

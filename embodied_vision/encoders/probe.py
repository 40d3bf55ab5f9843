"""What a linear read-out finds in an encoder's features: what a patch shows, how high it lies, where in its object.

Every encoder sees the same patches of the same frames; intervals are bootstrapped over held-out scenes, and
differences between encoders over the same draws of scenes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_vision.encoders.base import Encoder, check_image
from embodied_vision.encoders.compact import (
    CompactArchitecture,
    CompactEncoder,
    as_input,
    initialised,
    weights_of,
)
from embodied_vision.encoders.correspondence import ViewSource
from embodied_vision.encoders.probe_points import PURE, ROBOT, TABLE, kind_of
from embodied_vision.encoders.raw import PATCH_PX
from embodied_vision.encoders.readouts import balanced_ridge, ridge
from embodied_vision.encoders.views import ViewSet, points_at
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import sample_grid
from embodied_vision.types import Features, FloatArray

PATCHES_A_BODY = 24
FIGURES = {
    "identity": "balanced accuracy over kinds of things",
    "height": "R² of the height above the base, table and objects",
    "offset": "R² of where in its object a patch lies, across the line of sight",
}


@dataclass(frozen=True, eq=False)
class Patches:
    """Labelled patches of many frames.

    Attributes:
        features: by encoder, float (N, D).
        kind: (N,) names such as `red block`.
        height_m: (N,) above the base's z = 0.
        offset_m: (N, 2) from the patch to the middle of its object along the image's u and v; NaN where unknown.
        scene: (N,) int, which view set each came from.
    """

    features: Mapping[str, FloatArray]
    kind: NDArray[np.str_]
    height_m: FloatArray
    offset_m: FloatArray
    scene: NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """JSON-ready form."""
        return {"value": self.value, "ci_low": self.low, "ci_high": self.high}


@dataclass(frozen=True)
class ProbeReport:
    """What the probe found.

    Attributes:
        figures: by encoder and figure, see `FIGURES`; the best value is 1.
        gains: the first encoder's figures less each other's, over the same scenes.
        kinds: kinds of things told apart.
        patches: numbers of training and held-out patches.
        scenes: numbers of training and held-out scenes.
    """

    figures: Mapping[str, Mapping[str, Figure]]
    gains: Mapping[str, Mapping[str, Figure]]
    kinds: tuple[str, ...]
    patches: tuple[int, int]
    scenes: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "figures": {e: {n: f.to_dict() for n, f in values.items()} for e, values in self.figures.items()},
            "gains": {e: {n: f.to_dict() for n, f in values.items()} for e, values in self.gains.items()},
            "kinds": list(self.kinds),
            "train": {"scenes": self.scenes[0], "patches": self.patches[0]},
            "held_out": {"scenes": self.scenes[1], "patches": self.patches[1]},
        }


class MeanColor:
    """The mean color of each patch: what can be had without an encoder."""

    encoder_id = "mean-color"
    artefact_id = "numpy"
    dimension = 3

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Mean color in 0 … 1 of every patch of 8 × 8 px."""
        check_image(color, smallest_px=PATCH_PX)
        rows, columns = color.shape[0] // PATCH_PX, color.shape[1] // PATCH_PX
        tiles = color[: rows * PATCH_PX, : columns * PATCH_PX].reshape(rows, PATCH_PX, columns, PATCH_PX, 3)
        grid = tiles.mean((1, 3), dtype=np.float32) / np.float32(255)
        return Features(grid, (float(PATCH_PX), float(PATCH_PX)), self.encoder_id, self.artefact_id, stamp_ns)


def random_twin(architecture: CompactArchitecture, seed: int, sets: ViewSource, images: int = 16) -> CompactEncoder:
    """A random-initialised encoder whose batch norms know the images: the fairest untrained opponent."""
    network = initialised(architecture, seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average over all that is shown
    network.train()
    with torch.no_grad():
        for i in range(min(images, len(sets))):
            network(as_input(sets[i].frames[0].color))
    return CompactEncoder(architecture, weights_of(network))


def _patches_of_frame(views: ViewSet, index: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """(row, column, body) of some pure patches of each body that a frame shows."""
    assert views.bodies is not None
    bodies = views.bodies[index]
    rows, columns = bodies.shape[0] // PATCH_PX, bodies.shape[1] // PATCH_PX
    tiles = bodies[: rows * PATCH_PX, : columns * PATCH_PX].reshape(rows, PATCH_PX, columns, PATCH_PX)
    chosen = []
    for body in np.unique(bodies[bodies >= 0]):
        pure = np.argwhere((tiles == body).mean((1, 3)) >= PURE)
        for row, column in rng.permutation(pure)[:PATCHES_A_BODY]:
            chosen.append((int(row), int(column), int(body)))
    return chosen


def _middles(views: ViewSet, index: int) -> dict[int, FloatArray]:
    """Pixel (u, v) of the middle of each body that a frame shows whole; background has none."""
    assert views.bodies is not None
    bodies = views.bodies[index]
    border = np.concatenate([bodies[0], bodies[-1], bodies[:, 0], bodies[:, -1]])
    whole = [b for b in np.setdiff1d(bodies, border) if kind_of(views.names.get(int(b), "")) not in (TABLE, ROBOT)]
    return {int(body): np.argwhere(bodies == body).mean(0)[::-1] for body in whole if body >= 0}


def _own_pixel(bodies: NDArray[np.int32], row: int, column: int, body: int) -> tuple[int, int]:
    """Pixel (u, v) of a patch that shows `body`, the nearest to the patch's middle."""
    corner = np.array([row, column]) * PATCH_PX
    tile = bodies[corner[0] : corner[0] + PATCH_PX, corner[1] : corner[1] + PATCH_PX]
    own = np.argwhere(tile == body)
    v, u = own[np.square(own - (PATCH_PX - 1) / 2).sum(1).argmin()] + corner
    return int(u), int(v)


def collect_patches(encoders: Mapping[str, Encoder], sets: ViewSource, seed: int) -> Patches:
    """Encode labelled frames and draw patches from each body.

    Raises:
        EncoderError: the frames have no labels.
    """
    features: dict[str, list[FloatArray]] = {name: [] for name in encoders}
    kinds, heights, offsets, scenes = [], [], [], []
    unknown = np.full(2, np.nan)
    for s in range(len(sets)):
        views = sets[s]
        if views.bodies is None:
            raise EncoderError("these frames say nothing about what they show; probe on simulated scenes")
        for i, frame in enumerate(views.frames):
            chosen = _patches_of_frame(views, i, np.random.default_rng([seed, s, i]))
            if not chosen:
                continue
            middles = np.array([((c + 0.5) * PATCH_PX, (r + 0.5) * PATCH_PX) for r, c, _ in chosen]) - 0.5
            whole = np.array([_own_pixel(views.bodies[i], r, c, body) for r, c, body in chosen])
            points = points_at(frame, whole)
            objects = _middles(views, i)
            focal = frame.camera.K[[0, 1], [0, 1]]
            for k, (_, _, body) in enumerate(chosen):
                u, v = whole[k].astype(int)
                kinds.append(kind_of(views.names.get(body, str(body))))
                heights.append(points[k, 2])
                offsets.append((objects.get(body, unknown) - whole[k]) * frame.depth[v, u] / focal)
                scenes.append(s)
            for name, encoder in encoders.items():
                features[name].append(sample_grid(encoder.encode(frame.color), middles))
    return Patches(
        {name: np.concatenate(parts).astype(np.float64) for name, parts in features.items()},
        np.array(kinds),
        np.array(heights),
        np.array(offsets),
        np.array(scenes),
    )


def _confusion(truth: NDArray[np.int64], found: NDArray[np.int64], scene: NDArray[np.int64], kinds: int) -> FloatArray:
    """(scenes, K, 2): by true kind, how many patches, and how many of them were named right."""
    counts = np.zeros((int(scene.max()) + 1, kinds, 2))
    np.add.at(counts, (scene, truth), np.stack([np.ones(len(truth)), truth == found], axis=1))
    return counts


def _balanced(counts: FloatArray) -> float:
    total = counts.sum(0)
    there = total[:, 0] > 0
    return float((total[there, 1] / total[there, 0]).mean())


def _moments(truth: FloatArray, found: FloatArray, scene: NDArray[np.int64], scenes: int) -> FloatArray:
    """(scenes, K, 4): number, sum and sum of squares of the truth, and squared error."""
    sums = np.zeros((scenes, truth.shape[1], 4))
    np.add.at(sums, scene, np.stack([np.ones_like(truth), truth, truth**2, (truth - found) ** 2], axis=-1))
    return sums


def _r2(sums: FloatArray) -> float:
    number, first, second, error = sums.sum(0).T
    spread = second - first**2 / np.maximum(number, 1)
    return float(1 - error.sum() / max(float(spread.sum()), 1e-12))


def _statistics(train: Patches, test: Patches, name: str, kinds: list[str]) -> dict[str, FloatArray]:
    """Per-scene sums from which each figure follows, for any draw of scenes."""
    x, held = train.features[name], test.features[name]
    index = {kind: i for i, kind in enumerate(kinds)}
    truth = np.array([index[k] for k in test.kind])
    slope, bias = balanced_ridge(x, np.array([index[k] for k in train.kind]), len(kinds))
    found = (held @ slope + bias).argmax(1)
    out = {"identity": _confusion(truth, found, test.scene, len(kinds))}
    known, seen = train.kind != ROBOT, test.kind != ROBOT
    slope, bias = ridge(x[known], train.height_m[known, None])
    found_height = held[seen] @ slope + bias
    scenes = len(out["identity"])
    out["height"] = _moments(test.height_m[seen, None], found_height, test.scene[seen], scenes)
    known, seen = np.isfinite(train.offset_m).all(1), np.isfinite(test.offset_m).all(1)
    slope, bias = ridge(x[known], train.offset_m[known])
    out["offset"] = _moments(test.offset_m[seen], held[seen] @ slope + bias, test.scene[seen], scenes)
    return out


def _interval(value: float, draws: FloatArray) -> Figure:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Figure(value, float(low), float(high))


def probe(
    encoders: Mapping[str, Encoder], train: ViewSource, test: ViewSource, *, seed: int = 0, resamples: int = 1000
) -> ProbeReport:
    """Compare encoders by linear read-outs fitted on `train` scenes and measured on `test` scenes.

    Args:
        encoders: by name; gains are those of the first over the others.
        train, test: labelled view sets of different scenes.
        seed: of the drawn patches and scenes.
        resamples: bootstrap draws.

    Raises:
        EncoderError: the frames have no labels.
    """
    fitted, held = collect_patches(encoders, train, seed), collect_patches(encoders, test, seed + 1)
    kinds = sorted(str(kind) for kind in set(fitted.kind))
    known = np.isin(held.kind, kinds)
    held = Patches(
        {n: f[known] for n, f in held.features.items()},
        held.kind[known],
        held.height_m[known],
        held.offset_m[known],
        held.scene[known],
    )
    measures = {"identity": _balanced, "height": _r2, "offset": _r2}
    statistics = {name: _statistics(fitted, held, name, kinds) for name in encoders}
    scenes = len(next(iter(statistics.values()))["identity"])
    picks = np.random.default_rng(seed).integers(scenes, size=(resamples, scenes))
    values: dict[str, dict[str, tuple[float, FloatArray]]] = {}
    for name, sums in statistics.items():
        values[name] = {
            figure: (measure(sums[figure]), np.array([measure(sums[figure][pick]) for pick in picks]))
            for figure, measure in measures.items()
        }
    first = next(iter(encoders))
    return ProbeReport(
        figures={n: {f: _interval(*v) for f, v in by.items()} for n, by in values.items()},
        gains={
            n: {f: _interval(values[first][f][0] - v[0], values[first][f][1] - v[1]) for f, v in by.items()}
            for n, by in values.items()
            if n != first
        },
        kinds=tuple(kinds),
        patches=(len(fitted.kind), len(held.kind)),
        scenes=(len(train), len(test)),
    )

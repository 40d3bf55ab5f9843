"""Whether features stay the same when only the looks of a scene change.

Each set shows one scene from the same cameras under two looks, such as none and the simulator's preset `strong`. A
patch is followed from one look into the other, where it lies at the same place of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.contrast import FOUND_M
from embodied_vision.encoders.correspondence import ViewSource, interest
from embodied_vision.encoders.views import points_at, visible_from
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import sample_grid
from embodied_vision.types import RGBD, FloatArray

POINTS = 400
"""Drawn from each pair of images."""


@dataclass(frozen=True)
class Stability:
    """How features bear another look of the same scene.

    Attributes:
        cosine: mean cosine of a point's features in both looks, features less their mean over all points; 1 is best.
        found: share of points whose nearest neighbour among the features of the other look lies within 15 mm.
        low, high: 95 % interval of `found`, bootstrap over scenes.
        scenes: number of scenes.
    """

    cosine: float
    found: float
    low: float
    high: float
    scenes: int

    def to_dict(self) -> dict[str, float]:
        """JSON-ready form."""
        return {
            "cosine": self.cosine,
            "found": self.found,
            "found_low": self.low,
            "found_high": self.high,
            "scenes": self.scenes,
        }


def stability(
    encoders: Mapping[str, Encoder], sets: ViewSource, *, seed: int = 0, resamples: int = 1000
) -> dict[str, Stability]:
    """Compare encoders on the same points.

    Args:
        encoders: by name.
        sets: the first half of the frames of each in one look, the second half from the same cameras in another.
        seed: of the points and of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        EncoderError: no set shows one scene in two looks.
    """
    cosines: dict[str, list[float]] = {name: [] for name in encoders}
    founds: dict[str, list[float]] = {name: [] for name in encoders}
    for number in range(len(sets)):
        frames = sets[number].frames
        rng = np.random.default_rng([seed, number])
        half = len(frames) // 2
        pairs = [
            (a, b)
            for a, b in zip(frames[:half], frames[half:], strict=False)
            if np.array_equal(a.camera.T_base_camera, b.camera.T_base_camera)
        ]
        points = [_points(rng, a, b) for a, b in pairs]
        for name, encoder in encoders.items():
            figures = [_compare(encoder, a, b, *p) for (a, b), p in zip(pairs, points, strict=True) if len(p[0])]
            if figures:
                cosine, found = np.mean(figures, axis=0)
                cosines[name].append(float(cosine))
                founds[name].append(float(found))
    if not all(founds.values()):
        raise EncoderError("no frames of one scene in two looks, from the same cameras; render some with two looks")
    scenes = len(next(iter(founds.values())))
    picks = np.random.default_rng(seed).integers(scenes, size=(resamples, scenes))
    out = {}
    for name in encoders:
        values = np.array(founds[name])
        low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
        out[name] = Stability(float(np.mean(cosines[name])), float(values.mean()), float(low), float(high), scenes)
    return out


def _points(rng: np.random.Generator, first: RGBD, second: RGBD) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Pixels in both images, and the points in the base frame that both show; more where there is detail."""
    weight = interest(first).ravel().astype(float)
    if not weight.any():
        return np.empty((0, 2)), np.empty((0, 2)), np.empty((0, 3))
    flat = rng.choice(len(weight), size=POINTS, p=weight / weight.sum())
    v, u = np.unravel_index(np.unique(flat), first.depth.shape)
    pixels = np.stack([u, v], axis=1).astype(float)
    points = points_at(first, pixels)
    there, seen = visible_from(points, second)
    return pixels[seen], there[seen], points[seen]


def _compare(
    encoder: Encoder, first: RGBD, second: RGBD, here: FloatArray, there: FloatArray, points: FloatArray
) -> tuple[float, float]:
    a = sample_grid(encoder.encode(first.color), here).astype(float)
    b = sample_grid(encoder.encode(second.color), there).astype(float)
    middle = np.concatenate([a, b]).mean(0)
    a, b = _unit(a - middle), _unit(b - middle)
    nearest = (a @ b.T).argmax(1)
    distance = np.linalg.norm(points[nearest] - points, axis=1)
    return float((a * b).sum(1).mean()), float((distance < FOUND_M).mean())


def _unit(values: FloatArray) -> FloatArray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)

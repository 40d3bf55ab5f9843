"""Pairs of crops that show the same points of a scene, found through depth and pose, or by their place in one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from embodied_vision.encoders.augment import APPEARANCES, SCALE, Crop, random_crop
from embodied_vision.encoders.views import ViewSet, points_at, visible_from
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import deproject
from embodied_vision.types import RGBD, FloatArray

FEWEST = 16
ATTEMPTS = 30
AROUND_PX = (17, 17)
RARELY = 0.08
GROUND_M = 0.006
"""What lies no higher above the base's z = 0, and no deeper, is the table."""


@dataclass(frozen=True)
class Drawing:
    """How pairs are drawn.

    Attributes:
        crop_px: edge of a crop.
        points: most of a pair.
        appearance: what may differ between the crops, a name of `APPEARANCES`.
        poses: whether depth and poses are there, and pairs may show a scene from two sides; otherwise both crops come
            from one image.
        zoom: px of a crop for a px of the image, about.
    """

    crop_px: int = 160
    points: int = 192
    appearance: str = "mild"
    poses: bool = True
    zoom: float = 1.0

    @property
    def scale(self) -> tuple[float, float]:
        """Bounds of the px of a crop for a px of the image."""
        return SCALE[0] * self.zoom, SCALE[1] * self.zoom


class ViewSource(Protocol):
    """Random access to view sets; a `ViewCache` or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ViewSet: ...


@dataclass(frozen=True, eq=False)
class View:
    """One crop of a pair.

    Attributes:
        frame: number in its set.
        color: uint8 (S, S, 3), augmented.
        in_image: (N, 2) where the points appear in the frame's image, as u, v.
        pixels: (N, 2) where the points appear in the crop, as u, v.
        shades: (N, 3) color around the points before the augmentation, in [0, 1].
    """

    frame: int
    color: NDArray[np.uint8]
    in_image: FloatArray
    pixels: FloatArray
    shades: FloatArray


@dataclass(frozen=True, eq=False)
class Pair:
    """Two views of the same N points.

    Attributes:
        scene: number of the set.
        first, second: the crops.
        points_m: (N, 3) in the base frame; NaN without poses.
    """

    scene: int
    first: View
    second: View
    points_m: FloatArray

    @property
    def views(self) -> tuple[View, View]:
        """Both."""
        return self.first, self.second


def interest(frame: RGBD, *, poses: bool = True) -> NDArray[np.float32]:
    """How often each pixel (H, W) should be drawn: in proportion to the detail around it, with `poses` rarely far from
    what stands on the table and never without depth.

    An empty table, plain or patterned, would otherwise fill most of the points, and no two of its points can be told
    apart, least of all when another look of the scene has another pattern there.
    """
    grey = cv2.cvtColor(frame.color, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    around = cv2.boxFilter(detail, -1, AROUND_PX)
    weight = np.minimum(around / max(float(around.mean()), 1e-6), 4.0) + RARELY
    if not poses:
        return weight.astype(np.float32)
    things = cv2.dilate(((frame.depth > 0) & ~ground(frame)).astype(np.uint8), np.ones(AROUND_PX, np.uint8)) > 0
    return np.where(frame.depth > 0, np.where(things, weight, RARELY), 0).astype(np.float32)


def ground(frame: RGBD) -> NDArray[np.bool_]:
    """Which pixels (H, W) show the table, by depth and pose."""
    height = deproject(frame.depth, frame.camera.K, frame.camera.T_base_camera)[..., 2]
    return (frame.depth > 0) & (np.abs(height) < GROUND_M)


def _draw(rng: np.random.Generator, weight: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    cumulative = np.cumsum(weight.ravel(), dtype=np.float64)
    flat = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    return np.unique(np.minimum(flat, weight.size - 1))


def _view(
    rng: np.random.Generator,
    views: ViewSet,
    number: int,
    crop: Crop,
    in_image: FloatArray,
    pixels: FloatArray,
    drawing: Drawing,
) -> View:
    frame = views.frames[number]
    rows, columns = frame.depth.shape
    u, v = np.clip(np.round(in_image).astype(int), 0, [columns - 1, rows - 1]).T
    smooth = cv2.blur(frame.color, (5, 5))
    color = APPEARANCES[drawing.appearance](rng, crop.color, crop.cut(ground(frame)))
    return View(number, color, in_image, pixels, smooth[v, u].astype(np.float32) / 255)


def sample_pair(rng: np.random.Generator, views: ViewSet, drawing: Drawing, scene: int = 0) -> Pair | None:
    """Draw two views of a set and some points that both crops show; None if they share too little."""
    a = int(rng.integers(len(views.frames)))
    b = int(rng.integers(len(views.frames))) if drawing.poses else a
    first, second = views.frames[a], views.frames[b]
    weight = interest(first, poses=drawing.poses)
    if not weight.any():
        return None
    flat = _draw(rng, weight, 8 * drawing.points)
    v, u = np.unravel_index(flat, weight.shape)
    in_first = np.stack([u, v], axis=1).astype(float)
    if drawing.poses:
        points = points_at(first, in_first)
        in_second, seen = visible_from(points, second)
    else:
        points = np.full((len(flat), 3), np.nan)
        in_second, seen = in_first, np.ones(len(flat), bool)
    if seen.sum() < FEWEST:
        return None
    points, in_first, in_second = points[seen], in_first[seen], in_second[seen]
    anchor = int(rng.integers(len(points)))
    crop_a = random_crop(rng, first.color, in_first[anchor], drawing.crop_px, scale=drawing.scale)
    crop_b = random_crop(rng, second.color, in_second[anchor], drawing.crop_px, scale=drawing.scale)
    placed_a, inside_a = crop_a.locate(in_first)
    placed_b, inside_b = crop_b.locate(in_second)
    shared = np.flatnonzero(inside_a & inside_b)
    if len(shared) < FEWEST:
        return None
    keep = rng.permutation(shared)[: drawing.points]
    return Pair(
        scene,
        _view(rng, views, a, crop_a, in_first[keep], placed_a[keep], drawing),
        _view(rng, views, b, crop_b, in_second[keep], placed_b[keep], drawing),
        points[keep],
    )


def sample_batch(rng: np.random.Generator, sets: ViewSource, pairs: int, drawing: Drawing) -> tuple[Pair, ...]:
    """Draw pairs from scenes drawn at random.

    Raises:
        EncoderError: hardly any two frames share points, as when depth or poses are wrong.
    """
    drawn: list[Pair] = []
    for _ in range(ATTEMPTS * pairs):
        scene = int(rng.integers(len(sets)))
        pair = sample_pair(rng, sets[scene], drawing, scene)
        if pair is not None:
            drawn.append(pair)
        if len(drawn) == pairs:
            return tuple(drawn)
    raise EncoderError(
        f"only {len(drawn)} of {ATTEMPTS * pairs} pairs of frames show {FEWEST} common points; "
        "check the cameras' poses and that depth is in metres and aligned to color"
    )

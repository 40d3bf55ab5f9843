"""Silhouettes of the kit's objects: flat unions of boxes, generated, with their rotational symmetry known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.types import FloatArray
from embodied_vision_sim.shapes import Box

THICKNESS_M = 0.02
RADIUS_M = 0.039
"""Distance from a shape's centre to its farthest corner."""
ROUND = 16
"""Corners of what stands for a circle."""


@dataclass(frozen=True)
class Bar:
    """A rectangle of a silhouette: centre and edges in m, turned by `angle` in rad."""

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0


@dataclass(frozen=True)
class KitShape:
    """A silhouette about the centre that it turns about.

    Attributes:
        name: what it looks like.
        bars: rectangles whose union it is, at most 16.
        order: how many turns leave it as it is, evenly spaced; a disc counts as `ROUND`.
    """

    name: str
    bars: tuple[Bar, ...]
    order: int

    @property
    def symmetry(self) -> float:
        """Least turn in rad that leaves it as it is."""
        return 2 * np.pi / self.order

    def boxes(self, thickness: float = THICKNESS_M) -> tuple[Box, ...]:
        """The silhouette as a slab about its middle plane."""
        return tuple(Box((b.width, b.height, thickness), (b.x, b.y, 0.0), b.angle) for b in self.bars)

    def covers(self, x: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
        """Whether points (N,) in m lie within the silhouette: bool (N,)."""
        inside = np.zeros(np.shape(x), bool)
        for bar in self.bars:
            c, s = np.cos(bar.angle), np.sin(bar.angle)
            u, v = c * (x - bar.x) + s * (y - bar.y), -s * (x - bar.x) + c * (y - bar.y)
            inside |= (np.abs(u) <= bar.width / 2) & (np.abs(v) <= bar.height / 2)
        return inside


def _around(bars: tuple[Bar, ...], count: int, first: float = 0.0) -> tuple[Bar, ...]:
    """Copies of bars, turned about the origin to `count` equally spaced angles."""
    turned = []
    for angle in first + np.arange(count) * 2 * np.pi / count:
        c, s = float(np.cos(angle)), float(np.sin(angle))
        turned += [Bar(c * b.x - s * b.y, s * b.x + c * b.y, b.width, b.height, b.angle + float(angle)) for b in bars]
    return tuple(turned)


def _polygon(sides: int, radius: float) -> tuple[Bar, ...]:
    """A regular polygon as the union of rectangles from each side to the centre, exact from 4 sides on."""
    apothem, side = radius * float(np.cos(np.pi / sides)), 2 * radius * float(np.sin(np.pi / sides))
    return _around((Bar(apothem / 2, 0.0, apothem, side),), sides)


def _triangle(radius: float, steps: int = 5) -> tuple[Bar, ...]:
    """An equilateral triangle of rectangles inscribed along its three sides."""
    height, side = 1.5 * radius, float(np.sqrt(3)) * radius
    depths = [radius / 2 * (k + 1) / steps for k in range(steps)]
    along = tuple(Bar(radius / 2 - d / 2, 0.0, d, side * (1 - d / height)) for d in depths)
    return _around(along, 3)


def _arc(radius: float, width: float, pieces: int, extent: float) -> tuple[Bar, ...]:
    """Pieces of a ring of mean radius `radius` about the −x direction over `extent` rad."""
    step = extent / pieces
    length = 2 * (radius + width / 2) * float(np.tan(step / 2))
    angles = np.pi + (np.arange(pieces) - (pieces - 1) / 2) * step
    return tuple(Bar(radius * float(np.cos(a)), radius * float(np.sin(a)), width, length, float(a)) for a in angles)


def _slices(lower: float, bounds: tuple[tuple[float, float], ...], height: float) -> tuple[Bar, ...]:
    """Slices of equal height from y = `lower` upwards, each from one x to another."""
    return tuple(Bar((x0 + x1) / 2, lower + (i + 0.5) * height, x1 - x0, height) for i, (x0, x1) in enumerate(bounds))


def _shape(name: str, bars: tuple[Bar, ...], order: int) -> KitShape:
    """A shape of the common size about its centroid, exact where no bars overlap or they do symmetrically."""
    areas = np.array([b.width * b.height for b in bars])
    cx, cy = (float(areas @ np.array(values) / areas.sum()) for values in ([b.x for b in bars], [b.y for b in bars]))
    moved = [Bar(b.x - cx, b.y - cy, b.width, b.height, b.angle) for b in bars]
    scale = RADIUS_M / max(_reach(b) for b in moved)
    scaled = tuple(Bar(scale * b.x, scale * b.y, scale * b.width, scale * b.height, b.angle) for b in moved)
    return KitShape(name, scaled, order)


def _reach(bar: Bar) -> float:
    """Distance from the origin to the farthest corner of a bar."""
    c, s = np.cos(bar.angle), np.sin(bar.angle)
    u, v = abs(c * bar.x + s * bar.y), abs(-s * bar.x + c * bar.y)
    return float(np.hypot(u + bar.width / 2, v + bar.height / 2))


def _mm(*bars: tuple[float, float, float, float]) -> tuple[Bar, ...]:
    return tuple(Bar(x / 1000, y / 1000, w / 1000, h / 1000) for x, y, w, h in bars)


_HEART = _slices(-0.034, tuple((-w, w) for w in (0.004, 0.010, 0.016, 0.022, 0.028, 0.033, 0.035, 0.035)), 0.006) + _mm(
    (-19, 17.5, 28, 7), (19, 17.5, 28, 7), (-18, 24, 18, 6), (18, 24, 18, 6)
)
_ARROW = (*_mm((-12, 0, 44, 16)), *(Bar(0.010 + 0.004 * k + 0.002, 0.0, 0.004, 0.056 - 0.008 * k) for k in range(7)))
_STAR_ARM = tuple(Bar(0.017 + 0.0105 * k, 0.0, 0.014, 0.018 - 0.007 * k) for k in range(2))

TRAIN_SHAPES: tuple[KitShape, ...] = (
    _shape("square", _mm((0, 0, 54, 54)), 4),
    _shape("bar", _mm((0, 0, 72, 30)), 2),
    _shape("hexagon", _polygon(6, 0.038), 6),
    _shape("disc", _polygon(ROUND, 0.036), ROUND),
    _shape("ring", _arc(0.029, 0.014, ROUND, 2 * np.pi), ROUND),
    _shape("cross", _mm((0, 0, 74, 24), (0, 24.5, 24, 25), (0, -24.5, 24, 25)), 4),
    _shape("star", _polygon(5, 0.018) + _around(_STAR_ARM, 5, np.pi / 5), 5),
    _shape("arrow", _ARROW, 1),
    _shape("T", _mm((0, 20, 66, 20), (0, -11, 20, 42)), 1),
    _shape("L", _mm((-15, 0, 20, 70), (15, -25, 40, 20)), 1),
    _shape("Z", _mm((-12, 24, 46, 18), (0, 0, 22, 30), (12, -24, 46, 18)), 2),
    _shape("H", _mm((-22, 0, 18, 64), (22, 0, 18, 64), (0, 0, 26, 18)), 2),
    _shape("U", _mm((-22, 4, 18, 56), (22, 4, 18, 56), (0, -16, 26, 16)), 1),
    _shape("E", _mm((-17, 0, 18, 68), (12, 26, 40, 16), (8, 0, 32, 14), (12, -26, 40, 16)), 1),
)
TEST_SHAPES: tuple[KitShape, ...] = (
    _shape("pentagon", _polygon(5, 0.038), 5),
    _shape("triangle", _triangle(0.040), 3),
    _shape("propeller", _around((Bar(0.0195, 0.0, 0.039, 0.020),), 3), 3),
    _shape("heart", _HEART, 1),
    _shape("crescent", _arc(0.029, 0.018, 11, 3.9), 1),
    _shape("F", _mm((-14, 0, 20, 72), (15, 27, 38, 18), (11, 0, 30, 16)), 1),
)

"""What a real depth camera adds to a perfect picture: noise, holes, delay."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from embodied_vision.geometry import depth_to_metres, quantise_depth
from embodied_vision.types import RGBD

EDGE_M = 0.02
"""Neighbouring pixels whose depths differ by more lie on an edge."""
PATCH_PX = (2.0, 8.0)
"""Radii of the patches without a return, px."""

T = TypeVar("T")


@dataclass(frozen=True)
class SensorNoise:
    """Imperfections of one camera.

    Attributes:
        color: standard deviation of the noise in levels of 255, each channel and pixel for itself.
        depth_m: standard deviation of the depth at 1 m; it grows with the square of the distance, as with
            triangulation.
        edges: share of the pixels on depth edges that return nothing.
        patches: number of round patches that return nothing.
    """

    color: float = 0.0
    depth_m: float = 0.0
    edges: float = 0.0
    patches: int = 0

    def apply(self, frame: RGBD, rng: np.random.Generator) -> RGBD:
        """The frame as this camera would give it, depth in whole millimetres; the same frame without any noise."""
        if self == SensorNoise():
            return frame
        color = frame.color + rng.standard_normal(frame.color.shape, np.float32) * np.float32(self.color)
        spread = np.float32(self.depth_m) * frame.depth**2
        depth = frame.depth + spread * rng.standard_normal(frame.depth.shape, np.float32)
        depth[frame.depth == 0] = 0
        depth[_edges(frame.depth) & (rng.random(frame.depth.shape, np.float32) < self.edges)] = 0
        for _ in range(self.patches):
            depth[_patch(frame.depth.shape, rng)] = 0
        return replace(
            frame,
            color=np.clip(np.rint(color), 0, 255).astype(np.uint8),
            depth=depth_to_metres(quantise_depth(depth)),
        )


def _edges(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (H, W) on either side of a step in depth."""
    edge = np.zeros(depth.shape, bool)
    rows, columns = (np.abs(np.diff(depth, axis=axis)) > EDGE_M for axis in (0, 1))
    edge[1:] |= rows
    edge[:-1] |= rows
    edge[:, 1:] |= columns
    edge[:, :-1] |= columns
    return edge


def _patch(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    v, u = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
    radius = rng.uniform(*PATCH_PX)
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])
    return np.asarray((rows - v) ** 2 + (columns - u) ** 2 < radius**2)


class Delay(Generic[T]):
    """First in, first out: what was seen some time ago is what is known now.

    Args:
        latency_s: in simulated time; 0 hands on at once.
    """

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._waiting: deque[tuple[float, T]] = deque()

    def push(self, time_s: float, item: T) -> T:
        """Take what is seen at `time_s`, later at each call, and return the newest item of that age; the first one
        until then."""
        self._waiting.append((time_s, item))
        while len(self._waiting) > 1 and self._waiting[1][0] <= time_s - self._latency_s + 1e-9:
            self._waiting.popleft()
        return self._waiting[0][1]

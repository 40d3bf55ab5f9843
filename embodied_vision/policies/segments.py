"""The object under a pick: its top face on the map, the point that stands for it, and heights for the tool.

Demonstrations pick anywhere on an object. The centroid of its top face stands for the object instead, so that all
demonstrations of one placement agree, and symmetric objects share one place point whatever their yaw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from embodied_vision.policies import maps
from embodied_vision.types import Scene

HEIGHT_TOLERANCE_M = 0.008
CHROMA_TOLERANCE = 0.12
WINDOW_M = 0.24
GRASP_MARGIN_M = 0.012
RING_M = (0.008, 0.03)
POINT_M = 0.006
SUMMIT_M = 0.002
BESIDE_M = 0.05
CARRYING_PERCENTILE = 70
FOLDS = (12, 8, 6, 5, 4, 3, 2)
"""Symmetries that are looked for, the most turns first."""
MOST_BLURRED, LEAST_BLURRED, LESS_ALIKE = 2.2, 0.8, 0.04
"""How much of a face its turn does not cover because it is seen in cells, at most and at least, as a multiple of the
root of its area; how much less of it is covered by turns that are taken because they are more."""
OBLIQUE_RAD = 0.17
"""Along the map's axes a turned face would be compared with one that is not interpolated."""


@dataclass(frozen=True, eq=False)
class Segment:
    """Top face of the object under a pick.

    Attributes:
        mask: bool (H, W), cells of the face.
        anchor: (2,) fractional map cell of its centroid.
        grasp: (2,) fractional map cell where the tool takes it: next to the anchor, clear of the edge.
        top_m: height of the face at the grasp.
        support_m: height of what the object stands on.
    """

    mask: NDArray[np.bool_]
    anchor: NDArray[np.float64]
    grasp: NDArray[np.float64]
    top_m: float
    support_m: float


def chroma(color: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share (…, 3) of red, green and blue in what is not black."""
    values = color.astype(np.float32)
    total = values[..., 0] + values[..., 1] + values[..., 2]  # sum(axis=-1) is many times slower for three
    shares: NDArray[np.float32] = values / (total + np.float32(30.0))[..., None]
    return shares


def _seed(scene: Scene, cell: NDArray[np.float64]) -> tuple[int, int] | None:
    """Highest seen cell among the 3 × 3 around a point: on the object when the point is at its very edge."""
    i, j = np.floor(cell + 0.5).astype(int)
    rows, columns = scene.valid.shape
    area = (slice(max(i - 1, 0), min(i + 2, rows)), slice(max(j - 1, 0), min(j + 2, columns)))
    return highest(scene, area)


def highest(scene: Scene, area: tuple[slice, slice]) -> tuple[int, int] | None:
    """Highest seen cell of a part of the map, None where nothing of it is seen."""
    heights = np.where(scene.valid[area], scene.height[area], -np.inf)
    if heights.size == 0 or not np.isfinite(heights).any():
        return None
    best = np.unravel_index(int(heights.argmax()), heights.shape)
    return int(area[0].start + best[0]), int(area[1].start + best[1])


def segment_at(scene: Scene, cell: NDArray[np.float64]) -> Segment:
    """Connected cells around `cell` of its height and chromaticity.

    A face that reaches further than `WINDOW_M` from the pick is no single object (the table, say): the pick then
    stands for itself.

    Args:
        scene: the fused map.
        cell: (2,) fractional map coordinates of the pick.
    """
    unit = scene.workspace.cell
    mask = np.zeros(scene.valid.shape, bool)
    seed = _seed(scene, cell)
    if seed is None:
        return Segment(mask, cell.astype(float), cell.astype(float), 0.0, 0.0)
    reach = round(WINDOW_M / unit)
    rows, columns = scene.valid.shape
    area = (
        slice(max(seed[0] - reach, 0), min(seed[0] + reach + 1, rows)),
        slice(max(seed[1] - reach, 0), min(seed[1] + reach + 1, columns)),
    )
    local = (seed[0] - area[0].start, seed[1] - area[1].start)
    height, hues = scene.height[area], chroma(scene.color[area])
    near = scene.valid[area] & (np.abs(height - height[local]) < HEIGHT_TOLERANCE_M)
    red, green, blue = np.moveaxis(np.abs(hues - hues[local]), -1, 0)
    near &= red + green + blue < CHROMA_TOLERANCE
    labels, _ = ndimage.label(near)
    face = labels == labels[local]
    extent = max(np.abs(np.flatnonzero(face.any(1 - axis)) - local[axis]).max() for axis in (0, 1))
    if extent >= reach or face.sum() < 4:
        return point_at(scene, cell)
    mask[area] = face
    cells = np.argwhere(mask).astype(float)
    anchor = cells.mean(axis=0)
    grasp = _grasp(mask, anchor, GRASP_MARGIN_M / unit)
    close = np.linalg.norm(cells - grasp, axis=1) <= 0.012 / unit
    tops = scene.height[mask][close]
    top = float(np.median(tops if len(tops) else scene.height[mask]))
    return Segment(mask, anchor, grasp, top, _support(scene, mask, top))


def point_at(scene: Scene, cell: NDArray[np.float64]) -> Segment:
    """A place that stands for itself, on no object in particular: a bead of a rope, the start of a push.

    Args:
        scene: the fused map.
        cell: (2,) fractional map coordinates.
    """
    cell = cell.astype(float)
    area, distance = _within(scene, cell, RING_M[1])
    valid, height = scene.valid[area], scene.height[area]
    top, around = valid & (distance < POINT_M), valid & (distance < RING_M[1])
    top_m = float(height[top].max()) if top.any() else 0.0
    support_m = float(np.percentile(height[around], 20)) if around.any() else top_m
    return Segment(np.zeros(scene.valid.shape, bool), cell, cell, top_m, support_m)


def climb(scene: Scene, cell: NDArray[np.float64], reach_m: float = 0.012) -> NDArray[np.float64]:
    """(2,) fractional cell of the nearest small summit: mean of the highest millimetres within `reach_m` of a cell."""
    area, distance = _within(scene, cell, reach_m)
    near, height = scene.valid[area] & (distance <= reach_m), scene.height[area]
    if not near.any():
        return cell.astype(float)
    summit = np.argwhere(near & (height >= height[near].max() - SUMMIT_M)) + np.array([s.start for s in area])
    first = summit[np.linalg.norm(summit - cell, axis=1).argmin()]
    middle: NDArray[np.float64] = summit[np.linalg.norm(summit - first, axis=1) <= 1.5].mean(axis=0)
    return middle


def _within(scene: Scene, cell: NDArray[np.float64], reach_m: float) -> tuple[tuple[slice, slice], NDArray[np.float64]]:
    """The part of the map that holds all cells within a distance of one, and their distances (h, w) in m."""
    reach = reach_m / scene.workspace.cell
    first = np.maximum(np.floor(cell - reach).astype(int), 0)
    end = np.maximum(np.ceil(cell + reach).astype(int) + 1, first)
    area = (slice(int(first[0]), int(end[0])), slice(int(first[1]), int(end[1])))
    rows, columns = (np.arange(edge)[part] for edge, part in zip(scene.valid.shape, area, strict=True))
    return area, np.hypot(rows[:, None] - cell[0], columns - cell[1]) * scene.workspace.cell


def _grasp(mask: NDArray[np.bool_], anchor: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """The anchor where it lies deep enough inside the face, else the nearest cell that does."""
    around = _box(mask, 0)
    depth = np.zeros(mask.shape)
    depth[around] = ndimage.distance_transform_edt(np.pad(mask[around], 1))[1:-1, 1:-1]
    wanted = min(margin, float(depth.max()))
    i, j = np.floor(anchor + 0.5).astype(int)
    if depth[i, j] >= wanted:
        return anchor
    inside = np.argwhere(depth >= wanted).astype(float)
    nearest: NDArray[np.float64] = inside[np.linalg.norm(inside - anchor, axis=1).argmin()]
    return nearest


def _support(scene: Scene, mask: NDArray[np.bool_], top_m: float) -> float:
    """Low percentile of the heights in a ring around the face; the table's 0 where nothing lower is seen."""
    around = _box(mask, int(RING_M[1] / scene.workspace.cell) + 1)
    height = scene.height[around]
    distance = ndimage.distance_transform_edt(~mask[around]) * scene.workspace.cell
    ring = scene.valid[around] & (distance > RING_M[0]) & (distance < RING_M[1]) & (height < top_m - 0.01)
    return float(np.percentile(height[ring], 20)) if ring.sum() >= 8 else 0.0


def _box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """The part of the map that holds all cells of a mask and `margin` more on every side."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )


def place_support(scene: Scene, segment: Segment, place: NDArray[np.float64], yaw_rad: float) -> float:
    """Height in m of what will carry the object, from the seen cells under its turned footprint.

    Walls beside the footprint leak into its rim, so the rim is left out; what bridges a gap lies on its sides, so a
    high percentile of what is seen counts. Cells of the object itself, where it stands now, do not count.
    """
    cells = np.argwhere(segment.mask).astype(float)
    if not len(cells):
        cells = segment.anchor[None]
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    target = place + (cells - segment.anchor) @ np.array([[c, s], [-s, c]])
    footprint = np.zeros(scene.valid.shape, bool)
    index = np.floor(target + 0.5).astype(int)
    inside = ((index >= 0) & (index < footprint.shape)).all(axis=1)
    footprint[tuple(index[inside].T)] = True
    usable = scene.valid.copy()
    if segment.mask.any():
        own = _box(segment.mask, 3)
        usable[own] &= ~ndimage.binary_dilation(segment.mask[own], iterations=3)
    if footprint.any():
        under = _box(footprint, 1)
        height, seen = scene.height[under], usable[under]
        closed = ndimage.binary_closing(footprint[under], iterations=1)
        for shrink in (2, 1, 0):
            core = ndimage.binary_erosion(closed, iterations=shrink) if shrink else closed
            if (core & seen).sum() >= 12:
                return float(np.percentile(height[core & seen], CARRYING_PERCENTILE))
    area, distance = _within(scene, place, BESIDE_M)
    close = usable[area] & (distance < BESIDE_M)
    return float(np.percentile(scene.height[area][close], 10)) if close.any() else 0.0


def fold(segment: Segment) -> int:
    """How often a face looks the same in a full turn about its anchor: 1, 2, … 8, and 12 for what may be round.

    Told by the overlap (intersection over union) of the face with itself.
    """
    cells = np.argwhere(segment.mask)
    if not len(cells):
        return 1
    size = 2 * math.ceil(float(np.linalg.norm(cells - segment.anchor, axis=1).max()) + 2)
    first = np.floor(segment.anchor - (size + 3) / 2 + 0.5).astype(int)
    face = torch.from_numpy(maps.crop_array(segment.mask.astype(np.float32), first, size + 4))[None]
    overlaps = []
    for count in FOLDS:
        turned = maps.turn(face, segment.anchor - first, maps.rotations(count) + OBLIQUE_RAD, size)[:, 0]
        other = turned.roll(1, 0)
        overlaps.append(float(torch.minimum(turned, other).sum() / torch.maximum(turned, other).sum()))
    most, least = 1 - np.array([LEAST_BLURRED, MOST_BLURRED]) / math.sqrt(len(cells))
    least = max(least, min(most, max(overlaps)) - LESS_ALIKE)
    return next((count for count, overlap in zip(FOLDS, overlaps, strict=True) if overlap >= least), 1)

"""Objects that stand free, taken elsewhere in a recorded scene.

A few dozen scenes hardly ever show an object right next to where it is to go, and a policy that has not seen that
takes it for one that has been placed. So objects that the demonstration has not touched yet are cut out, with the
shadow they throw on the map, and put down turned on a free part of what they stand on.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from embodied_vision.learning.dataset import Example
from embodied_vision.policies.maps import rotation
from embodied_vision.policies.segments import CHROMA_TOLERANCE, Segment, chroma
from embodied_vision.types import Scene

FLAT_M = 0.003
SHADOW_CELLS, REACH_CELLS = 4, 12
"""How far around an object its shadow goes with it, and how far around it is looked for what is left of it."""
NEAR_CELLS = 20
"""How far beside a point, and its own extent, an object goes that is put near it, along either axis."""
NEARER_OF = 6
"""Of so many places near a point the nearest is taken."""


def relocated(
    example: Example, segment: Segment, rng: np.random.Generator, near: NDArray[np.float64] | None = None
) -> Example:
    """The example with one object elsewhere; as it was where there is no room.

    Args:
        example: what to change.
        segment: `example.segment` or one of `example.waiting`.
        rng: all randomness.
        near: (2,) cell that it is put near to, where there is room; anywhere when None.
    """
    scene = example.scene
    if not segment.mask.any():
        return example
    radius = _radius(segment) + SHADOW_CELLS
    free = _free(scene, segment, radius)
    everywhere = (slice(0, free.shape[0]), slice(0, free.shape[1]))
    room = _room(free, radius, everywhere if near is None else _box(near, NEAR_CELLS + 2 * radius, scene))
    if not len(room) and near is not None:
        room = _room(free, radius, everywhere)
    if not len(room):
        return example
    drawn = room[rng.integers(len(room), size=1 if near is None else NEARER_OF)].astype(float)
    target = drawn[0] if near is None else drawn[np.linalg.norm(drawn - near, axis=1).argmin()]
    theta = rng.uniform(-math.pi, math.pi)
    shown, source, arrived = _sources(scene, segment, free, radius, target, theta)
    changed = replace(_shown(example, shown, source), waiting=[s for s in example.waiting if s is not segment])
    if segment is not example.segment:
        return changed
    moved = replace(
        segment, mask=arrived, anchor=target, grasp=target + rotation(theta) @ (segment.grasp - segment.anchor)
    )
    return replace(changed, segment=moved, yaw_rad=example.yaw_rad - theta)


def _radius(segment: Segment) -> float:
    return float(np.linalg.norm(np.argwhere(segment.mask) - segment.anchor, axis=1).max())


def _free(scene: Scene, segment: Segment, radius: float) -> NDArray[np.bool_]:
    """Cells (H, W) of what the object stands on: of its height, flat, and of one color with what is around it."""
    level: NDArray[np.bool_] = scene.valid & (np.abs(scene.height - segment.support_m) < FLAT_M)
    hues = chroma(scene.color)
    box = _box(segment.anchor, radius + SHADOW_CELLS, scene)
    if not level[box].any():
        return np.zeros_like(level)
    level &= np.abs(hues - np.median(hues[box][level[box]], axis=0)).sum(-1) < CHROMA_TOLERANCE
    return level


def _room(free: NDArray[np.bool_], radius: float, box: tuple[slice, slice]) -> NDArray[np.int_]:
    """Cells (N, 2) of a box around which the object covers nothing but free ones; its shadow may fall on others."""
    distance = ndimage.distance_transform_edt(np.pad(free[box], 1))[1:-1, 1:-1]
    return np.argwhere(distance > radius - SHADOW_CELLS + 1) + np.array([box[0].start, box[1].start])


def _sources(
    scene: Scene,
    segment: Segment,
    free: NDArray[np.bool_],
    radius: float,
    target: NDArray[np.float64],
    theta: float,
) -> tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.bool_]]:
    """Cells (N, 2) that show others after the move, which ones (N, 2), and (H, W) where the object is then."""
    box = _box(segment.anchor, radius + REACH_CELLS, scene)
    first = np.array([box[0].start, box[1].start])
    away = _distance(segment.anchor, box)
    own, unseen = ndimage.binary_dilation(segment.mask[box]), ~scene.valid[box]
    taken = np.zeros_like(segment.mask)
    taken[box] = own | (unseen & (away <= radius))
    shown, source = np.empty((0, 2), int), np.empty((0, 2), int)
    clear = ndimage.binary_erosion(free[box], iterations=SHADOW_CELLS)  # features see a little beyond their cell
    if clear.any():
        nearest = ndimage.distance_transform_edt(~clear, return_distances=False, return_indices=True)
        left = np.argwhere(own | (unseen & (away <= radius + REACH_CELLS - SHADOW_CELLS)))
        shown, source = left + first, nearest[:, left[:, 0], left[:, 1]].T + first
    around = _box(target, radius, scene)
    there = np.argwhere(_distance(target, around) <= radius) + np.array([around[0].start, around[1].start])
    cells = np.floor((there - target) @ rotation(theta) + segment.anchor + 0.5).astype(int)
    inside = ((cells >= 0) & (cells < segment.mask.shape)).all(1)
    there, cells = there[inside], cells[inside]
    object_or_free = segment.mask[cells[:, 0], cells[:, 1]] | free[there[:, 0], there[:, 1]]
    carried = taken[cells[:, 0], cells[:, 1]] & object_or_free
    there, cells = there[carried], cells[carried]
    arrived = np.zeros_like(segment.mask)
    arrived[there[:, 0], there[:, 1]] = segment.mask[cells[:, 0], cells[:, 1]]
    return np.concatenate([shown, there]), np.concatenate([source, cells]), arrived


def _box(centre: NDArray[np.float64], reach: float, scene: Scene) -> tuple[slice, slice]:
    first = np.maximum(np.floor(centre - reach).astype(int), 0)
    last = np.minimum(np.ceil(centre + reach).astype(int) + 1, scene.valid.shape)
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def _distance(centre: NDArray[np.float64], box: tuple[slice, slice]) -> NDArray[np.float64]:
    rows, columns = np.arange(box[0].start, box[0].stop), np.arange(box[1].start, box[1].stop)
    distance: NDArray[np.float64] = np.hypot(rows[:, None] - centre[0], columns[None] - centre[1])
    return distance


def _shown(example: Example, cells: NDArray[np.int_], source: NDArray[np.int_]) -> Example:
    """The example with a scene in which some cells (N, 2) show what others (N, 2) did."""
    scene, pooled = example.scene, example.pooled_features
    maps: dict[str, Any] = {name: _copied(getattr(scene, name), cells, source) for name in ("color", "height", "valid")}
    if pooled is not None:
        factor = scene.valid.shape[0] // pooled.shape[0]
        middle = (cells % factor == factor // 2).all(1)
        pooled = _copied(pooled, cells[middle] // factor, source[middle] // factor)
    return replace(example, scene=replace(scene, **maps, features=None), pooled_features=pooled)


def _copied(array: NDArray[Any], cells: NDArray[np.int_], source: NDArray[np.int_]) -> NDArray[Any]:
    """A copy of (H, W, …) in which some cells hold what others did."""
    changed = array.copy()
    changed[cells[:, 0], cells[:, 1]] = array[source[:, 0], source[:, 1]]
    return changed

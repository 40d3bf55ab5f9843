"""How often a face looks the same in a full turn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from embodied_vision.policies.segments import Segment, fold
from policies.synthetic import in_block

CELLS = 60


def points(anchor: NDArray[np.float64], yaw_rad: float) -> NDArray[np.float64]:
    """Cells (CELLS, CELLS, 2) about the anchor in the face's own frame."""
    cells = np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS), indexing="ij"), axis=-1) - anchor
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    return cells @ np.array([[c, -s], [s, c]])


def face(mask: NDArray[np.bool_]) -> Segment:
    anchor = np.argwhere(mask).mean(0) if mask.any() else np.array([30.0, 30.0])
    return Segment(mask, anchor, anchor, 0.04, 0.0)


def polygon(own: NDArray[np.float64], corners: int, radius: float) -> NDArray[np.bool_]:
    bearing = np.arctan2(own[..., 1], own[..., 0])
    to_edge = np.remainder(bearing, 2 * math.pi / corners) - math.pi / corners
    return np.linalg.norm(own, axis=-1) * np.cos(to_edge) < radius * math.cos(math.pi / corners)


def test_squares_and_boxes_and_disks_and_blocks() -> None:
    """Drawn in cells a square may be a cell longer than wide, and have fewer turns than it should, never others."""
    rng, squares = np.random.default_rng(0), []
    for _ in range(30):
        own = points(np.array([30.0, 30.0]) + rng.uniform(-0.5, 0.5, 2), rng.uniform(0, 2 * math.pi))
        along, across = np.abs(own[..., 0]), np.abs(own[..., 1])
        squares.append(fold(face((along < 8) & (across < 8))))
        assert fold(face((along < 12) & (across < 7))) == 2
        assert fold(face(np.linalg.norm(own, axis=-1) < 9)) == 12
        assert fold(face(in_block(own * 0.004))) == 1
    assert set(squares) <= {2, 4}
    assert squares.count(4) > 25


@pytest.mark.parametrize("corners", [3, 4, 5, 6])
def test_polygons(corners: int) -> None:
    for yaw in np.linspace(0, 2, 7):
        assert fold(face(polygon(points(np.array([30.2, 29.7]), yaw), corners, 12))) == corners


def test_nothing_has_no_turns() -> None:
    assert fold(face(np.zeros((CELLS, CELLS), bool))) == 1

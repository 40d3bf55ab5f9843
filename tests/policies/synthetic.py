"""A tiny world on a map: an L-shaped block, a fixture of its shape, distracting boxes, and the right answer."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from embodied_vision import geometry
from embodied_vision.types import PickPlace, Scene, Workspace

BLOCK_TOP_M = 0.04
FIXTURE_TOP_M = 0.01
GREY, RED, GREEN, BLUE = (90, 90, 90), (200, 40, 40), (40, 180, 60), (40, 60, 200)


def in_block(points: NDArray[np.float64], scale: float = 1.0) -> NDArray[np.bool_]:
    """Whether points (…, 2) in m of the block's own frame lie in its L of 10 × 10 cm, arms 4 cm wide."""
    x, y = points[..., 0], points[..., 1]
    arm, leg = 0.05 * scale, 0.01 * scale
    inside = (np.abs(x) < arm) & (np.abs(y) < arm)
    return inside & ((x < -leg) | (y < -leg))


def paint(
    scene: Scene, xy: NDArray[np.float64], yaw_rad: float, top_m: float, color: tuple[int, int, int], scale: float = 1.0
) -> NDArray[np.bool_]:
    """Draw the block's shape into a map, in place; returns its cells."""
    rows, columns = scene.valid.shape
    cells = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    offset = geometry.cell_to_xy(cells, scene.workspace) - xy
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    own = in_block(offset @ np.array([[c, -s], [s, c]]), scale)
    scene.height[own] = top_m
    scene.color[own] = color
    return own


def empty_scene(features: int = 0, workspace: Workspace | None = None) -> Scene:
    """A bare table, fully seen."""
    workspace = workspace or Workspace()
    shape = workspace.shape
    return Scene(
        color=np.full((*shape, 3), GREY, np.uint8),
        height=np.zeros(shape, np.float32),
        features=np.zeros((*shape, features), np.float32) if features else None,
        valid=np.ones(shape, bool),
        workspace=workspace,
        stamp_ns=7,
    )


def insertion(rng: np.random.Generator, features: int = 0) -> tuple[Scene, PickPlace]:
    """A scene with a red block and a green fixture, and an action that picks anywhere on the block and inserts it."""
    scene = empty_scene(features)
    while True:
        points = rng.uniform([0.32, -0.43], [0.68, 0.43], (2, 2))
        if np.linalg.norm(points[0] - points[1]) > 0.18:
            break
    block, fixture = points
    yaw_block, yaw_fixture = rng.uniform(-math.pi, math.pi, 2)
    paint(scene, fixture, yaw_fixture, FIXTURE_TOP_M, GREEN, 1.1)
    own = paint(scene, block, yaw_block, BLOCK_TOP_M, RED)
    if features:
        assert scene.features is not None
        scene.features[own, 0] = 1.0
    picked = geometry.cell_to_xy(np.argwhere(own)[rng.integers(own.sum())], scene.workspace)
    turn = yaw_fixture - yaw_block
    c, s = math.cos(turn), math.sin(turn)
    placed = fixture + np.array([[c, -s], [s, c]]) @ (picked - block)
    action = PickPlace(
        pick=geometry.tool_down(*picked, BLOCK_TOP_M, 0.0),
        place=geometry.tool_down(*placed, BLOCK_TOP_M, turn),
        stamp_ns=scene.stamp_ns,
    )
    return scene, action

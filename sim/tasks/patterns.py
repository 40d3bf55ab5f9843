"""Blocks that differ in their pattern alone: one size, one mean color, told apart by looking closely.

Light and dark share every pattern evenly, and its period is that of a cell of the policy's coarse map: averaged over
such a cell all of them are the same, whatever the light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embodied_vision.types import FloatArray
from embodied_vision_sim.shapes import RGBA, Box

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

EDGE_M, HEIGHT_M = 0.06, 0.03
"""Edge of the square blocks, and their height."""
PERIODS, PERIOD_PX = 4, 16
"""Of a pattern along an edge, and pixels of its texture in each."""
DARK = 0.5
"""Brightness of the dark half of a pattern, as a share of the light half's."""
RGB = (0.78, 0.70, 0.58)
PATTERNS = ("plain", "striped", "checked", "dotted")


def texture(pattern: str) -> NDArray[np.uint8]:
    """A pattern of `PATTERNS` as uint8 (64, 64, 3), white where it is light."""
    phase = (np.arange(PERIOD_PX) + 0.5) / PERIOD_PX - 0.5
    across, along = np.meshgrid(phase, phase, indexing="ij")
    dark: FloatArray
    if pattern == "plain":
        dark = np.full(across.shape, 0.5)
    elif pattern == "striped":
        dark = (across < 0).astype(float)
    elif pattern == "checked":
        dark = ((across < 0) ^ (along < 0)).astype(float)
    else:
        from_middle = np.hypot(across, along).ravel().argsort(kind="stable").argsort()
        dark = (from_middle < across.size // 2).astype(float).reshape(across.shape)
    period = (255 * (1 - (1 - DARK) * dark) + 0.5).astype(np.uint8)
    return np.repeat(np.tile(period, (PERIODS, PERIODS))[..., None], 3, axis=2)


def mean_color(rng: np.random.Generator) -> RGBA:
    """The color that all blocks of a scene share: `RGB`, lighter or darker by up to a tenth."""
    red, green, blue = (float(c) for c in np.array(RGB) * rng.uniform(0.9, 1.1))
    return red, green, blue, 1.0


def add_block(world: World, name: str, pattern: str, xy: tuple[float, float], z: float, yaw: float, rgba: RGBA) -> int:
    """Put a block with a pattern into the scene, its underside at height `z` in m. Returns its id."""
    box = Box((EDGE_M, EDGE_M, HEIGHT_M))
    return world.add_boxes(name, [box], (*xy, z + HEIGHT_M / 2), yaw, rgba, texture=texture(pattern))

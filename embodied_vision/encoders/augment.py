"""What should not change a patch's meaning: crop, turn, size, light, the table under it, noise and blur."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from embodied_vision.types import FloatArray

SCALE = (0.75, 1.4)
"""Bounds of the px of a crop for a px of the image."""


@dataclass(frozen=True)
class Crop:
    """A square piece of an image, turned and resized.

    Attributes:
        color: uint8 (S, S, 3).
        to_crop: (2, 3) affine map from image pixels (u, v, 1) to crop pixels.
    """

    color: NDArray[np.uint8]
    to_crop: FloatArray

    def locate(self, pixels: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Crop pixels (N, 2) of image pixels (N, 2), and which of them lie inside."""
        placed = pixels @ self.to_crop[:, :2].T + self.to_crop[:, 2]
        inside = ((placed >= 0) & (placed <= self.color.shape[0] - 1)).all(1)
        return placed, inside

    def cut(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """What the crop shows of a mask (H, W) of the image; nothing beyond the image's border."""
        size = self.color.shape[0]
        return np.asarray(cv2.warpAffine(mask.astype(np.uint8), self.to_crop, (size, size)), bool)


def random_crop(
    rng: np.random.Generator,
    color: NDArray[np.uint8],
    anchor: FloatArray,
    size: int,
    *,
    shift: float = 0.25,
    scale: tuple[float, float] = SCALE,
    turn_rad: float = 0.35,
) -> Crop:
    """Cut a crop of `size` px around the pixel `anchor` (u, v), moved, turned and resized at random.

    What lies outside the image is filled by its border.
    """
    factor = np.exp(rng.uniform(*np.log(scale)))
    angle = rng.uniform(-turn_rad, turn_rad)
    linear = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (size - 1) / 2 + rng.uniform(-shift, shift, 2) * size
    to_crop = np.concatenate([linear, (centre - linear @ anchor)[:, None]], axis=1)
    cut = cv2.warpAffine(color, to_crop, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Crop(np.asarray(cut, np.uint8), to_crop)


def photometric(rng: np.random.Generator, color: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another light and another sensor: exposure, gamma, white balance, hue by a few degrees, noise, blur.

    Hue moves little on purpose: the color of a thing is part of what it is.
    """
    hue = rng.uniform(-0.15, 0.15)
    third, root = (1 - np.cos(hue)) / 3, np.sin(hue) / np.sqrt(3)
    turn = np.cos(hue) * np.eye(3) + third + root * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    vividness = rng.uniform(0.7, 1.3)
    mix = vividness * np.eye(3) + (1 - vividness) / 3
    gain = np.diag(rng.uniform(0.6, 1.4) * rng.uniform(0.92, 1.08, 3))
    image = cv2.transform(color.astype(np.float32) / 255, gain @ turn @ mix)
    image = np.power(np.clip(image, 0, 1), np.float32(np.exp(rng.uniform(-0.25, 0.25))))
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    image += rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, 0.03))
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), np.uint8)


PATTERN_PX = 64


def pattern(rng: np.random.Generator) -> NDArray[np.float32]:
    """Planks, tiles or cloud (64, 64) in [0, 1], seamless."""
    span = np.arange(PATTERN_PX, dtype=np.float32) / PATTERN_PX
    kind = int(rng.integers(3))
    if kind == 0:
        return np.repeat(rng.random((8, 1), np.float32), PATTERN_PX // 8, axis=0) * np.ones(PATTERN_PX, np.float32)
    if kind == 1:
        count = int(rng.integers(1, 5))
        tiles = ((span[:, None] * 2 * count).astype(int) + (span * 2 * count).astype(int)) % 2
        return tiles.astype(np.float32)
    cloud = np.zeros((PATTERN_PX, PATTERN_PX), np.float32)
    for _ in range(8):
        waves, phase = rng.integers(-4, 5, 2), rng.uniform(0, 2 * np.pi)
        cloud += np.sin(2 * np.pi * (waves[0] * span[:, None] + waves[1] * span) + phase).astype(np.float32)
    return (cloud - cloud.min()) / max(float(np.ptp(cloud)), 1e-6)


def another_table(
    rng: np.random.Generator, color: NDArray[np.uint8], ground: NDArray[np.bool_], *, contrast: float = 0.3
) -> NDArray[np.uint8]:
    """The same things on a table of another color and texture.

    Args:
        rng: source of all randomness.
        color: uint8 (S, S, 3).
        ground: (S, S), which pixels show the table.
        contrast: at most, of the texture.
    """
    size = color.shape[0]
    scale, angle = np.exp(rng.uniform(*np.log((0.25, 1.5)))), rng.uniform(-np.pi, np.pi)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to_pattern = np.concatenate([turn, rng.uniform(0, PATTERN_PX, (2, 1))], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    texture = cv2.warpAffine(pattern(rng), to_pattern, (size, size), flags=flags, borderMode=cv2.BORDER_WRAP)
    depth = rng.uniform(0, contrast) * rng.uniform(0.6, 1.0, 3)
    factor = 1 - np.asarray(texture)[..., None] * depth.astype(np.float32)
    shift = 0.2 * (rng.uniform(-0.6, 0.6) + rng.uniform(-0.4, 0.4, 3))
    table = (color.astype(np.float32) / 255 + shift.astype(np.float32)) * factor
    return np.where(ground[..., None], np.clip(table * 255 + 0.5, 0, 255), color).astype(np.uint8)


def lamp(rng: np.random.Generator, color: NDArray[np.uint8], most: float = 0.35) -> NDArray[np.uint8]:
    """The same under a lamp to one side: brighter there and darker on the other, by a factor up to e^`most` at the
    edges."""
    size = color.shape[0]
    span = np.linspace(-1, 1, size, dtype=np.float32)
    slope = rng.uniform(-most, most, 2).astype(np.float32)
    light = np.exp(slope[0] * span[:, None] + slope[1] * span)
    return np.asarray(np.clip(color * light[..., None] + 0.5, 0, 255), np.uint8)


def mild(rng: np.random.Generator, color: NDArray[np.uint8], ground: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Another light and another sensor."""
    return photometric(rng, color)


def strong(rng: np.random.Generator, color: NDArray[np.uint8], ground: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Mostly another table and a lamp to one side as well."""
    if rng.random() < 0.8:
        color = another_table(rng, color, ground)
    if rng.random() < 0.8:
        color = lamp(rng, color)
    return photometric(rng, color)


Appearance = Callable[[np.random.Generator, NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint8]]
APPEARANCES: dict[str, Appearance] = {"mild": mild, "strong": strong}
"""By name: what changes a crop (S, S, 3) of which a mask (S, S) says where it shows the table."""

"""What should not change a patch's meaning: crop, turn, size, light, noise and blur."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from embodied_vision.types import FloatArray


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


def random_crop(
    rng: np.random.Generator,
    color: NDArray[np.uint8],
    anchor: FloatArray,
    size: int,
    *,
    shift: float = 0.25,
    scale: tuple[float, float] = (0.75, 1.4),
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

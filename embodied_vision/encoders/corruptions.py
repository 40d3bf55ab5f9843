"""What weather, light, optics, sensors and networks do to a picture, in five severities.

Kinds and steps follow Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019, with strengths for frames of a few hundred pixels in which a thing is ten or twenty wide; fog
knows the depth of what it hides (Koschmieder, 1924). Depth itself is left as it is: what is measured is the picture's
part in it.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from embodied_vision.errors import BadInput
from embodied_vision.types import RGBD, FloatArray

SEVERITIES = 5
FOG_PER_M = (0.25, 0.5, 0.8, 1.2, 1.8)
"""Extinction: what is x m away keeps exp(−x · this) of its own color."""
FOG_RGB, FOG_PATCHES = (0.82, 0.83, 0.85), 0.35
"""Color of the fog, and how much thinner or denser it is from place to place."""
NO_RETURN_M = 2.0
"""How far away fog takes a pixel to be whose depth is not known."""
LIGHT_LEFT = (0.5, 0.35, 0.22, 0.14, 0.08)
FULL_WELL = 2000.0
"""Photoelectrons of a white pixel in full light: the fewer are left, the more shot noise there is."""
READ_NOISE = 4.0
"""Photoelectrons."""
BLUR_PX = (0.7, 1.2, 1.8, 2.6, 3.6)
NOISE = (0.03, 0.06, 0.10, 0.15, 0.22)
"""Standard deviation of noise, as a share of white."""
JPEG_QUALITY = (40, 25, 15, 10, 6)

_Corruption = Callable[[RGBD, int, np.random.Generator], FloatArray]


def _fog(frame: RGBD, severity: int, rng: np.random.Generator) -> FloatArray:
    shape = frame.depth.shape
    patches = ndimage.gaussian_filter(rng.normal(size=shape), max(shape) / 12)
    patches = patches / max(float(np.abs(patches).max()), 1e-9)
    away = np.where(frame.depth > 0, frame.depth, NO_RETURN_M)
    left = np.exp(-FOG_PER_M[severity - 1] * (1 + FOG_PATCHES * patches) * away)[..., None]
    fogged: FloatArray = frame.color / 255 * left + np.array(FOG_RGB) * (1 - left)
    return fogged


def _low_light(frame: RGBD, severity: int, rng: np.random.Generator) -> FloatArray:
    linear = (frame.color / 255) ** 2.2
    electrons = rng.poisson(linear * LIGHT_LEFT[severity - 1] * FULL_WELL) + rng.normal(
        0, READ_NOISE, frame.color.shape
    )
    dark: FloatArray = np.clip(electrons / FULL_WELL, 0, 1) ** (1 / 2.2)
    return dark


def _blur(frame: RGBD, severity: int, rng: np.random.Generator) -> FloatArray:
    sigma = BLUR_PX[severity - 1]
    blurred: FloatArray = ndimage.gaussian_filter(frame.color / 255, (sigma, sigma, 0))
    return blurred


def _noise(frame: RGBD, severity: int, rng: np.random.Generator) -> FloatArray:
    noisy: FloatArray = frame.color / 255 + rng.normal(0, NOISE[severity - 1], frame.color.shape)
    return noisy


def _jpeg(frame: RGBD, severity: int, rng: np.random.Generator) -> FloatArray:
    packed = io.BytesIO()
    Image.fromarray(frame.color).save(packed, "JPEG", quality=JPEG_QUALITY[severity - 1])
    unpacked: FloatArray = np.asarray(Image.open(packed), float) / 255
    return unpacked


CORRUPTIONS: dict[str, _Corruption] = {
    "fog": _fog,
    "low light": _low_light,
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
}


def corrupted(frame: RGBD, name: str, severity: int, seed: int) -> NDArray[np.uint8]:
    """The color of a frame, uint8 (H, W, 3), after a corruption; the same arguments give the same picture.

    Args:
        frame: color, and the depth that fog needs.
        name: one of `CORRUPTIONS`.
        severity: 1, hardly to be seen, to 5, where people begin to guess.
        seed: of noise and of the fog's patches; every frame wants its own.

    Raises:
        BadInput: no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        raise BadInput(f"corruption {name!r} is unknown; choose one of {', '.join(CORRUPTIONS)}")
    if not 1 <= severity <= SEVERITIES:
        raise BadInput(f"severity {severity} is unknown; give 1 to {SEVERITIES}")
    rng = np.random.default_rng([list(CORRUPTIONS).index(name), severity, seed])
    color = CORRUPTIONS[name](frame, severity, rng)
    return np.asarray(np.clip(255 * color + 0.5, 0, 255), np.uint8)

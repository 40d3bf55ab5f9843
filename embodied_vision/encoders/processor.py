"""The preprocessing that a transformers vision model was trained with, read from its own configuration.

transformers' image processors need torchvision for most families; resizing, scaling and normalising do not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embodied_vision.errors import EncoderError

FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what the network takes.

    Attributes:
        size: (rows, columns) in px that every image is resized to; None where the number of patches decides.
        most_patches: with `size` None, the image keeps its shape and has at most so many patches.
        resample: PIL's number of the filter.
        scale: factor on the 0 … 255 values.
        mean, std: of each channel after scaling.
    """

    size: tuple[int, int] | None
    most_patches: int
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def input_size(self, image_size: tuple[int, int], patch_px: int) -> tuple[int, int]:
        """(rows, columns) in px that an image of (rows, columns) is resized to."""
        return self.size or fit_patches(image_size, patch_px, self.most_patches)

    def apply(self, color: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
        """uint8 (H, W, 3) to float32 (3, rows, columns); the whole image is kept, nothing is cropped."""
        image = Image.fromarray(color).resize((size[1], size[0]), Image.Resampling(self.resample))
        values: NDArray[np.float32] = np.asarray(image, np.float32) * np.float32(self.scale)
        normalised = (values - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1), dtype=np.float32)


def fit_patches(image_size: tuple[int, int], patch_px: int, most_patches: int) -> tuple[int, int]:
    """Largest size in whole patches that keeps an image's shape within a number of patches (SigLIP 2 NaFlex)."""

    def scaled(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(side * scale / patch_px)) * patch_px for side in image_size)
        return rows, columns

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        rows, columns = scaled(middle)
        if rows * columns <= most_patches * patch_px**2:
            low = middle
        else:
            high = middle
    return scaled(low)


def _read_size(config: Mapping[str, Any], where: str) -> tuple[int, int]:
    """What enters the network: the crop where the processor crops, else the size."""
    cropped = config.get("do_center_crop") and config.get("crop_size")
    value = config.get("crop_size") if cropped else config.get("size")
    if isinstance(value, int):
        return value, value
    if isinstance(value, Mapping):
        if "height" in value and "width" in value:
            return int(value["height"]), int(value["width"])
        if "shortest_edge" in value:
            return int(value["shortest_edge"]), int(value["shortest_edge"])
    raise EncoderError(f"{where} gives no input size that is understood ({value!r}); pass image_size=(rows, columns)")


def _triple(value: Any, default: float) -> tuple[float, ...]:
    if value is None:
        return (default,) * 3
    if isinstance(value, int | float):
        return (float(value),) * 3
    return tuple(float(v) for v in value)


def read_preprocessing(path: Path, image_size: tuple[int, int] | None = None) -> Preprocessing:
    """Read `preprocessor_config.json` or the image part of `processor_config.json`.

    Args:
        path: of the file.
        image_size: (rows, columns) in px instead of the file's.

    Raises:
        EncoderError: the file is damaged or says nothing about the size.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config = config.get("image_processor", config)
        patches = config.get("max_num_patches")
        size = image_size or (None if patches else _read_size(config, str(path)))
        return Preprocessing(
            size=size,
            most_patches=0 if size else int(patches),
            resample=int(config.get("resample", Image.Resampling.BILINEAR)),
            scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
            mean=_triple(config.get("image_mean") if config.get("do_normalize", True) else None, 0.0),
            std=_triple(config.get("image_std") if config.get("do_normalize", True) else None, 1.0),
        )
    except EncoderError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise EncoderError(f"{path} cannot be read ({error}); download the model again") from error

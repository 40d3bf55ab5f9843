"""What comes before an encoder's network, in NumPy, so that it is the same for every runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embodied_vision.encoders.base import check_image
from embodied_vision.encoders.processor import Preprocessing
from embodied_vision.errors import EncoderError

Pixels = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image as a network takes it.

    Attributes:
        pixels: float32 (1, 3, rows, columns).
        grid: rows and columns of the features that describe the image; what the network gives beyond them is padding.
        stride: height and width in px of the image that one feature describes.
    """

    pixels: Pixels
    grid: tuple[int, int]
    stride: tuple[float, float]


class Front(Protocol):
    """Preprocessing of one encoder."""

    @property
    def any_image(self) -> bool:
        """Whether images of every size become an input of the same size."""

    @property
    def stride_px(self) -> int:
        """Edge of what one feature describes, px of the network's input."""

    @property
    def multiple_px(self) -> int:
        """Both sides of what the network takes are multiples of it."""

    def prepare(self, color: NDArray[np.uint8]) -> Prepared:
        """Raises EncoderError for what is no uint8 (H, W, 3) image."""

    def to_dict(self) -> dict[str, Any]:
        """JSON that `front_from_dict` reads."""


@dataclass(frozen=True)
class ResizedFront:
    """The whole image, resized to whole patches and normalised, as a transformers model was trained.

    Attributes:
        preprocessing: of the model.
        patch_px: edge of a patch.
    """

    preprocessing: Preprocessing
    patch_px: int

    @property
    def any_image(self) -> bool:
        return self.preprocessing.size is not None

    @property
    def stride_px(self) -> int:
        return self.patch_px

    @property
    def multiple_px(self) -> int:
        return self.patch_px

    def prepare(self, color: NDArray[np.uint8]) -> Prepared:
        check_image(color)
        rows, columns = size = self.preprocessing.input_size((color.shape[0], color.shape[1]), self.patch_px)
        stride = (self.patch_px * color.shape[0] / rows, self.patch_px * color.shape[1] / columns)
        return Prepared(
            self.preprocessing.apply(color, size)[None], (rows // self.patch_px, columns // self.patch_px), stride
        )

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "resized", "patch_px": self.patch_px, "preprocessing": asdict(self.preprocessing)}


@dataclass(frozen=True)
class PaddedFront:
    """The image as it is, normalised, its last row and column repeated up to a multiple of the coarsest stride.

    Attributes:
        stride_px: of the features.
        multiple_px: both sides of what the network takes are multiples of it.
        scale, mean, std: normalised = (color · scale − mean) / std.
    """

    stride_px: int
    multiple_px: int
    scale: float
    mean: float
    std: float

    @property
    def any_image(self) -> bool:
        return False

    def prepare(self, color: NDArray[np.uint8]) -> Prepared:
        check_image(color, smallest_px=self.stride_px)
        rows, columns = color.shape[:2]
        pixels = color.transpose(2, 0, 1)[None].astype(np.float32)
        pixels *= np.float32(self.scale / self.std)
        pixels -= np.float32(self.mean / self.std)
        below, right = -rows % self.multiple_px, -columns % self.multiple_px
        if below or right:
            pixels = np.pad(pixels, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
        grid = (-(-rows // self.stride_px), -(-columns // self.stride_px))
        return Prepared(np.ascontiguousarray(pixels), grid, (float(self.stride_px), float(self.stride_px)))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "padded", **asdict(self)}


def front_from_dict(data: Mapping[str, Any], where: str) -> Front:
    """What `to_dict` gave.

    Raises:
        EncoderError: it is something else.
    """
    try:
        fields = {key: value for key, value in data.items() if key != "kind"}
        if data["kind"] == "padded":
            return PaddedFront(**fields)
        if data["kind"] == "resized":
            about = dict(fields["preprocessing"])
            for name in ("size", "mean", "std"):
                about[name] = None if about[name] is None else tuple(about[name])
            return ResizedFront(Preprocessing(**about), int(fields["patch_px"]))
        raise ValueError(f"kind {data['kind']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{where}: no preprocessing that is known ({error}); export the encoder again") from error

"""Features are computed again where an image changed, and within a bounded time in any case.

Each image is compared with the one that its camera's features were computed from, patch by patch, never with the image
before it: small changes cannot add up unseen. What is computed again:

- nothing, where no patch changed; the features carry the new stamp;
- the changed patches and their neighbourhood, by networks without tokens, where this is at most half of the image;
- everything else: with vision transformers, where every patch sees every other, any change; a camera that is new,
  moved or changed its size; features older than `most_age_s`; a stamp before theirs.

With `levels` 0 a patch has changed when one value of the image has: features are those of this very image, and the id
stays. With more, a patch has changed when its values differ by more than so many levels of 255 in the mean, which noise
alone does not reach: features are those of an image that looks the same, so the encoder has an id of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from embodied_vision.encoders.base import Encoder, check_image
from embodied_vision.encoders.dense import Around
from embodied_vision.encoders.region import HALO_PX, Mask, TorchNetwork, encode_seen, partial_features
from embodied_vision.errors import EncoderError
from embodied_vision.types import Camera, Features

MOST_AGE_S = 1.0
MOST_CHANGED = 0.5
"""Share of the patches up to which a part is computed alone."""


@dataclass
class Reused:
    """How often what was computed.

    Attributes:
        nothing, part, all: images, by what of them.
    """

    nothing: int = 0
    part: int = 0
    all: int = 0


@dataclass
class _Known:
    """What a camera's features were computed from.

    Attributes:
        color: by patch, the pixels that its features describe.
        features: as they were given out.
        camera: who saw it.
        whole_ns: stamp at which all of it was computed.
    """

    color: NDArray[np.uint8]
    features: Features
    camera: Camera | None
    whole_ns: int


class ReusingEncoder(Around):
    """An encoder that computes what changed. It remembers one image a camera.

    Attributes:
        counts: what was computed since it was made.
    """

    def __init__(self, inner: Encoder, levels: float = 0.0, most_age_s: float = MOST_AGE_S) -> None:
        """
        Args:
            inner: computes the features.
            levels: mean difference of a patch's values, of 255, up to which it counts as unchanged.
            most_age_s: after so long all is computed again, by the images' stamps.

        Raises:
            EncoderError: a number makes no sense.
        """
        super().__init__(inner, f"reuse{levels:g}")
        if not 0 <= levels <= 64 or not 0 < most_age_s < 3600:
            raise EncoderError(
                f"features reused up to {levels:g} levels and {most_age_s:g} s; give 0 to 64 levels of 255 and a time "
                "above 0 s, such as reuse=3+age=1"
            )
        self._levels, self._most_age_ns = levels, round(most_age_s * 1e9)
        self._known: dict[str, _Known] = {}
        self.counts = Reused()

    @property
    def encoder_id(self) -> str:
        """That of the inner encoder; where images need not be the same, with how far they may differ."""
        return super().encoder_id if self._levels else self._inner.encoder_id

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image.

        Raises:
            EncoderError: the image has another type or shape.
        """
        return self.encode_seen(color, None, stamp_ns)

    def encode_seen(self, color: NDArray[np.uint8], camera: Camera | None, stamp_ns: int = 0) -> Features:
        """Features of an image of a camera; those without one share a memory.

        Raises:
            EncoderError: the image has another type or shape.
        """
        check_image(color)
        name = "" if camera is None else camera.name
        known = self._known.get(name)
        if known is None or not self._may_reuse(known, color, camera, stamp_ns):
            return self._encode_all(name, color, camera, stamp_ns)
        if not self._levels:
            if not np.array_equal(color, known.color):
                return self._encode_all(name, color, camera, stamp_ns)
            changed = np.zeros(known.features.grid.shape[:2], bool)
        else:
            changed = self._changed(known, color, camera)
        if changed.any():
            wanted = self._neighbourhood(known, changed)
            if wanted is None:
                return self._encode_all(name, color, camera, stamp_ns)
            self._encode_part(known, color, wanted)
            self.counts.part += 1
        else:
            self.counts.nothing += 1
        return replace(known.features, grid=known.features.grid.copy(), stamp_ns=stamp_ns)

    def forget(self) -> None:
        """Compute the next image of every camera."""
        self._known.clear()

    def _may_reuse(self, known: _Known, color: NDArray[np.uint8], camera: Camera | None, stamp_ns: int) -> bool:
        return (
            color.shape == known.color.shape
            and _same(camera, known.camera)
            and 0 <= stamp_ns - known.whole_ns <= self._most_age_ns
        )

    def _encode_all(self, name: str, color: NDArray[np.uint8], camera: Camera | None, stamp_ns: int) -> Features:
        features = replace(encode_seen(self._inner, color, camera, stamp_ns), encoder_id=self.encoder_id)
        self._known[name] = _Known(color.copy(), replace(features, grid=features.grid.copy()), camera, stamp_ns)
        self.counts.all += 1
        return features

    def _changed(self, known: _Known, color: NDArray[np.uint8], camera: Camera | None) -> Mask:
        """Patches (rows, columns) that changed, of those that are used."""
        difference = np.abs(color.astype(np.int16) - known.color).sum(2, dtype=np.int32)
        rows, columns = (
            np.minimum(np.ceil(np.arange(count) * px).astype(int), side - 1)
            for count, px, side in zip(known.features.grid.shape, known.features.stride, color.shape, strict=False)
        )
        sums = np.add.reduceat(np.add.reduceat(difference, rows, 0), columns, 1)
        heights = np.diff(np.append(rows, color.shape[0]))
        widths = np.diff(np.append(columns, color.shape[1]))
        changed: Mask = sums > self._levels * 3 * heights[:, None] * widths
        region = getattr(self._inner, "region", None)
        if region is not None and camera is not None:
            changed &= region.patches(camera, changed.shape, known.features.stride)
        return changed

    def _neighbourhood(self, known: _Known, changed: Mask) -> Mask | None:
        """Patches to compute again; None for all."""
        inner: Any = self._inner
        if not isinstance(inner, TorchNetwork) or getattr(inner, "drops_tokens", False):
            return None
        reach = -(-HALO_PX // inner.front.stride_px)
        wanted: Mask = ndimage.binary_dilation(changed, np.ones((3, 3), bool), iterations=reach)
        return wanted if wanted.mean() <= MOST_CHANGED else None

    def _encode_part(self, known: _Known, color: NDArray[np.uint8], wanted: Mask) -> None:
        inner: Any = self._inner
        prepared = inner.front.prepare(color)
        known.features.grid[wanted] = partial_features(inner, prepared.pixels, wanted)[wanted]
        height, width = color.shape[:2]
        rows = np.minimum((np.arange(height) / known.features.stride[0]).astype(int), wanted.shape[0] - 1)
        columns = np.minimum((np.arange(width) / known.features.stride[1]).astype(int), wanted.shape[1] - 1)
        pixels = wanted[rows][:, columns]
        known.color[pixels] = color[pixels]


def _same(one: Camera | None, other: Camera | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(one.K, other.K) and np.array_equal(one.T_base_camera, other.T_base_camera))

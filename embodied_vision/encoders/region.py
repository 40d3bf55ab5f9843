"""Encode the part of an image alone from which the map of the workspace is made.

The map reads a patch's features where a pixel's depth puts it within the workspace's bounds. A pixel can lie there only
where its ray meets the box of the workspace, so that no other patch is ever read. Patches beside those are needed as
well, since features are read between patches.

A vision transformer leaves the other tokens out and keeps each patch at its place in the image. Networks without tokens
compute a window around the patches: their features depend on what lies near. In both what is left out is missing as
context, so that features are near those of the whole image and not the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from embodied_vision.encoders.base import Encoder, check_image
from embodied_vision.encoders.dense import Around
from embodied_vision.encoders.device import computing_on
from embodied_vision.encoders.front import Front, Pixels, Prepared
from embodied_vision.errors import EncoderError
from embodied_vision.types import RGBD, Camera, Features, Workspace

MARGIN_M = 0.02
"""By how much the workspace's box is widened on every side: poses of cameras are a little off."""
SLACK = 1.1
"""An exported network computes so many times the patches that its cameras needed: they may be moved a little."""
HALO_PX = 32
"""Around a window, for networks without tokens."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """What the arm can reach.

    Attributes:
        workspace: what is mapped.
        margin: added to its bounds on every side, m.
    """

    workspace: Workspace = field(default_factory=Workspace)
    margin: float = MARGIN_M

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 10:
            raise EncoderError(f"margin {self.margin} m around the workspace; give 0 or more, such as {MARGIN_M}")

    @property
    def name(self) -> str:
        """Of what it leaves; two regions share it only where they are the same."""
        text = json.dumps({**self.workspace.to_dict(), "cell": 0, "margin": self.margin}, sort_keys=True)
        return f"region{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, inverse of `from_dict`."""
        return {"workspace": self.workspace.to_dict(), "margin": self.margin}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Region:
        """Read what `to_dict` wrote."""
        return cls(Workspace.from_dict(data["workspace"]), float(data["margin"]))

    def covers(self, workspace: Workspace) -> bool:
        """Whether a map of that workspace reads nothing outside."""
        mine, margin = self.workspace, self.margin + 1e-9
        return all(
            low - margin <= other_low and other_high <= high + margin
            for (low, high), (other_low, other_high) in zip(
                (mine.x, mine.y, mine.z), (workspace.x, workspace.y, workspace.z), strict=True
            )
        )

    def patches(self, camera: Camera, grid: tuple[int, int], stride: tuple[float, float]) -> Mask:
        """Which of a grid of patches the map may read, bool (rows, columns).

        Args:
            camera: who sees the image.
            grid: rows and columns of patches.
            stride: height and width of a patch, px of the image.
        """
        key = (camera.width, camera.height, camera.K.tobytes(), camera.T_base_camera.tobytes())
        return _patches(self, key, grid, stride).copy()


@lru_cache(maxsize=64)
def _patches(
    region: Region, camera: tuple[int, int, bytes, bytes], grid: tuple[int, int], stride: tuple[float, float]
) -> Mask:
    width, height = camera[:2]
    K, T = np.frombuffer(camera[2]).reshape(3, 3), np.frombuffer(camera[3]).reshape(4, 4)
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1) @ T[:3, :3].T
    near, far = np.zeros((height, width)), np.full((height, width), np.inf)
    bounds = (region.workspace.x, region.workspace.y, region.workspace.z)
    for axis, (low, high) in enumerate(bounds):
        with np.errstate(divide="ignore", invalid="ignore"):
            one = (low - region.margin - T[axis, 3]) / rays[..., axis]
            other = (high + region.margin - T[axis, 3]) / rays[..., axis]
        near, far = np.fmax(near, np.fmin(one, other)), np.fmin(far, np.fmax(one, other))
    v, u = np.nonzero(near <= far)
    wanted = np.zeros(grid, bool)
    rows, columns = (v + 0.5) / stride[0] - 0.5, (u + 0.5) / stride[1] - 0.5
    for row in (np.floor(rows), np.floor(rows) + 1):
        for column in (np.floor(columns), np.floor(columns) + 1):
            wanted[np.clip(row, 0, grid[0] - 1).astype(int), np.clip(column, 0, grid[1] - 1).astype(int)] = True
    return wanted


@dataclass(frozen=True)
class Window:
    """Rows and columns of a grid of patches, from which to which.

    Attributes:
        top, left: of the first patch.
        rows, columns: how many.
    """

    top: int
    left: int
    rows: int
    columns: int


def window_around(
    wanted: Mask, limits: tuple[int, int], step: int = 1, halo: int = 0, size: tuple[int, int] | None = None
) -> Window | None:
    """The least window with all wanted patches; None where `size` is too small for it.

    Args:
        wanted: bool (rows, columns).
        limits: rows and columns of what the network takes; padding may make them more than the wanted ones.
        step: it begins and ends at multiples of so many patches.
        halo: patches around the wanted ones, where there are so many.
        size: rows and columns, instead of the least ones.
    """
    least: list[tuple[int, int]] = []
    for axis, limit in enumerate(limits):
        found = np.flatnonzero(wanted.any(1 - axis))
        first, last = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, step)
        first = max(0, first - halo) // step * step
        last = min(limit, -(-(last + halo) // step) * step)
        if size is not None:
            if last - first > size[axis]:
                return None
            first = max(0, min(first - (size[axis] - (last - first)) // 2 // step * step, limit - size[axis]))
            last = first + size[axis]
        least.append((first, last))
    (top, bottom), (left, right) = least
    return Window(top, left, bottom - top, right - left)


def fill_up(wanted: Mask, count: int) -> NDArray[np.int64] | None:
    """Indices of `count` patches: the wanted ones and those nearest to them; None where more are wanted."""
    if wanted.sum() > count:
        return None
    away = ndimage.distance_transform_edt(~wanted) if wanted.any() else np.zeros(wanted.shape)
    return np.sort(np.argsort(away.ravel(), kind="stable")[:count])


def window_of(front: Front, pixels: Pixels, wanted: Mask, size: tuple[int, int] | None = None) -> Window | None:
    """What a network computes of an input (1, 3, rows, columns); None where a window of `size` is too small."""
    stride = front.stride_px
    limits = (pixels.shape[2] // stride, pixels.shape[3] // stride)
    return window_around(wanted, limits, front.multiple_px // stride, -(-HALO_PX // stride), size)


def cut(pixels: Pixels, window: Window, stride: int) -> Pixels:
    """The window's part of an input (1, 3, rows, columns)."""
    rows = slice(window.top * stride, (window.top + window.rows) * stride)
    columns = slice(window.left * stride, (window.left + window.columns) * stride)
    return np.ascontiguousarray(pixels[:, :, rows, columns])


def paste(part: NDArray[np.float32], window: Window, wanted: Mask) -> NDArray[np.float32]:
    """A grid (rows, columns, D) of the wanted patches out of the window's features (rows, columns, D); 0 elsewhere."""
    grid = np.zeros((*wanted.shape, part.shape[2]), np.float32)
    inside = grid[window.top : window.top + window.rows, window.left : window.left + window.columns]
    inside[...] = part[: inside.shape[0], : inside.shape[1]]
    grid[~wanted] = 0
    return grid


@runtime_checkable
class TorchNetwork(Protocol):
    """An encoder whose network is at hand."""

    @property
    def front(self) -> Front: ...

    def graph(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, 3, rows, columns) to (1, h, w, D)."""
        ...


class RegionEncoder(Around):
    """The patches of the workspace alone, with torch; the others are 0.

    Where the camera is not known the whole image is encoded, and the artefact id of the features ends in `-whole`.
    """

    def __init__(self, inner: Encoder, region: Region) -> None:
        """
        Raises:
            EncoderError: the encoder computes whole images alone.
        """
        super().__init__(inner, region.name)
        if not isinstance(inner, TorchNetwork):
            raise EncoderError(
                f"{type(inner).__name__} encodes whole images alone; give `region` to an encoder that torch computes, "
                "before tiles and dense grids, or export it with --region"
            )
        self._network: Any = inner
        self.region = region

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a whole uint8 (H, W, 3) RGB image.

        Raises:
            EncoderError: the image has another type or shape.
        """
        return self.encode_seen(color, None, stamp_ns)

    def encode_seen(self, color: NDArray[np.uint8], camera: Camera | None, stamp_ns: int = 0) -> Features:
        """Features of what a camera sees of the workspace; None for a camera that is not known.

        Raises:
            EncoderError: the image has another type or shape, or not the camera's size.
        """
        if camera is None:
            whole = self._inner.encode(color, stamp_ns)
            return replace(whole, encoder_id=self.encoder_id, artefact_id=f"{self.artefact_id}-whole")
        prepared, wanted = prepare_seen(self._network.front, self.region, color, camera)
        grid = partial_features(self._network, prepared.pixels, wanted)
        return Features(grid, prepared.stride, self.encoder_id, self.artefact_id, stamp_ns)


def prepare_seen(front: Front, region: Region, color: NDArray[np.uint8], camera: Camera) -> tuple[Prepared, Mask]:
    """An image as the network takes it, and which of its patches (rows, columns) belong to the region.

    Raises:
        EncoderError: the image has another type or shape, or not the camera's size.
    """
    check_image(color)
    if color.shape[:2] != (camera.height, camera.width):
        raise EncoderError(
            f"image of {color.shape[1]}x{color.shape[0]} px, camera {camera.name!r} is calibrated for "
            f"{camera.width}x{camera.height}; calibrate it for the size that it publishes"
        )
    prepared = front.prepare(color)
    return prepared, region.patches(camera, prepared.grid, prepared.stride)


def partial_features(network: Any, pixels: Pixels, wanted: Mask, merge: int | None = None) -> NDArray[np.float32]:
    """Features (rows, columns, D) of the wanted patches of an input, 0 elsewhere.

    Args:
        network: a torch encoder.
        pixels: as its front prepares them.
        wanted: bool (rows, columns).
        merge: tokens merged a block, in place of the network's own number.
    """
    if getattr(network, "drops_tokens", False):
        return computed(network, pixels, keep=np.flatnonzero(wanted), merge=merge)[0]
    window = window_of(network.front, pixels, wanted)
    assert window is not None, "of the size that is needed"
    return paste(computed(network, cut(pixels, window, network.front.stride_px))[0], window, wanted)


def computed(
    network: Any, pixels: Pixels, keep: NDArray[np.int64] | None = None, merge: int | None = None
) -> NDArray[np.float32]:
    """What a torch encoder's network gives (1, h, w, D), on the encoder's device."""
    device = getattr(network, "device", torch.device("cpu"))
    with torch.inference_mode(), computing_on(device):
        more: dict[str, Any] = {} if merge is None else {"merge": merge}
        if keep is not None:
            more["keep"] = torch.from_numpy(keep).to(device)
        return np.asarray(network.graph(torch.from_numpy(pixels).to(device), **more).contiguous().cpu().numpy())


@dataclass(frozen=True, eq=False)
class Taken:
    """What a network of fixed size takes of an image.

    Attributes:
        pixels: float32 (1, 3, rows, columns).
        keep: indices (K,) of the patches that it computes; None where the pixels are a window.
        wanted: bool (h, w), the region's patches.
        window: that the pixels are cut to.
        stride: height and width in px of the image that one feature describes.
    """

    pixels: Pixels
    keep: NDArray[np.int64] | None
    wanted: Mask
    window: Window | None
    stride: tuple[float, float]

    def grid(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(h, w, D) of the region's patches, 0 elsewhere, from what the network gave (1, ., ., D)."""
        if self.window is not None:
            return paste(features[0], self.window, self.wanted)
        return np.where(self.wanted[..., None], features[0], np.float32(0))


@dataclass(frozen=True)
class Part:
    """How an exported network takes the region's part of every image: always as much, so that its shapes are fixed.

    Attributes:
        region: what is wanted.
        patches: so many are computed, where tokens are left out.
        window: rows and columns of patches, where a window is computed.
    """

    region: Region
    patches: int = 0
    window: tuple[int, int] | None = None

    def take(self, front: Front, color: NDArray[np.uint8], camera: Camera) -> Taken | None:
        """An image's part; None where the region takes more of it than the network does.

        Raises:
            EncoderError: the image has another type or shape, or not the camera's size.
        """
        prepared, wanted = prepare_seen(front, self.region, color, camera)
        if self.window is None:
            keep = fill_up(wanted, self.patches)
            return None if keep is None else Taken(prepared.pixels, keep, wanted, None, prepared.stride)
        window = window_of(front, prepared.pixels, wanted, self.window)
        if window is None:
            return None
        return Taken(cut(prepared.pixels, window, front.stride_px), None, wanted, window, prepared.stride)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, inverse of `from_dict`."""
        return {"region": self.region.to_dict(), "patches": self.patches, "window": self.window and list(self.window)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Part:
        """Read what `to_dict` wrote."""
        window = data["window"]
        size = None if window is None else (int(window[0]), int(window[1]))
        return cls(Region.from_dict(data["region"]), int(data["patches"]), size)


def part_of(network: Any, region: Region, images: Sequence[NDArray[np.uint8]], cameras: Sequence[Camera]) -> Part:
    """Enough of an image for what these cameras see of a region, and a little more.

    Args:
        network: a torch encoder.
        region: what is wanted.
        images: uint8 (H, W, 3), all of one size.
        cameras: of the images.

    Raises:
        EncoderError: the cameras see nothing of the region.
    """
    front: Front = network.front
    seen = [prepare_seen(front, region, image, camera) for image, camera in zip(images, cameras, strict=True)]
    if not any(wanted.any() for _, wanted in seen):
        raise EncoderError(
            f"cameras {', '.join(sorted({camera.name for camera in cameras}))} see nothing of the workspace "
            f"{region.workspace.to_dict()}; give the workspace of your policy, and images of cameras that see it"
        )
    if getattr(network, "drops_tokens", False):
        most = max(int(wanted.sum()) for _, wanted in seen)
        return Part(region, patches=min(seen[0][1].size, -(-round(most * SLACK) // 8) * 8))
    windows = [window_of(front, prepared.pixels, wanted) for prepared, wanted in seen]
    rows, columns = (max(getattr(w, side) for w in windows if w is not None) for side in ("rows", "columns"))
    step, shape = front.multiple_px // front.stride_px, seen[0][0].pixels.shape
    limits = (shape[2] // front.stride_px, shape[3] // front.stride_px)
    return Part(region, window=(min(rows + step, limits[0]), min(columns + step, limits[1])))


@runtime_checkable
class SeesCamera(Protocol):
    """An encoder that makes use of knowing which camera took an image."""

    def encode_seen(self, color: NDArray[np.uint8], camera: Camera | None, stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image of a camera, None where it is not known."""
        ...


def encode_frame(encoder: Encoder, frame: RGBD) -> Features:
    """Features of a frame; an encoder that makes use of the camera is told."""
    return encode_seen(encoder, frame.color, frame.camera, frame.stamp_ns)


def encode_seen(encoder: Encoder, color: NDArray[np.uint8], camera: Camera | None, stamp_ns: int = 0) -> Features:
    """Features of an image of a camera, None where it is not known."""
    if isinstance(encoder, SeesCamera):
        return encoder.encode_seen(color, camera, stamp_ns)
    return encoder.encode(color, stamp_ns)

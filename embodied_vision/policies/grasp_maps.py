"""What the grasp head sees: a map of the bin, turned so that the jaw always closes along the columns.

A view at angle θ shows the map along axes turned by θ, as `maps.turn` cuts it out. The fingers of a tool that looks
straight down with yaw θ open along the columns of that view. A jaw is the same turned by 180°, so θ lies in [0, π).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from embodied_vision import geometry
from embodied_vision.errors import BadInput
from embodied_vision.policies import maps
from embodied_vision.types import RGBD, Features, Scene, Workspace

BIN = Workspace(x=(0.36, 0.68), y=(-0.196, 0.196), cell=0.004)
"""The bin of `grasp-diverse` with its walls; all of it fits into views of 128 cells."""
BORDER_M = 0.024
"""Width of the part along the map's edge that holds the walls."""
JUMP_M = 0.015
"""Depths of neighbouring pixels that differ by more than this belong to different surfaces."""
TOP_REACH = 2
"""Cells around the tip among which the top of what is gripped is sought."""


def fuse(frames: Sequence[RGBD], features: Sequence[Features], workspace: Workspace) -> Scene:
    """`geometry.fuse_scene` for cells that may be smaller than pixels: frames are made finer where need be.

    Raises:
        BadInput: no frames, or features that do not belong to the frames.
    """
    factors = [_finer(frame, workspace.cell) for frame in frames]
    features = [
        replace(feature, stride=(feature.stride[0] * factor, feature.stride[1] * factor))
        for feature, factor in zip(features, factors, strict=bool(features))
    ]
    fine = [finer(frame, factor) for frame, factor in zip(frames, factors, strict=True)]
    return geometry.fuse_scene(fine, features, workspace)


def _finer(frame: RGBD, cell_m: float) -> int:
    """By how much to refine a frame so that its pixels, seen at a slant, lie within a cell of each other."""
    seen = frame.depth[frame.depth > 0]
    if not len(seen):
        return 1
    return int(np.clip(math.ceil(1.5 * float(np.median(seen)) / float(frame.camera.K[0, 0]) / cell_m), 1, 4))


def finer(frame: RGBD, factor: int) -> RGBD:
    """A frame with `factor` times as many rows and columns: depth interpolated on surfaces, repeated at their edges."""
    if factor == 1:
        return frame
    depth = torch.from_numpy(frame.depth)[None, None]
    spread = functional.max_pool2d(depth, 3, 1, 1) + functional.max_pool2d(-depth, 3, 1, 1)
    smooth = functional.interpolate(depth, scale_factor=factor, mode="bilinear", align_corners=False)
    same = functional.interpolate(spread, scale_factor=factor, mode="nearest") < JUMP_M
    repeated = functional.interpolate(depth, scale_factor=factor, mode="nearest")
    K = np.array(frame.camera.K, float) * np.array([[factor], [factor], [1.0]])
    K[:2, 2] += (factor - 1) / 2
    camera = replace(frame.camera, width=factor * frame.camera.width, height=factor * frame.camera.height, K=K)
    color = frame.color.repeat(factor, 0).repeat(factor, 1)
    return RGBD(color, torch.where(same, smooth, repeated)[0, 0].numpy(), camera, frame.stamp_ns)


def halved(frame: RGBD) -> RGBD:
    """Every other pixel of a frame, as a camera of half the resolution sees it."""
    color, depth = frame.color[::2, ::2].copy(), frame.depth[::2, ::2].copy()
    K = np.array(frame.camera.K, float) * np.array([[0.5], [0.5], [1.0]])
    camera = replace(frame.camera, width=color.shape[1], height=color.shape[0], K=K)
    return RGBD(color, depth, camera, frame.stamp_ns)


def angles(count: int) -> NDArray[np.float64]:
    """`count` yaws of the jaw in rad, 0 first, in [0, π)."""
    spread: NDArray[np.float64] = np.arange(count, dtype=np.float64) * (math.pi / count)
    return spread


def middle(workspace: Workspace) -> NDArray[np.float64]:
    """(2,) fractional cell in the middle of a map."""
    return (np.array(workspace.shape) - 1) / 2


def view_size(workspace: Workspace, multiple: int) -> int:
    """Edge in cells of a square view that shows all of a map however it is turned, a multiple of `multiple`."""
    return multiple * math.ceil(math.hypot(*workspace.shape) / multiple)


def turned_back(views: Tensor, angles_rad: NDArray[np.float64], workspace: Workspace) -> Tensor:
    """Values (R, K, S, S) of views of a whole map at angles (R,), on the map's own cells (R, K, H, W).

    Raises:
        BadInput: the map's rows or columns are odd in number, so that its middle lies on no corner of cells.
    """
    rows, columns = workspace.shape
    if rows % 2 or columns % 2 or views.shape[-1] % 2:
        raise BadInput(f"a map of {rows}×{columns} cells has no corner in its middle; give even numbers of cells")
    size, centre = max(rows, columns), np.full(2, (views.shape[-1] - 1) / 2)
    square = torch.cat([maps.turn(v, centre, -a[None], size) for v, a in zip(views, angles_rad, strict=True)])
    i, j = (size - rows) // 2, (size - columns) // 2
    return square[..., i : i + rows, j : j + columns]


def inside(workspace: Workspace) -> NDArray[np.bool_]:
    """Cells (H, W) within the border, where the tip may be: no wall lies there."""
    border = round(BORDER_M / workspace.cell)
    cells = np.zeros(workspace.shape, bool)
    cells[border:-border, border:-border] = True
    return cells


def top_map(scene: Scene) -> NDArray[np.float32]:
    """Height (H, W) in m of the highest cell within `TOP_REACH` of each; what is unseen or a wall counts as table."""
    seen = scene.valid & inside(scene.workspace)
    height = torch.from_numpy(np.where(seen, scene.height, np.float32(0)))[None, None]
    top: NDArray[np.float32] = functional.max_pool2d(height, 2 * TOP_REACH + 1, 1, TOP_REACH)[0, 0].numpy()
    return top


def tip_heights(top_m: NDArray[np.float32], depths_m: Sequence[float], floor_m: float) -> NDArray[np.float64]:
    """Heights (K, …) of the tip that reaches each of K depths below tops (…), never below `floor_m`."""
    depths = np.array(depths_m).reshape(-1, *[1] * np.ndim(top_m))
    heights: NDArray[np.float64] = np.maximum(floor_m, np.asarray(top_m, float) - depths)
    return heights

"""SE(3), projection, and the top-down map: the only place where cells, pixels and metres meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from embodied_vision.errors import BadInput
from embodied_vision.types import RGBD, Features, FloatArray, Scene, Workspace

DEPTH_UNIT_M = 0.001
"""Depth is quantised to whole millimetres at the source, live and logged alike."""


def tool_down(x: float, y: float, z: float, yaw: float = 0.0) -> FloatArray:
    """Pose (4, 4) of a tool tip that looks straight down, turned by `yaw` about the base's z."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("ZX", [yaw, np.pi]).as_matrix()
    pose[:3, 3] = x, y, z
    return pose


def yaw_of(pose: FloatArray) -> float:
    """Yaw about the base's z of a pose, from the direction of its x axis, in (−π, π]."""
    return float(np.arctan2(pose[1, 0], pose[0, 0]))


def pose_to_vector(pose: FloatArray) -> NDArray[np.float64]:
    """(4, 4) pose to (7,): x, y, z in m and the unit quaternion x, y, z, w with w ≥ 0."""
    quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True)
    return np.concatenate([pose[:3, 3], quaternion])


def vector_to_pose(vector: ArrayLike) -> FloatArray:
    """(7,) x, y, z and quaternion x, y, z, w to a (4, 4) pose.

    Raises:
        BadInput: wrong length, non-finite values or a zero quaternion.
    """
    v = np.asarray(vector, float)
    if v.shape != (7,):
        raise BadInput(f"pose vector has shape {v.shape}, give 7 numbers: x y z qx qy qz qw")
    norm = np.linalg.norm(v[3:])
    if not np.isfinite(v).all() or norm < 1e-6:
        raise BadInput(f"pose vector {v.tolist()} has non-finite values or a zero quaternion")
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(v[3:]).as_matrix()
    pose[:3, 3] = v[:3]
    return pose


def look_at(eye: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> FloatArray:
    """Pose (4, 4) of an optical frame (z forward, x right, y down) at `eye` that looks at `target`."""
    eye_, target_ = np.asarray(eye, float), np.asarray(target, float)
    forward = (target_ - eye_) / np.linalg.norm(target_ - eye_)
    right = np.cross(forward, np.asarray(up, float))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye_
    return pose


def quantise_depth(depth_m: FloatArray) -> NDArray[np.uint16]:
    """Depth in m to whole millimetres; non-finite, negative or too far becomes 0, no return."""
    mm = np.round(np.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0) / DEPTH_UNIT_M)
    return np.where((mm > 0) & (mm < 65535), mm, 0).astype(np.uint16)


def depth_to_metres(depth_mm: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Inverse of `quantise_depth`."""
    return depth_mm.astype(np.float32) * np.float32(DEPTH_UNIT_M)


def project(points: FloatArray, K: FloatArray, T_base_camera: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points (N, 3) in the base frame to pixels (N, 2) as u, v, and depths (N,) in m."""
    rotation, origin = T_base_camera[:3, :3], T_base_camera[:3, 3]
    camera_points = (points - origin) @ rotation
    depth = camera_points[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (camera_points @ K.T)[:, :2] / depth[:, None]
    return pixels, depth


def deproject(depth: NDArray[np.float32], K: FloatArray, T_base_camera: FloatArray) -> NDArray[np.float32]:
    """Depth (H, W) in m to points (H, W, 3) in the base frame; meaningless where depth is 0."""
    rows, columns = depth.shape
    rays_x = (np.arange(columns) - K[0, 2]) / K[0, 0]
    rays_y = (np.arange(rows) - K[1, 2]) / K[1, 1]
    rotation = T_base_camera[:3, :3].astype(np.float32)
    points = rays_x.astype(np.float32)[None, :, None] * rotation[:, 0]
    points = points + rays_y.astype(np.float32)[:, None, None] * rotation[:, 1] + rotation[:, 2]
    return points * depth[..., None] + T_base_camera[:3, 3].astype(np.float32)


def cell_to_xy(cells: ArrayLike, workspace: Workspace) -> NDArray[np.float64]:
    """Map coordinates (…, 2) as (row, column) to (x, y) in m; index i is the centre of cell i."""
    origin = np.array([workspace.x[0], workspace.y[0]])
    return origin + (np.asarray(cells, float) + 0.5) * workspace.cell


def xy_to_cell(xy: ArrayLike, workspace: Workspace) -> NDArray[np.float64]:
    """(x, y) in m, shape (…, 2), to fractional map coordinates; inverse of `cell_to_xy`."""
    origin = np.array([workspace.x[0], workspace.y[0]])
    return (np.asarray(xy, float) - origin) / workspace.cell - 0.5


def sample_grid(features: Features, pixels: FloatArray) -> NDArray[np.float32]:
    """Bilinear samples (N, D) of a feature grid at pixels (N, 2) as u, v of its color image."""
    rows, columns, _ = features.grid.shape
    v = np.clip((pixels[:, 1] + 0.5) / features.stride[0] - 0.5, 0, rows - 1)
    u = np.clip((pixels[:, 0] + 0.5) / features.stride[1] - 0.5, 0, columns - 1)
    i, j = np.floor(v).astype(int), np.floor(u).astype(int)
    i1, j1 = np.minimum(i + 1, rows - 1), np.minimum(j + 1, columns - 1)
    a, b = (v - i).astype(np.float32)[:, None], (u - j).astype(np.float32)[:, None]
    grid = features.grid
    top = grid[i, j] * (1 - b) + grid[i, j1] * b
    bottom = grid[i1, j] * (1 - b) + grid[i1, j1] * b
    return top * (1 - a) + bottom * a


def _fill_holes(flat: NDArray[np.int64], heights: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Close gaps of one cell between pixels: a cell seen on two opposite sides takes the higher one.

    Shadows stay unseen, since growing an object into its shadow would move its centre.
    """
    index = flat.reshape(shape)
    padded = np.pad(index, 1, constant_values=-1)
    best = np.full(shape, -1)
    for one, other in ((padded[:-2, 1:-1], padded[2:, 1:-1]), (padded[1:-1, :-2], padded[1:-1, 2:])):
        between = (index < 0) & (one >= 0) & (other >= 0) & (best < 0)
        best = np.where(between, np.where(heights[one] >= heights[other], one, other), best)
    return np.where(index >= 0, index, best).ravel()


def fuse_scene(frames: Sequence[RGBD], features: Sequence[Features], workspace: Workspace) -> Scene:
    """Fuse the frames of all cameras into one top-down map; the highest point wins a cell.

    Args:
        frames: one frame a camera, taken while the arm does not move.
        features: features of the same frames in the same order, or empty for none.
        workspace: what to map.

    Raises:
        BadInput: no frames, or features that do not belong to the frames.
    """
    if not frames:
        raise BadInput("no frames to fuse; is a camera publishing?")
    if features and [f.stamp_ns for f in features] != [f.stamp_ns for f in frames]:
        raise BadInput(
            f"features with stamps {[f.stamp_ns for f in features]} do not belong to frames with stamps "
            f"{[f.stamp_ns for f in frames]}; pass the features of these frames in the same order"
        )
    rows, columns = workspace.shape
    xyz_parts, color_parts, pixel_parts, source_parts = [], [], [], []
    for source, frame in enumerate(frames):
        points = deproject(frame.depth, frame.camera.K, frame.camera.T_base_camera)
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        inside = (frame.depth > 0) & (x >= workspace.x[0]) & (x < workspace.x[1])
        inside &= (y >= workspace.y[0]) & (y < workspace.y[1])
        inside &= (z >= workspace.z[0]) & (z <= workspace.z[1])
        v, u = np.nonzero(inside)
        xyz_parts.append(points[v, u])
        color_parts.append(frame.color[v, u])
        pixel_parts.append(np.stack([u, v], axis=1))
        source_parts.append(np.full(len(u), source))
    xyz, colors = np.concatenate(xyz_parts), np.concatenate(color_parts)
    pixels, sources = np.concatenate(pixel_parts), np.concatenate(source_parts)

    winner = np.full(rows * columns, -1, np.int64)
    heights = xyz[:, 2]
    if len(xyz):
        cells = np.floor(xy_to_cell(xyz[:, :2], workspace) + 0.5).astype(int)
        cells = np.clip(cells, 0, [rows - 1, columns - 1])
        order = np.argsort(heights, kind="stable")
        winner[cells[order, 0] * columns + cells[order, 1]] = order
        winner = _fill_holes(winner, heights, (rows, columns))

    valid = winner >= 0
    chosen = winner[valid]
    color = np.zeros((rows * columns, 3), np.uint8)
    height = np.zeros(rows * columns, np.float32)
    color[valid], height[valid] = colors[chosen], heights[chosen]
    dense = None
    if features:
        depth_of = features[0].grid.shape[2]
        flat = np.zeros((rows * columns, depth_of), np.float32)
        valid_cells = np.flatnonzero(valid)
        for source, feature in enumerate(features):
            mine = sources[chosen] == source
            flat[valid_cells[mine]] = sample_grid(feature, pixels[chosen[mine]])
        dense = flat.reshape(rows, columns, depth_of)
    return Scene(
        color=color.reshape(rows, columns, 3),
        height=height.reshape(rows, columns),
        features=dense,
        valid=valid.reshape(rows, columns),
        workspace=workspace,
        stamp_ns=min(f.stamp_ns for f in frames),
    )

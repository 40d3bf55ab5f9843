"""A small world of colored boxes on a table, cast ray by ray, so that training is tested without a simulator."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from embodied_vision.encoders.views import ViewSet, dome_camera
from embodied_vision.types import RGBD, Camera

COLORS = {"red block": (220, 50, 40), "green block": (60, 160, 60), "blue block": (60, 90, 200)}
MakeSets = Callable[..., list[ViewSet]]


def _cast(camera: Camera, boxes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth along the optical axis (H, W), box index (H, W) with −1 for the table, and shade of the face (H, W)."""
    v, u = np.mgrid[: camera.height, : camera.width]
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1).astype(float)
    rays = pixels @ np.linalg.inv(camera.K).T @ camera.T_base_camera[:3, :3].T
    eye = camera.T_base_camera[:3, 3]
    depth = np.where(rays[..., 2] < 0, -eye[2] / np.minimum(rays[..., 2], -1e-9), np.inf)
    body = np.full(depth.shape, -1)
    shade = np.ones(depth.shape)
    for k, (low, high) in enumerate(boxes):
        with np.errstate(divide="ignore"):
            a, b = (low - eye) / rays, (high - eye) / rays
        near, far = np.minimum(a, b), np.maximum(a, b).min(-1)
        enter, face = near.max(-1), near.argmax(-1)
        hit = (enter < far) & (enter > 0) & (enter < depth)
        depth, body = np.where(hit, enter, depth), np.where(hit, k, body)
        shade = np.where(hit, np.array([0.6, 0.8, 1.0])[face], shade)
    return depth, body, shade


@cache
def make_view_set(seed: int, views: int = 3, size: tuple[int, int] = (96, 128)) -> ViewSet:
    """Three boxes of three colors at random places, seen from random sides."""
    rng = np.random.default_rng(seed)
    spots = rng.permutation([(0.4, -0.1), (0.4, 0.1), (0.6, -0.1), (0.6, 0.1)])[: len(COLORS)]
    boxes = []
    for x, y in spots:
        half = rng.uniform(0.025, 0.04, 2)
        boxes.append((np.array([x - half[0], y - half[1], 0]), np.array([x + half[0], y + half[1], 0.05])))
    palette = np.array([(150, 140, 130), *COLORS.values()], float)
    frames, bodies = [], []
    for _ in range(views):
        camera = dome_camera(rng, size=size, focal_px=(100.0, 120.0), distance_m=(0.6, 0.8))
        depth, body, shade = _cast(camera, boxes)
        color = np.clip(palette[body + 1] * shade[..., None] + rng.normal(0, 2, (*size, 3)), 0, 255).astype(np.uint8)
        seen = np.where(np.isfinite(depth) & (depth < 3), np.round(depth, 3), 0).astype(np.float32)
        frames.append(RGBD(color, seen, camera, stamp_ns=seed))
        bodies.append(np.where(seen > 0, body + 1, -1).astype(np.int32))
    names = {0: "table", **{i + 1: f"{name} {seed}" for i, name in enumerate(COLORS)}}
    return ViewSet(tuple(frames), tuple(bodies), names)


@pytest.fixture(scope="session")
def make_sets() -> MakeSets:
    """Several scenes: `make_sets(count, first_seed)`."""

    def make(count: int, first: int = 0) -> list[ViewSet]:
        return [make_view_set(first + i) for i in range(count)]

    return make

"""Pinhole images of a PyBullet world that agree with `Camera.K` to a fraction of a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pybullet
from numpy.typing import NDArray

from embodied_vision.geometry import depth_to_metres, look_at, quantise_depth
from embodied_vision.types import RGBD, Camera, FloatArray

NEAR_M = 0.05
FAR_M = 4.0


@dataclass(frozen=True)
class Light:
    """A directional light for the software renderer.

    Attributes:
        direction: towards the light, base frame, any length.
        color: RGB in [0, 1].
        ambient, diffuse, specular: reflection coefficients.
    """

    direction: tuple[float, float, float] = (0.4, -0.3, 1.0)
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ambient: float = 0.55
    diffuse: float = 0.5
    specular: float = 0.0


def front_camera() -> Camera:
    """The cell's camera: 424×240, in front of the arm, looking down at the table's middle at an angle."""
    return Camera(
        name="camera",
        width=424,
        height=240,
        K=np.array([[340.0, 0.0, 211.5], [0.0, 340.0, 119.5], [0.0, 0.0, 1.0]]),
        T_base_camera=look_at((1.0, 0.0, 0.85), (0.5, 0.0, 0.0)),
    )


def view_matrix(camera: Camera) -> list[float]:
    """OpenGL view matrix, column-major: its camera looks along −z with y up."""
    world_to_optical = np.linalg.inv(camera.T_base_camera)
    view: list[float] = (np.diag([1.0, -1.0, -1.0, 1.0]) @ world_to_optical).T.ravel().tolist()
    return view


def projection_matrix(camera: Camera) -> list[float]:
    """OpenGL projection, column-major, under which TinyRenderer samples pixel (u, v) on the ray of K.

    TinyRenderer samples at integer viewport coordinates (no half pixel) and flips rows as
    H − 1 − y, hence cx in the first row and cy + 1 in the second.
    """
    width, height, K = camera.width, camera.height, camera.K
    projection = np.zeros((4, 4))
    projection[0, 0] = 2 * K[0, 0] / width
    projection[0, 1] = -2 * K[0, 1] / width
    projection[0, 2] = 1 - 2 * K[0, 2] / width
    projection[1, 1] = 2 * K[1, 1] / height
    projection[1, 2] = 2 * (K[1, 2] + 1) / height - 1
    projection[2, 2] = -(FAR_M + NEAR_M) / (FAR_M - NEAR_M)
    projection[2, 3] = -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    projection[3, 2] = -1
    column_major: list[float] = projection.T.ravel().tolist()
    return column_major


def depth_from_buffer(buffer: FloatArray) -> NDArray[np.float32]:
    """OpenGL depth buffer (H, W) in [0, 1] to metres along the optical axis; 0 where nothing was hit."""
    depth = FAR_M * NEAR_M / (FAR_M - (FAR_M - NEAR_M) * np.asarray(buffer, np.float64))
    return np.where(np.asarray(buffer) < 1.0, depth, 0.0).astype(np.float32)


def render(
    client: int, camera: Camera, *, stamp_ns: int, light: Light | None = None, segmentation: bool = False
) -> tuple[RGBD, NDArray[np.int32] | None]:
    """Render one camera of a PyBullet client with the software renderer.

    Returns:
        The frame, depth quantised to whole millimetres, and body ids int32 (H, W), −1 where nothing
        was hit, or None without `segmentation`.
    """
    light = light or Light()
    flags = 0 if segmentation else pybullet.ER_NO_SEGMENTATION_MASK
    _, _, pixels, buffer, bodies = pybullet.getCameraImage(
        camera.width,
        camera.height,
        viewMatrix=view_matrix(camera),
        projectionMatrix=projection_matrix(camera),
        lightDirection=light.direction,
        lightColor=light.color,
        lightAmbientCoeff=light.ambient,
        lightDiffuseCoeff=light.diffuse,
        lightSpecularCoeff=light.specular,
        shadow=0,
        renderer=pybullet.ER_TINY_RENDERER,
        flags=flags,
        physicsClientId=client,
    )
    shape = (camera.height, camera.width)
    color = np.ascontiguousarray(np.asarray(pixels, np.uint8).reshape(*shape, 4)[..., :3])
    depth = depth_to_metres(quantise_depth(depth_from_buffer(np.asarray(buffer, np.float32).reshape(shape))))
    frame = RGBD(color=color, depth=depth, camera=camera, stamp_ns=stamp_ns)
    ids = np.asarray(bodies, np.int32).reshape(shape).copy() if segmentation else None
    return frame, ids

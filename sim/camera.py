"""Pinhole images of a PyBullet world that agree with `Camera.K` to a fraction of a pixel."""

from __future__ import annotations

import numpy as np
import pybullet
from numpy.typing import NDArray

from embodied_vision.errors import BadInput
from embodied_vision.geometry import DEPTH_UNIT_M, look_at
from embodied_vision.lights import Light
from embodied_vision.types import RGBD, Camera
from embodied_vision_sim.renderer import Renderer

NEAR_M = 0.05
FAR_M = 4.0
EGL_LARGEST_PX = (1024, 768)
"""The EGL plugin draws into a window of this size and stretches it for larger pictures."""
EGL_LIGHT_M = 100.0
"""How far away the EGL plugin's lamp stands: so far that its rays are parallel and its highlights fall elsewhere."""


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


def projection_matrix(camera: Camera, renderer: Renderer = "software") -> list[float]:
    """OpenGL projection, column-major, under which the renderer samples pixel (u, v) on the ray of K.

    OpenGL samples at the centres of pixels, ½ from their edges. TinyRenderer samples at integer viewport
    coordinates (no half pixel) and flips rows as H − 1 − y, hence cx in the first row and cy + 1 in the second.
    """
    width, height, K = camera.width, camera.height, camera.K
    cx, cy = (K[0, 2], K[1, 2] + 1) if renderer == "software" else (K[0, 2] + 0.5, K[1, 2] + 0.5)
    projection = np.zeros((4, 4))
    projection[0, 0] = 2 * K[0, 0] / width
    projection[0, 1] = -2 * K[0, 1] / width
    projection[0, 2] = 1 - 2 * cx / width
    projection[1, 1] = 2 * K[1, 1] / height
    projection[1, 2] = 2 * cy / height - 1
    projection[2, 2] = -(FAR_M + NEAR_M) / (FAR_M - NEAR_M)
    projection[2, 3] = -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    projection[3, 2] = -1
    column_major: list[float] = projection.T.ravel().tolist()
    return column_major


def depth_from_buffer(buffer: NDArray[np.float32]) -> NDArray[np.float32]:
    """OpenGL depth buffer in [0, 1] to metres along the optical axis in whole millimetres; 0 where nothing was hit.

    The division takes float64: in float32 one pixel in a thousand would round to the next millimetre.
    """
    exact = buffer.astype(np.float64)
    exact *= NEAR_M - FAR_M
    exact += FAR_M
    np.divide(FAR_M * NEAR_M, exact, out=exact)
    depth = exact.astype(np.float32)
    depth /= np.float32(DEPTH_UNIT_M)
    np.rint(depth, out=depth)
    depth *= buffer < 1.0
    depth *= np.float32(DEPTH_UNIT_M)
    return depth


def render(
    client: int,
    camera: Camera,
    *,
    stamp_ns: int,
    light: Light | None = None,
    segmentation: bool = False,
    renderer: Renderer = "software",
) -> tuple[RGBD, NDArray[np.int32] | None]:
    """Render one camera of a PyBullet client.

    Of the light EGL follows the direction alone: the ambient and diffuse parts are fixed in its shaders, close to
    those of the usual light, and it casts shadows.

    Args:
        client: PyBullet client; with the renderer egl its plugin is loaded and its context current.
        camera: what to see it with.
        stamp_ns: of the frame.
        light: the usual one when not given.
        segmentation: whether body ids are wanted.
        renderer: who draws for this client.

    Returns:
        The frame, depth quantised to whole millimetres, and body ids int32 (H, W), −1 where nothing
        was hit, or None without `segmentation`.

    Raises:
        BadInput: the picture is larger than EGL can draw.
    """
    light = light or Light()
    direction = np.asarray(light.direction, float)
    if renderer == "egl":
        if camera.width > EGL_LARGEST_PX[0] or camera.height > EGL_LARGEST_PX[1]:
            raise BadInput(
                f"camera {camera.name!r} has {camera.width}×{camera.height} px, EGL draws at most "
                f"{EGL_LARGEST_PX[0]}×{EGL_LARGEST_PX[1]}; use a smaller one or the renderer software"
            )
        direction *= EGL_LIGHT_M / np.linalg.norm(direction)
    flags = 0 if segmentation else pybullet.ER_NO_SEGMENTATION_MASK
    _, _, pixels, buffer, bodies = pybullet.getCameraImage(
        camera.width,
        camera.height,
        viewMatrix=view_matrix(camera),
        projectionMatrix=projection_matrix(camera, renderer),
        lightDirection=direction.tolist(),
        lightColor=light.color,
        lightAmbientCoeff=light.ambient,
        lightDiffuseCoeff=light.diffuse,
        lightSpecularCoeff=light.specular,
        shadow=0,
        renderer=pybullet.ER_BULLET_HARDWARE_OPENGL if renderer == "egl" else pybullet.ER_TINY_RENDERER,
        flags=flags,
        physicsClientId=client,
    )
    shape = (camera.height, camera.width)
    rgba = np.asarray(pixels, np.uint8).reshape(*shape, 4)
    color = np.empty((*shape, 3), np.uint8)
    for channel in range(3):  # seven times as fast as one copy of [..., :3]
        color[..., channel] = rgba[..., channel]
    depth = depth_from_buffer(np.asarray(buffer, np.float32).reshape(shape))
    frame = RGBD(color=color, depth=depth, camera=camera, stamp_ns=stamp_ns)
    ids = np.asarray(bodies, np.int32).reshape(shape).copy() if segmentation else None
    return frame, ids

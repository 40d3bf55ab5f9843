"""Made-up views of a board: projections with noise, and pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from embodied_vision.calibrating.board import Board, Corners
from embodied_vision.calibrating.hand_eye import Mount, Poses, arm_poses, inverse
from embodied_vision.calibrating.lens import NO_DISTORTION, Lens
from embodied_vision.calibrating.views import View, Views

BOARD = Board()
SIZE = (640, 480)
LENS = Lens(SIZE, np.array([[600.0, 0.0, 324.0], [0.0, 605.0, 233.0], [0.0, 0.0, 1.0]]), NO_DISTORTION)
RADIAL = Lens(SIZE, LENS.K, np.array([-0.2, 0.05, 0.0, 0.0, 0.0]))
BENT = Lens(SIZE, LENS.K, np.array([-0.2, 0.05, 0.002, -0.002, 0.0]))


def pose(turn: tuple[float, float, float], position: tuple[float, float, float]) -> Poses:
    """From a rotation vector in rad and a position in m."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    T[:3, 3] = position
    return T


CAMERA = {"cell": pose((1.2, 1.5, -1.1), (1.0, 0.1, 0.8)), "wrist": pose((0.1, -0.1, 1.6), (0.07, 0.02, -0.06))}
BOARD_POSE = {"cell": pose((0.1, 3.0, 0.2), (0.12, -0.09, 0.05)), "wrist": pose((3.1, 0.1, 0.0), (0.4, 0.1, 0.0))}


def board_poses(count: int, rng: np.random.Generator, tilt: float = 35.0) -> list[Poses]:
    """Poses of the board in the camera's frame that show most of it."""
    found = []
    middle = np.array([*BOARD.size_m, 0.0]) / 2
    while len(found) < count:
        distance = rng.uniform(0.45, 0.8)
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec(np.radians(rng.uniform(-tilt, tilt, 3))).as_matrix()
        aside = distance * rng.uniform(-0.25, 0.25, 2)
        T[:3, 3] = np.array([*aside, distance]) - T[:3, :3] @ middle
        if visible(project(T, LENS)).sum() >= 8:
            found.append(T)
    return found


def project(T: Poses, lens: Lens) -> NDArray[np.float64]:
    """Pixels (N, 2) of all corners, by OpenCV."""
    turn = Rotation.from_matrix(T[:3, :3]).as_rotvec()
    return np.asarray(cv2.projectPoints(BOARD.points, turn, T[:3, 3], lens.K, lens.distortion)[0]).reshape(-1, 2)


def visible(pixels: NDArray[np.float64]) -> NDArray[np.bool_]:
    return ((pixels > 2) & (pixels < (SIZE[0] - 3, SIZE[1] - 3))).all(axis=1)


def tip_pose(mount: Mount, T_camera_board: Poses) -> Poses:
    """T_base_tip at which the camera sees the board so."""
    A = BOARD_POSE[mount] @ inverse(CAMERA[mount] @ T_camera_board)
    return arm_poses(A[None], mount)[0]


def make_views(
    count: int,
    mount: Mount = "cell",
    *,
    seed: int = 0,
    noise_px: float = 0.2,
    arm_m: float = 0.0,
    tilt: float = 35.0,
    lens: Lens = LENS,
) -> Views:
    """Views with Gaussian noise of corners and of the arm's poses, whose turn scatters by arm_m at 0.5 m."""
    rng = np.random.default_rng(seed)
    views = []
    for number, T in enumerate(board_poses(count, rng, tilt)):
        pixels = project(T, lens)
        ids = np.flatnonzero(visible(pixels))
        tip = tip_pose(mount, T) @ pose(tuple(rng.normal(size=3) * arm_m / 0.5), tuple(rng.normal(size=3) * arm_m))
        corners = Corners(ids, pixels[ids] + rng.normal(size=(len(ids), 2)) * noise_px)
        views.append(View(f"{number:03d}.png", corners, tip))
    return Views(SIZE, tuple(views), {})


def picture(T: Poses, lens: Lens = LENS) -> NDArray[np.uint8]:
    """uint8 (H, W, 3): the board at a pose in the camera's frame, on gray."""
    px_per_m, margin = 4000.0, 0.01
    drawn = BOARD.draw(px_per_m, margin)
    # Pixel centres of the drawing in the board's frame, x = (i + ½) / px_per_m − margin.
    to_board = np.array([[1, 0, 0.5 - margin * px_per_m], [0, 1, 0.5 - margin * px_per_m], [0, 0, px_per_m]]) / px_per_m
    H = lens.K @ T[:3, [0, 1, 3]] @ to_board
    finer = np.array([[3.0, 0, 1.0], [0, 3.0, 1.0], [0, 0, 1.0]])
    size = (3 * SIZE[0], 3 * SIZE[1])
    seen = cv2.warpPerspective(drawn, finer @ H, size, flags=cv2.INTER_AREA, borderValue=128)
    if lens.distortion.any():
        v, u = np.mgrid[: size[1], : size[0]]
        finer_K = finer @ lens.K
        bent = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float64)[:, None]
        straight = cv2.undistortPoints(bent, finer_K, lens.distortion, P=finer_K).reshape(size[1], size[0], 2)
        seen = cv2.remap(seen, straight.astype(np.float32), None, cv2.INTER_LINEAR, borderValue=128)
    gray = seen.reshape(SIZE[1], 3, SIZE[0], 3).mean(axis=(1, 3))
    return np.repeat(np.rint(gray).astype(np.uint8)[..., None], 3, axis=2)

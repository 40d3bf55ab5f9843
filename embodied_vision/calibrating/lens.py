"""Intrinsics and distortion of a camera, from views of the board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.calibrating.board import Board, Corners, opencv
from embodied_vision.errors import BadInput

LEAST_VIEWS = 5
NO_DISTORTION = np.zeros(5)
_RADIAL, _DECENTRED = ("CALIB_FIX_K1", "CALIB_FIX_K2"), ("CALIB_ZERO_TANGENT_DIST",)
_MODELS: tuple[tuple[int, tuple[str, ...]], ...] = ((0, _RADIAL + _DECENTRED), (2, _DECENTRED), (4, ()))
"""How many coefficients are estimated, and what OpenCV keeps at 0: none, radial alone, and decentred as well."""
STRAIGHT_PX = 0.3
"""A lens that bends nothing by more within the picture counts as free of distortion."""


@dataclass(frozen=True, eq=False)
class Lens:
    """How a camera projects.

    Attributes:
        size: width and height of its pictures in px.
        K: (3, 3) intrinsics in px.
        distortion: (5,) k1, k2, p1, p2, k3 of the model plumb_bob.
    """

    size: tuple[int, int]
    K: NDArray[np.float64]
    distortion: NDArray[np.float64]

    @property
    def bends_px(self) -> float:
        """The most by which distortion moves a point within the picture, px."""
        if not self.distortion.any():
            return 0.0
        u, v = np.meshgrid(np.linspace(0, self.size[0] - 1, 17), np.linspace(0, self.size[1] - 1, 17))
        pixels = np.stack([u.ravel(), v.ravel()], axis=1)
        return float(np.linalg.norm(self.straighten(pixels) - pixels, axis=1).max())

    def straighten(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (N, 2) of a picture to where they lie in the rectified picture of the same K."""
        if not self.distortion.any():
            return pixels
        cv2 = opencv()
        moved = cv2.undistortPoints(np.ascontiguousarray(pixels[:, None]), self.K, self.distortion, P=self.K)
        return np.asarray(moved, np.float64).reshape(-1, 2)

    def bend(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (N, 2) of what lies at x/z, y/z (N, 2) in the camera's frame."""
        x, y = rays[:, 0], rays[:, 1]
        k1, k2, p1, p2, k3 = self.distortion
        square = x * x + y * y
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        bent = np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
                y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
            ],
            axis=1,
        )
        return bent @ self.K[:2, :2].T + self.K[:2, 2]

    @property
    def coefficients(self) -> NDArray[np.int64]:
        """Which of the distortion's coefficients are in use."""
        return np.flatnonzero(self.distortion)

    def moved(self, by: NDArray[np.float64], coefficients: NDArray[np.float64]) -> Lens:
        """The lens with fx, fy, cx, cy moved by so many times its width and the `coefficients` in use by so much."""
        K = self.K.copy()
        K[0, 0] += by[0] * self.size[0]
        K[1, 1] += by[1] * self.size[0]
        K[:2, 2] += by[2:] * self.size[0]
        distortion = self.distortion.copy()
        distortion[self.coefficients] += coefficients
        return Lens(self.size, K, distortion)

    def rectify(self, color: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture uint8 (H, W, …) as a pinhole of the same K would have taken it; black where nothing was seen."""
        return np.asarray(opencv().undistort(color, self.K, self.distortion), np.uint8)


@dataclass(frozen=True, eq=False)
class LensFit:
    """An estimated lens.

    Attributes:
        lens: the estimate.
        spread_px: standard deviations of fx, fy, cx, cy.
        rms_px: of all reprojections, with the board free in each view.
    """

    lens: Lens
    spread_px: tuple[float, float, float, float]
    rms_px: float


def fit_lens(board: Board, views: Sequence[Corners], size: tuple[int, int], distorted: bool | None = None) -> LensFit:
    """Estimate intrinsics, and distortion where it is there.

    Args:
        board: what is seen.
        views: its corners, a picture each.
        size: width and height of the pictures in px.
        distorted: whether to estimate distortion; None lets the pictures decide. How many coefficients they decide in
            any case, by the Bayesian information criterion: those that are not needed make the others worse.

    Raises:
        BadInput: too few views, or views that do not determine the intrinsics.
    """
    if len(views) < LEAST_VIEWS:
        raise BadInput(f"{len(views)} views of the board do not determine a lens; give {LEAST_VIEWS} or more, tilted")
    models = _MODELS if distorted is None else _MODELS[1:] if distorted else _MODELS[:1]
    values = 2 * sum(len(view) for view in views)
    best: tuple[float, LensFit] | None = None
    for count, fixed in models:
        fit = _fit(board, views, size, fixed)
        score = 2 * values * float(np.log(max(fit.rms_px, 1e-9))) + count * float(np.log(values))
        bends = fit.lens.bends_px > STRAIGHT_PX or distorted
        if best is None or (score < best[0] and bends):
            best = score, fit
    assert best is not None
    return best[1]


def _fit(board: Board, views: Sequence[Corners], size: tuple[int, int], fixed: Sequence[str]) -> LensFit:
    cv2 = opencv()
    points = [board.points[view.ids].astype(np.float32) for view in views]
    pixels = [view.pixels.astype(np.float32) for view in views]
    flags = cv2.CALIB_FIX_K3
    for name in fixed:
        flags |= getattr(cv2, name)
    try:
        rms, K, distortion, _, _, spread, _, _ = cv2.calibrateCameraExtended(
            points, pixels, size, None, None, flags=flags
        )
    except cv2.error as error:
        raise BadInput(
            f"the intrinsics cannot be estimated from these views ({str(error).strip().splitlines()[-1]}); tilt the "
            "board more, or keep the driver's intrinsics (--intrinsics FILE)"
        ) from error
    K, distortion, spread = (np.asarray(part, np.float64) for part in (K, distortion, spread))
    fx, fy, cx, cy = (float(value) for value in spread.ravel()[:4])
    if not (np.isfinite(K).all() and np.isfinite(distortion).all() and np.isfinite([fx, fy, cx, cy]).all()):
        raise BadInput("the intrinsics come out non-finite; tilt the board more, or keep the driver's")
    return LensFit(Lens(size, K, distortion.ravel()[:5]), (fx, fy, cx, cy), float(rms))

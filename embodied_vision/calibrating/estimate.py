"""The whole calibration: from views to a camera, with what can be said about how good it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from embodied_vision.calibrating.board import Board
from embodied_vision.calibrating.hand_eye import Mount, Poses, arm_poses
from embodied_vision.calibrating.lens import LEAST_VIEWS, Lens, fit_lens
from embodied_vision.calibrating.solve import (
    Free,
    Noise,
    Problem,
    Solution,
    agreeing,
    difference,
    turn_diversity_deg,
)
from embodied_vision.calibrating.views import Views
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.types import FloatArray

ROUNDS = 3
"""So often noise and fit are estimated from each other."""
DEGENERATE_DEG = 3.0
LITTLE_DEG = 12.0
WELL_KNOWN_MM, WELL_KNOWN_DEG = 2.0, 0.2
"""Uncertainty above which the result is not called good."""
SCALE_WRONG, SCALE_SUSPECT = 0.02, 0.004
FOREIGN = 0.02
"""Intrinsics that are contradicted by more, as a share of the focal length, belong to another camera."""
GRID = (8, 6)
"""Cells of the picture, across and down, in which corners are counted."""


@dataclass(frozen=True)
class ViewResult:
    """One picture in the result.

    Attributes:
        name: of the picture.
        corners: seen.
        residual_px: root mean square of the reprojection errors.
        used: whether the result rests on it.
        distance_m: of the board.
        shift_mm, turn_deg: by which the camera moves when this view is left out; 0 where it is not used.
    """

    name: str
    corners: int
    residual_px: float
    used: bool
    distance_m: float
    shift_mm: float
    turn_deg: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated camera.

    Attributes:
        mount: where the camera is.
        board: with which it was calibrated.
        lens: intrinsics and distortion.
        lens_estimated: whether they come from these pictures.
        X: (4, 4) pose of the camera, T_base_camera in the cell, T_tip_camera on the wrist.
        Z: (4, 4) pose of the board, T_tip_board with the camera in the cell, T_base_board with it on the wrist.
        spread_mm, spread_deg: standard error of the camera's position and turn, by leaving out each view in turn.
        lens_spread_px: standard errors of fx, fy, cx, cy likewise; 0 for a lens that was given.
        rms_px: of the reprojection errors of the views that are used.
        noise: scatter of corners and arm.
        scale, scale_spread: size of the board as the arm sees it, over the size given, and its standard error.
        methods: distance in mm and angle in degrees of X by each closed method from X.
        diversity_deg: turns of the arm about a second axis, root mean square.
        coverage: share of the picture's `GRID` cells in which a corner was seen.
        counts: int (rows, columns) of `GRID`, corners seen.
        views: one for each picture with the board.
        left_out: names of pictures without the board, and why.
        arrows: (N, 4) u, v of every used corner and its reprojection error, px.
        warnings: what speaks against trusting this, with remedies.
    """

    mount: Mount
    board: Board
    lens: Lens
    lens_estimated: bool
    X: Poses
    Z: Poses
    spread_mm: float
    spread_deg: float
    lens_spread_px: tuple[float, float, float, float]
    rms_px: float
    noise: Noise
    scale: float
    scale_spread: float
    methods: dict[str, tuple[float, float]]
    diversity_deg: float
    coverage: float
    counts: NDArray[np.int64]
    views: tuple[ViewResult, ...]
    left_out: dict[str, str]
    arrows: NDArray[np.float64]
    warnings: tuple[str, ...] = ()

    def T_base_camera(self, T_base_tip: FloatArray) -> Poses:
        """(4, 4) pose of the camera while the tip is at T_base_tip, which only matters on the wrist."""
        return self.X if self.mount == "cell" else np.asarray(T_base_tip @ self.X)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for scripts and beside the result."""
        return {
            "mount": self.mount,
            "board": self.board.describe(),
            "T_base_camera" if self.mount == "cell" else "T_tip_camera": _rounded(self.X),
            "T_tip_board" if self.mount == "cell" else "T_base_board": _rounded(self.Z),
            "uncertainty": {"position_mm": round(self.spread_mm, 3), "turn_deg": round(self.spread_deg, 4)},
            "residual_px": round(self.rms_px, 3),
            "corner_noise_px": round(self.noise.corner_px, 3),
            "arm_noise_mm": round(1000 * self.noise.arm_m, 3),
            "intrinsics": {
                "estimated": self.lens_estimated,
                "K": _rounded(self.lens.K),
                "distortion": [round(float(value), 6) for value in self.lens.distortion],
                "bends_px": round(self.lens.bends_px, 2),
                "spread_px": [round(value, 3) for value in self.lens_spread_px],
            },
            "board_scale": {"value": round(self.scale, 5), "spread": round(self.scale_spread, 5)},
            "methods": {
                name: {"position_mm": round(mm, 3), "turn_deg": round(deg, 4)}
                for name, (mm, deg) in self.methods.items()
            },
            "turn_diversity_deg": round(self.diversity_deg, 1),
            "coverage": round(self.coverage, 3),
            "views": [
                {
                    "picture": view.name,
                    "corners": view.corners,
                    "residual_px": round(view.residual_px, 3),
                    "used": view.used,
                    "distance_m": round(view.distance_m, 3),
                    "left_out_moves_mm": round(view.shift_mm, 3),
                    "left_out_turns_deg": round(view.turn_deg, 4),
                }
                for view in self.views
            ],
            "left_out": self.left_out,
            "warnings": list(self.warnings),
        }


def calibrate(
    board: Board, views: Views, mount: Mount, lens: Lens | None = None, distorted: bool | None = None
) -> Calibration:
    """Calibrate a camera.

    Args:
        board: what is seen.
        views: of one camera.
        mount: `cell`, the camera stands and the arm moves the board, or `wrist`, the arm moves the camera.
        lens: of the camera where it is known, such as the driver's; None estimates it.
        distorted: whether to estimate distortion, None lets the pictures decide.

    Raises:
        BadInput: too few or degenerate views, a lens of another size, or a board that is of another size.
        RunFailed: the views contradict each other.
    """
    count = len(views.views)
    if count < LEAST_VIEWS:
        raise BadInput(
            f"the board is seen in {count} pictures, {LEAST_VIEWS} are the least and 15 advisable; {_missed(views)}"
        )
    if lens is not None and lens.size != views.size:
        raise BadInput(
            f"the pictures have {views.size[0]}×{views.size[1]} px, the intrinsics are for {lens.size[0]}×"
            f"{lens.size[1]}; calibrate at the resolution that runs, or leave --intrinsics out"
        )
    A = arm_poses(np.stack([np.asarray(view.T_base_tip, float) for view in views.views]), mount)
    diversity = turn_diversity_deg(A)
    if diversity < DEGENERATE_DEG:
        raise BadInput(
            f"the arm turned about a second axis by {diversity:.1f}° only: the views are nearly parallel and do not "
            "determine where the camera is; turn the hand about two axes, by 20° to 40° each way"
        )
    found = [view.corners for view in views.views]
    free = Free(lens=lens is None)
    start = lens or fit_lens(board, found, views.size, distorted).lens
    problem = Problem(board, views.views, start, mount)
    sized = problem.solve(Free(scale=True))
    if sized is None:
        raise RunFailed(_contradiction(board, views, start, mount))
    sized, noise = _settled(problem, sized, replace(free, scale=True))
    one_out = problem.leaving_one_out(sized, replace(free, scale=True), noise)
    scale_spread = _standard_error(np.array([fit.scale for fit in one_out.values()]))
    if abs(sized.scale - 1) > max(SCALE_WRONG, 4 * scale_spread):
        raise BadInput(
            f"by the arm's motion the board is {sized.scale:.3f} times as large as given: squares of "
            f"{1000 * board.square_m * sized.scale:.2f} mm, not {1000 * board.square_m:g}; measure the print and "
            "give --square-mm and --marker-mm as they are"
            + ("" if lens is None else ", or the given intrinsics belong to another camera or resolution")
        )
    solution, noise = _settled(problem, replace(sized, scale=1.0), free)
    one_out = problem.leaving_one_out(solution, free, noise)
    boards = problem.board_poses(solution.lens, problem.predicted(solution))
    counts = _counts(views, solution)
    deviations = {view: difference(fit.X, solution.X) for view, fit in one_out.items()}
    mm, deg = _pose_errors([fit.X for fit in one_out.values()])
    result = Calibration(
        mount=mount,
        board=board,
        lens=solution.lens,
        lens_estimated=lens is None,
        X=solution.X,
        Z=solution.Z,
        spread_mm=mm,
        spread_deg=deg,
        lens_spread_px=_lens_errors([fit.lens for fit in one_out.values()]) if lens is None else (0.0,) * 4,
        rms_px=solution.rms_px,
        noise=noise,
        scale=sized.scale,
        scale_spread=scale_spread,
        methods={name: difference(X, solution.X) for name, X in problem.closed(boards, solution.used).items()},
        diversity_deg=turn_diversity_deg(problem.A[solution.used]),
        coverage=float((counts > 0).mean()),
        counts=counts,
        views=tuple(
            ViewResult(
                view.name,
                len(view.corners),
                float(solution.residuals_px[number]),
                bool(solution.used[number]),
                float(np.linalg.norm(boards[number, :3, 3])),
                *deviations.get(number, (0.0, 0.0)),
            )
            for number, view in enumerate(views.views)
        ),
        left_out=views.left_out,
        arrows=_arrows(problem, views, solution),
    )
    told = _warnings(result)
    if lens is not None:
        told += _doubts_about(lens, problem.refine(solution, solution.used, Free(lens=True), noise).lens)
    return replace(result, warnings=tuple(told))


def _settled(problem: Problem, solution: Solution, free: Free) -> tuple[Solution, Noise]:
    """The fit, its noise and the views it rests on, each from the others."""
    noise = problem.noise(solution, solution.used)
    for _ in range(ROUNDS):
        solution = problem.refine(solution, solution.used, free, noise)
        used = agreeing(solution.residuals_px)
        if (used != solution.used).any():
            solution = problem.refine(solution, used, free, noise)
        noise = problem.noise(solution, solution.used)
    return solution, noise


def _standard_error(values: NDArray[np.float64]) -> float:
    """Of an estimate, from its values (N,) with one view left out each (jackknife)."""
    count = len(values)
    return float(np.sqrt((count - 1) / count * ((values - values.mean()) ** 2).sum()))


def _pose_errors(poses: list[Poses]) -> tuple[float, float]:
    positions = np.array([pose[:3, 3] for pose in poses])
    turns = (
        Rotation.from_matrix([pose[:3, :3] for pose in poses]) * Rotation.from_matrix(poses[0][:3, :3]).inv()
    ).as_rotvec()
    mm, rad = (
        float(np.linalg.norm([_standard_error(axis) for axis in values.T])) for values in (1000 * positions, turns)
    )
    return mm, float(np.degrees(rad))


def _lens_errors(lenses: list[Lens]) -> tuple[float, float, float, float]:
    values = np.array([[lens.K[0, 0], lens.K[1, 1], lens.K[0, 2], lens.K[1, 2]] for lens in lenses])
    fx, fy, cx, cy = (_standard_error(column) for column in values.T)
    return fx, fy, cx, cy


def _counts(views: Views, solution: Solution) -> NDArray[np.int64]:
    pixels = np.concatenate(
        [view.corners.pixels for view, used in zip(views.views, solution.used, strict=True) if used]
    )
    edges = [np.linspace(-0.5, length - 0.5, cells + 1) for length, cells in zip(views.size, GRID, strict=True)]
    return np.histogram2d(pixels[:, 1], pixels[:, 0], bins=edges[::-1])[0].astype(np.int64)


def _arrows(problem: Problem, views: Views, solution: Solution) -> NDArray[np.float64]:
    used = np.flatnonzero(solution.used).tolist()
    pixels = np.concatenate([views.views[number].corners.pixels for number in used])
    return np.hstack([pixels, np.concatenate(problem.errors(solution, used))])


def _contradiction(board: Board, views: Views, lens: Lens, mount: Mount) -> str:
    """Why no camera fits most views; the most frequent mistakes are tried."""
    other: Mount = "wrist" if mount == "cell" else "cell"
    said = f"the pictures and the arm's poses contradict each other: no camera in the {mount} fits 3 in 5 of them; "
    if mount == "wrist":
        said = said.replace("in the wrist", "on the wrist")
    if Problem(board, views.views, lens, other).solve(Free(scale=True)) is not None:
        return said + (
            f"they fit with --mount {other}, or with the poses inverted: give the tip's pose in the base frame, "
            "not the base's in the tip's"
        )
    shifted = [
        replace(view, T_base_tip=after.T_base_tip) for view, after in zip(views.views, views.views[1:], strict=False)
    ]
    if Problem(board, shifted, lens, mount).solve(Free(scale=True)) is not None:
        return said + "they fit when each picture takes the pose of the next: correct the order of the poses"
    return said + (
        "check that board or camera sit firmly, that each picture was taken at rest at its own pose, and the order of "
        "the quaternion, qx qy qz qw"
    )


def _missed(views: Views) -> str:
    if not views.left_out:
        return "take more"
    name, reason = next(iter(views.left_out.items()))
    return f"{len(views.left_out)} were left out, such as {name}: {reason}"


def _warnings(result: Calibration) -> list[str]:
    """What speaks against trusting a result, most serious first."""
    used = [view for view in result.views if view.used]
    found = []
    if result.spread_mm > WELL_KNOWN_MM or result.spread_deg > WELL_KNOWN_DEG:
        found.append(
            f"the camera's pose is uncertain by {result.spread_mm:.1f} mm and {result.spread_deg:.2f}°; add views with "
            "other turns and distances"
        )
    if len(used) < 10:
        found.append(f"only {len(used)} views are used; take 15 or more")
    if result.diversity_deg < LITTLE_DEG:
        found.append(
            f"the arm turned about a second axis by only {result.diversity_deg:.0f}°; turn the hand by 20° to 40° "
            "about two axes"
        )
    for view in result.views:
        if not view.used:
            found.append(
                f"picture {view.name} contradicts the others ({view.residual_px:.1f} px) and is not used; was the arm "
                "still moving, or the pose noted for another picture?"
            )
    if abs(result.scale - 1) > max(SCALE_SUSPECT, 4 * result.scale_spread):
        found.append(
            f"by the arm's motion the squares measure {1000 * result.board.square_m * result.scale:.2f} mm, not "
            f"{1000 * result.board.square_m:g}; measure the print again"
        )
    if result.rms_px > 1.0:
        found.append(
            f"corners lie {result.rms_px:.1f} px from where they should; the arm's poses scatter by "
            f"{1000 * result.noise.arm_m:.1f} mm: wait until it rests, and fix board or camera more firmly"
        )
    if result.noise.corner_px > 0.5:
        found.append(
            f"corners scatter by {result.noise.corner_px:.1f} px within pictures; is the board flat, the picture "
            "sharp, and the lens's distortion known?"
        )
    if result.lens_estimated and result.coverage < 0.5:
        found.append(
            f"corners were seen in {100 * result.coverage:.0f} % of the picture; show the board near its edges too, or "
            "keep the driver's intrinsics"
        )
    focal = max(result.lens_spread_px[:2]) / float(result.lens.K[0, 0])
    if focal > 0.005:
        found.append(f"the focal length is uncertain by {100 * focal:.1f} %; tilt the board more, and bring it nearer")
    for name, (mm, deg) in result.methods.items():
        if mm > max(10.0, 6 * result.spread_mm) or deg > max(1.0, 6 * result.spread_deg):
            found.append(f"the method {name} puts the camera {mm:.0f} mm and {deg:.1f}° elsewhere; add views")
    return found


def _doubts_about(given: Lens, seen: Lens) -> list[str]:
    """Whether intrinsics that were given are contradicted by those that the pictures ask for."""
    differs = float(np.abs(seen.K - given.K).max())
    if differs <= FOREIGN * given.K[0, 0]:
        return []
    return [
        f"these pictures ask for the intrinsics {np.round(seen.K, 1).tolist()}, {differs:.0f} px from those given; do "
        "they belong to this camera at this resolution?"
    ]


def _rounded(matrix: NDArray[np.float64]) -> list[list[float]]:
    return [[round(float(value), 9) for value in row] for row in matrix]

"""The camera's pose that makes all corners of all views fit best, without the views that contradict the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from embodied_vision.calibrating.board import Board, opencv
from embodied_vision.calibrating.hand_eye import METHODS, Mount, Poses, arm_poses, inverse, relative_turns
from embodied_vision.calibrating.lens import Lens
from embodied_vision.calibrating.views import View

HYPOTHESES = 80
HYPOTHESIS_VIEWS = 5
FIT_PX = 0.5
"""A view that fits as well as this is never left out, however well the others do."""
OUTLIER = 4.0
"""A view is left out when its residual is so many times the median one."""
AGREEING = 0.6
"""Least share of the views that must fit together."""
LEAST_USED = 3
WORST = 0.01
"""Views whose residuals are larger, as a share of the picture's width, do not fit at all."""
LEAST_TURN_DEG = 1.0
ROUNDS = 20
LEAST_PX = 0.02
LEVER_M = 0.5
"""An arm that is inaccurate by 1 mm is taken to be inaccurate by 1 mm / 0.5 m in its turn."""
_STEP_M = 1e-5
_BEHIND_M = 1e-3


@dataclass(frozen=True, eq=False)
class Fit:
    """A fit of X and Z, see `hand_eye`.

    Attributes:
        X, Z: (4, 4) poses, m.
        lens: of the camera.
        scale: of the board's size, 1 unless it was left free.
    """

    X: Poses
    Z: Poses
    lens: Lens
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Solution(Fit):
    """The best fit.

    Attributes:
        residuals_px: (N,) root mean square over each view's corners, those left out included.
        used: bool (N,), views that the fit rests on.
    """

    residuals_px: NDArray[np.float64] = field(kw_only=True)
    used: NDArray[np.bool_] = field(kw_only=True)

    @property
    def rms_px(self) -> float:
        """Root mean square over the views that are used."""
        return float(np.sqrt(np.mean(self.residuals_px[self.used] ** 2)))


@dataclass(frozen=True)
class Free:
    """What is estimated besides X and Z.

    Attributes:
        lens: intrinsics, and distortion where the lens has any. The arm knows distances, which a board alone seen
            by a lens unknown does not tell well.
        scale: size of the board.
    """

    lens: bool = False
    scale: bool = False


@dataclass(frozen=True)
class Noise:
    """Standard deviations.

    Attributes:
        corner_px: of a corner's u and v.
        arm_m: of each coordinate of the tip; its turn scatters by so much at `LEVER_M`.
    """

    corner_px: float
    arm_m: float


class Problem:
    """Views of one camera, ready to be fitted.

    Args:
        board: what is seen.
        views: N of them.
        lens: of the camera, or a first guess of it.
        mount: where the camera is.
    """

    def __init__(self, board: Board, views: Sequence[View], lens: Lens, mount: Mount) -> None:
        self.lens = lens
        self._mount = mount
        self.A = arm_poses(np.stack([np.asarray(view.T_base_tip, float) for view in views]), mount)
        self._inverse_A = inverse(self.A)
        self._points = [board.points[view.corners.ids] for view in views]
        self._pixels = [view.corners.pixels for view in views]
        self.B = self.board_poses(lens)

    def __len__(self) -> int:
        return len(self.A)

    def board_poses(self, lens: Lens, near: Poses | None = None) -> Poses:
        """(N, 4, 4) pose of the board in the camera's frame, each from its view alone.

        A board seen from afar has two possible poses: the one that fits better is taken, or the one like `near`.
        """
        return np.stack(
            [
                _board_pose(
                    self._points[view],
                    lens.straighten(self._pixels[view]),
                    lens.K,
                    None if near is None else near[view],
                )
                for view in range(len(self))
            ]
        )

    def predicted(self, fit: Fit) -> Poses:
        """(N, 4, 4) pose of the board in the camera's frame, as a fit has it."""
        return inverse(fit.X) @ self._inverse_A @ fit.Z

    def errors(self, fit: Fit, views: Sequence[int]) -> list[NDArray[np.float64]]:
        """Reprojection errors (M, 2) in px of the corners of each of these views."""
        poses = self.predicted(fit)[list(views)]
        counts = [len(self._points[view]) for view in views]
        owner = np.repeat(np.arange(len(counts)), counts)
        points = np.concatenate([self._points[view] for view in views])
        points = fit.scale * np.einsum("nij,nj->ni", poses[owner, :3, :3], points) + poses[owner, :3, 3]
        seen = fit.lens.bend(points[:, :2] / np.maximum(points[:, 2:], _BEHIND_M))
        wanted = np.concatenate([self._pixels[view] for view in views])
        return np.split(seen - wanted, np.cumsum(counts)[:-1])

    def _errors(self, fit: Fit, pose: Poses, view: int) -> NDArray[np.float64]:
        points = self._points[view] @ (fit.scale * pose[:3, :3].T) + pose[:3, 3]
        return fit.lens.bend(points[:, :2] / np.maximum(points[:, 2:], _BEHIND_M)) - self._pixels[view]

    def residuals(self, fit: Fit) -> NDArray[np.float64]:
        """(N,) root mean square over each view's corners, px."""
        return np.array([np.sqrt((errors**2).sum(axis=1).mean()) for errors in self.errors(fit, range(len(self)))])

    def noise(self, fit: Fit, used: NDArray[np.bool_]) -> Noise:
        """How much corners and arm scatter, by maximum likelihood, given a fit to the views `used`."""
        views = np.flatnonzero(used).tolist()
        free = self.board_poses(fit.lens, self.predicted(fit))
        squares = sum(float((self._errors(replace(fit, scale=1.0), free[view], view) ** 2).sum()) for view in views)
        corner_px = max(float(np.sqrt(squares / sum(2 * len(self._points[view]) - 6 for view in views))), LEAST_PX)
        parts = [self._sway(fit, view) for view in views]
        gains = np.concatenate([gain for _, gain in parts])
        errors = self.errors(fit, views)
        seen = np.concatenate([U.T @ error.ravel() for (U, _), error in zip(parts, errors, strict=True)])
        candidates = np.geomspace(1e-5, 2e-2, 120)
        variances = corner_px**2 + candidates[:, None] ** 2 * gains
        likelihoods = -(np.log(variances) + seen**2 / variances).sum(axis=1)
        return Noise(corner_px, float(candidates[int(likelihoods.argmax())]))

    def _sway(self, fit: Fit, view: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Directions (2 M, 6) in which errors of the arm's pose move a view's corners together, and the squares (6,)
        of how far, px a metre of the arm's error; a turn counts by what it moves at `LEVER_M`."""
        X_inverse, columns = inverse(fit.X), []
        before = self._errors(fit, X_inverse @ self._inverse_A[view] @ fit.Z, view).ravel()
        for axis in range(6):
            step = np.zeros(6)
            step[axis] = _STEP_M / LEVER_M if axis < 3 else _STEP_M
            sway = _moved(np.eye(4), step)
            middle = self._inverse_A[view] @ sway if self._mount == "cell" else sway @ self._inverse_A[view]
            columns.append((self._errors(fit, X_inverse @ middle @ fit.Z, view).ravel() - before) / _STEP_M)
        U, singular, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=False)
        return U, singular**2

    def _whitened(self, fit: Fit, views: Sequence[int], noise: Noise) -> list[NDArray[np.float64]]:
        """Matrices (2 M, 2 M) that turn each view's errors into independent ones of variance 1."""
        matrices = []
        for view in views:
            U, gains = self._sway(fit, view)
            shrink = 1 - noise.corner_px / np.sqrt(noise.corner_px**2 + noise.arm_m**2 * gains)
            matrices.append((np.eye(len(U)) - (U * shrink) @ U.T) / noise.corner_px)
        return matrices

    def refine(self, guess: Fit, used: NDArray[np.bool_], free: Free, noise: Noise | None = None) -> Solution:
        """Least squares of the reprojection errors of the views `used`, from a first guess.

        With `noise`, errors that the arm's inaccuracy explains count less than those that contradict each other
        within one picture: how far lens and arm are believed follows from how well they agree.
        """
        views = np.flatnonzero(used).tolist()
        weights = [] if noise is None else self._whitened(guess, views, noise)
        steps = _Steps(guess, free)
        best = least_squares(
            lambda p: np.concatenate(self._weighted(steps.at(p), views, weights)),
            np.zeros(steps.size),
            method="lm",
            max_nfev=1000,
        )
        fit = steps.at(best.x)
        return Solution(fit.X, fit.Z, fit.lens, fit.scale, residuals_px=self.residuals(fit), used=used)

    def _weighted(
        self, fit: Fit, views: Sequence[int], weights: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        errors = [error.ravel() for error in self.errors(fit, views)]
        return [W @ error for W, error in zip(weights, errors, strict=True)] if weights else errors

    def leaving_one_out(self, solution: Solution, free: Free, noise: Noise) -> dict[int, Fit]:
        """The fit without each of the used views, by one Gauss-Newton step from the fit with all."""
        views = np.flatnonzero(solution.used).tolist()
        weights = self._whitened(solution, views, noise)
        steps = _Steps(solution, free)
        errors = self._weighted(solution, views, weights)
        columns = []
        for axis in np.eye(steps.size) * _STEP_M:
            moved = zip(
                self._weighted(steps.at(axis), views, weights),
                self._weighted(steps.at(-axis), views, weights),
                strict=True,
            )
            columns.append([(forth - back) / (2 * _STEP_M) for forth, back in moved])
        J = [np.stack([column[number] for column in columns], axis=1) for number in range(len(views))]
        squares = [part.T @ part for part in J]
        gradients = [part.T @ error for part, error in zip(J, errors, strict=True)]
        all_squares, gradient = np.sum(squares, axis=0), np.sum(gradients, axis=0)
        fits = {}
        for number, view in enumerate(views):
            left = np.linalg.lstsq(all_squares - squares[number], gradients[number] - gradient, rcond=None)[0]
            fits[view] = steps.at(left)
        return fits

    def solve(self, free: Free) -> Solution | None:
        """The best fit and the views it rests on, None where fewer than three in five fit together.

        Closed solutions of small random sets of views are tried, so that wrong views do not spoil the first guess.
        """
        rng = np.random.default_rng(0)
        size = min(HYPOTHESIS_VIEWS, len(self))
        subsets = [np.arange(len(self))]
        subsets += [rng.choice(len(self), size, replace=False) for _ in range(HYPOTHESES)]
        guesses = [
            guess
            for subset in subsets
            for scaled in ((False, True) if free.scale else (False,))
            if (guess := _guess(self.A[subset], self.B[subset], self.lens, scaled)) is not None
        ]
        if not guesses:
            return None
        residuals = [self.residuals(guess) for guess in guesses]
        best = int(np.argmin([np.median(each) for each in residuals]))
        used = agreeing(residuals[best])
        fit = self.refine(guesses[best], used, free)
        for _ in range(ROUNDS):
            before, used = used, agreeing(fit.residuals_px)
            if used.sum() < max(LEAST_USED, AGREEING * len(self)):
                return None
            if (used == before).all():
                break
            fit = self.refine(fit, used, free)
        return fit if np.median(fit.residuals_px) < WORST * self.lens.size[0] else None

    def closed(self, B: Poses, used: NDArray[np.bool_]) -> dict[str, Poses]:
        """X by each closed method from the board's poses (N, 4, 4) in the views `used`; without those that fail."""
        found = {}
        for name, method in METHODS.items():
            try:
                found[name] = method(self.A[used], B[used])
            except np.linalg.LinAlgError:
                continue
        return found


def agreeing(residuals_px: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool (N,): views that do not stand out among the others."""
    return residuals_px <= max(OUTLIER * float(np.median(residuals_px)), FIT_PX)


def turn_diversity_deg(A: Poses) -> float:
    """How much the arm turned about a second axis, root mean square over all pairs of views, degrees.

    Turns about a single axis, however many, leave the camera's position along that axis open.
    """
    if len(A) < 3:
        return 0.0
    turns = relative_turns(A)
    spread = np.linalg.svd(turns, compute_uv=False) / np.sqrt(len(turns))
    return float(np.degrees(spread[1]))


def difference(a: Poses, b: Poses) -> tuple[float, float]:
    """Distance in mm and angle in degrees between two poses (4, 4)."""
    turn = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude()
    return float(1000 * np.linalg.norm(a[:3, 3] - b[:3, 3])), float(np.degrees(turn))


class _Steps:
    """Small moves of a fit as vectors of `size` numbers."""

    def __init__(self, fit: Fit, free: Free) -> None:
        self._fit, self._free = fit, free
        self.size = 12 + free.scale + (4 + len(fit.lens.coefficients) if free.lens else 0)

    def at(self, p: NDArray[np.float64]) -> Fit:
        """The fit moved by p (size,)."""
        scale, lens, rest = self._fit.scale, self._fit.lens, p[12:]
        if self._free.scale:
            scale, rest = scale * float(np.exp(rest[0])), rest[1:]
        if self._free.lens:
            lens = lens.moved(rest[:4], rest[4:])
        return Fit(_moved(self._fit.X, p[:6]), _moved(self._fit.Z, p[6:12]), lens, scale)


def _moved(T: Poses, step: NDArray[np.float64]) -> Poses:
    moved = T.copy()
    moved[:3, :3] = Rotation.from_rotvec(step[:3]).as_matrix() @ T[:3, :3]
    moved[:3, 3] += step[3:]
    return moved


def _guess(A: Poses, B: Poses, lens: Lens, scaled: bool) -> Fit | None:
    """A fit by Park and Martin, with the board's scale where asked for; None where the views do not determine it."""
    if turn_diversity_deg(A) < LEAST_TURN_DEG:
        return None
    try:
        X, scale = METHODS["park_martin"](A, B), 1.0
        if scaled:
            X, scale = _scaled(X[:3, :3], A, B)
    except np.linalg.LinAlgError:
        return None
    if not scale > 0:
        return None
    B = B.copy()
    B[:, :3, 3] *= scale
    seen = A @ X @ B
    Z = np.eye(4)
    Z[:3, :3] = Rotation.from_matrix(seen[:, :3, :3]).mean().as_matrix()
    Z[:3, 3] = np.median(seen[:, :3, 3], axis=0)
    return Fit(X, Z, lens, scale)


def _scaled(R: NDArray[np.float64], A: Poses, B: Poses) -> tuple[Poses, float]:
    """X with the rotation R, and by how much the board is larger than thought.

    The board's pose stays where it is in the picture when board and distance grow alike.
    """
    count = len(A)
    left = np.zeros((3 * count, 7))
    left[:, :3] = A[:, :3, :3].reshape(-1, 3)
    left[:, 3] = (A[:, :3, :3] @ R @ B[:, :3, 3:]).ravel()
    left[:, 4:] = np.tile(-np.eye(3), (count, 1))
    solution, _, rank, _ = np.linalg.lstsq(left, -A[:, :3, 3].ravel(), rcond=1e-6)
    if rank < 7:
        raise np.linalg.LinAlgError("the poses do not determine the board's size")
    X = np.eye(4)
    X[:3, :3], X[:3, 3] = R, solution[:3]
    return X, float(solution[3])


def _board_pose(
    points: NDArray[np.float64], pixels: NDArray[np.float64], K: NDArray[np.float64], near: Poses | None = None
) -> Poses:
    """Pose (4, 4) of the board in the camera's frame; of two that are possible the better, or the one at `near`."""
    cv2 = opencv()
    # The method wants the points about the origin, else it loses digits.
    middle = points.mean(axis=0)
    _, turns, shifts, errors = cv2.solvePnPGeneric(points - middle, pixels, K, None, flags=cv2.SOLVEPNP_IPPE)
    poses = []
    for turn, shift in zip(turns, shifts, strict=True):
        turn, shift = cv2.solvePnPRefineLM(points - middle, pixels, K, None, turn, shift)
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec(np.ravel(turn)).as_matrix()
        pose[:3, 3] = np.ravel(shift) - pose[:3, :3] @ middle
        poses.append(pose)
    if near is None:
        return poses[int(np.argmin(np.ravel(errors)))]
    turned = [difference(pose, near)[1] for pose in poses]
    return poses[int(np.argmin(turned))]

"""Closed solutions of the hand-eye equation, by three methods that fail differently.

Both ways to mount a camera are one equation, A_i X B_i = Z for every view i, where B_i is the board's pose in the
camera's frame:

    camera on the wrist   A_i = T_base_tip   X = T_tip_camera    Z = T_base_board
    camera in the cell    A_i = T_tip_base   X = T_base_camera   Z = T_tip_board

OpenCV 5 no longer offers its hand-eye functions to Python; these are the same methods.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Mount = Literal["cell", "wrist"]
Poses = NDArray[np.float64]
"""(N, 4, 4), or (4, 4)."""


def inverse(T: Poses) -> Poses:
    """Inverse of poses (…, 4, 4)."""
    turned = np.swapaxes(T[..., :3, :3], -1, -2)
    result = np.zeros_like(T)
    result[..., :3, :3] = turned
    result[..., :3, 3] = -(turned @ T[..., :3, 3:])[..., 0]
    result[..., 3, 3] = 1.0
    return result


def arm_poses(T_base_tip: Poses, mount: Mount) -> Poses:
    """A_i of the equation from tip poses (N, 4, 4)."""
    return T_base_tip if mount == "wrist" else inverse(T_base_tip)


def relative_turns(A: Poses) -> NDArray[np.float64]:
    """(P, 3) rotation vectors between all pairs of poses, rad."""
    first, second = (list(numbers) for numbers in zip(*combinations(range(len(A)), 2), strict=True))
    return Rotation.from_matrix(np.swapaxes(A[second, :3, :3], 1, 2) @ A[first, :3, :3]).as_rotvec()


def park_martin(A: Poses, B: Poses) -> Poses:
    """X by Park and Martin (1994): the rotation from rotation vectors of all pairs, then the translation.

    Raises:
        numpy.linalg.LinAlgError: the poses do not determine it.
    """
    pairs_a, pairs_b = _pairs(A, B)
    turns_a, turns_b = (Rotation.from_matrix(T[:, :3, :3]).as_rotvec() for T in (pairs_a, pairs_b))
    U, _, Vt = np.linalg.svd(turns_a.T @ turns_b)
    R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    return _with_translation(R, pairs_a, pairs_b)


def daniilidis(A: Poses, B: Poses) -> Poses:
    """X by Daniilidis (1999): rotation and translation at once, as a dual quaternion.

    Raises:
        numpy.linalg.LinAlgError: the poses do not determine it.
    """
    pairs_a, pairs_b = _pairs(A, B)
    rows = []
    for T_a, T_b in zip(pairs_a, pairs_b, strict=True):
        (a, a_dual), (b, b_dual) = _dual_quaternion(T_a), _dual_quaternion(T_b)
        rows.append(np.hstack([(a - b)[:3, None], _cross((a + b)[:3]), np.zeros((3, 4))]))
        rows.append(
            np.hstack(
                [(a_dual - b_dual)[:3, None], _cross((a_dual + b_dual)[:3]), (a - b)[:3, None], _cross((a + b)[:3])]
            )
        )
    _, _, Vt = np.linalg.svd(np.vstack(rows), full_matrices=True)
    v1, v2 = Vt[-2], Vt[-1]
    # Of the two-dimensional kernel the member that is a unit dual quaternion.
    p = np.array([v1[:4] @ v1[4:], v1[:4] @ v2[4:] + v2[:4] @ v1[4:], v2[:4] @ v2[4:]])
    best, length = np.zeros(8), 0.0
    for ratio in _roots(p):
        q = ratio[0] * v1 + ratio[1] * v2
        norm = float(np.linalg.norm(q[:4]))
        if norm > length:
            best, length = q / norm, norm
    if length < 1e-9:
        raise np.linalg.LinAlgError("no unit dual quaternion")
    w, x, y, z = best[:4]
    X = np.eye(4)
    X[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    dual = best[4:]
    vector = np.array([x, y, z])
    X[:3, 3] = 2 * (w * dual[1:] - dual[0] * vector + np.cross(vector, dual[1:]))
    return X


def shah(A: Poses, B: Poses) -> Poses:
    """X by Shah (2013), with Z at once: the robot-world form, from the poses themselves instead of pairs.

    Raises:
        numpy.linalg.LinAlgError: the poses do not determine it.
    """
    # R_A R_X R_B = R_Z, with vec by rows (R_A ⊗ R_Bᵀ) vec(R_X) = vec(R_Z): the same for all views.
    K = np.sum([np.kron(a, b.T) for a, b in zip(A[:, :3, :3], B[:, :3, :3], strict=True)], axis=0)
    _, _, Vt = np.linalg.svd(K)
    R = _nearest_rotation(Vt[0].reshape(3, 3))
    # R_A t_X + t_A + R_A R_X t_B = t_Z
    left = np.concatenate([np.hstack([a, -np.eye(3)]) for a in A[:, :3, :3]])
    right = np.concatenate([-a[:3, 3] - a[:3, :3] @ R @ b[:3, 3] for a, b in zip(A, B, strict=True)])
    solution, _, rank, _ = np.linalg.lstsq(left, right, rcond=1e-6)
    if rank < 6:
        raise np.linalg.LinAlgError("the poses do not determine the translation")
    X = np.eye(4)
    X[:3, :3], X[:3, 3] = R, solution[:3]
    return X


METHODS: dict[str, Callable[[Poses, Poses], Poses]] = {
    "park_martin": park_martin,
    "daniilidis": daniilidis,
    "shah": shah,
}


def _pairs(A: Poses, B: Poses) -> tuple[Poses, Poses]:
    """Motions of all pairs of views, such that A X = X B."""
    first, second = (list(numbers) for numbers in zip(*combinations(range(len(A)), 2), strict=True))
    return inverse(A[second]) @ A[first], B[second] @ inverse(B[first])


def _with_translation(R: NDArray[np.float64], pairs_a: Poses, pairs_b: Poses) -> Poses:
    left = np.concatenate(pairs_a[:, :3, :3] - np.eye(3))
    right = np.concatenate(pairs_b[:, :3, 3] @ R.T - pairs_a[:, :3, 3])
    t, _, rank, _ = np.linalg.lstsq(left, right, rcond=1e-6)
    if rank < 3:
        raise np.linalg.LinAlgError("the poses do not determine the translation")
    X = np.eye(4)
    X[:3, :3], X[:3, 3] = R, t
    return X


def _dual_quaternion(T: Poses) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vector parts first (x, y, z, w) of the real and the dual part; w of the real part is at least 0."""
    q = Rotation.from_matrix(T[:3, :3]).as_quat(canonical=True)
    vector, w, t = q[:3], q[3], T[:3, 3]
    return q, 0.5 * np.append(w * t + np.cross(t, vector), -t @ vector)


def _cross(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


def _roots(p: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Ratios (λ, μ) with p0 λ² + p1 λμ + p2 μ² = 0; of complex ones, which noise brings, the real part."""
    if abs(p[0]) < 1e-12 * np.abs(p).max():
        return [(1.0, 0.0), (-float(p[2]), float(p[1]))]
    return [(float(root.real), 1.0) for root in np.roots(p)]


def _nearest_rotation(M: NDArray[np.float64]) -> NDArray[np.float64]:
    M = M * np.sign(np.linalg.det(M))
    U, _, Vt = np.linalg.svd(M)
    return np.asarray(U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt)

"""Inverse kinematics by damped least squares, with limits and a preferred posture in the null space.

Buss, "Introduction to inverse kinematics with Jacobian transpose, pseudoinverse and damped least
squares methods", 2004; joints that reach a limit are held there and the rest solved again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pinocchio as pin

from embodied_vision.control.limits import Vector
from embodied_vision.errors import Refused
from embodied_vision.types import FloatArray

if TYPE_CHECKING:
    from embodied_vision.control.robot import Matrix, RobotModel

TOLERANCE = 1e-6
MARGIN_RAD = 0.01
MAX_STEP_RAD = 0.4
RESTARTS = 4


def pose_error(pose: Matrix, goal: FloatArray, free_spin: bool) -> Vector:
    """Twist (6,), or (5,) with free spin, in the tip's frame that leads from one pose to the other."""
    rotation = pose[:3, :3].T
    linear = rotation @ (goal[:3, 3] - pose[:3, 3])
    if not free_spin:
        return np.concatenate([linear, pin.log3(rotation @ goal[:3, :3])])
    axis = rotation @ goal[:3, 2]
    sine = np.hypot(axis[0], axis[1])
    angle = np.arctan2(sine, axis[2])
    direction = np.array([-axis[1], axis[0]]) / sine if sine > 1e-12 else np.array([1.0, 0.0])
    return np.concatenate([linear, angle * direction])


def _step(J: Matrix, error: Vector, pull: Vector, weights: Vector, low: Vector, high: Vector) -> Vector:
    """Joint step (J,) within [low, high] towards the pose, then, without disturbing it, by `pull` to the posture."""
    step = np.zeros(J.shape[1])
    free = np.ones(J.shape[1], bool)
    damping = 1e-9 + 1e-2 * float(error @ error)
    remaining = error
    for _ in range(J.shape[1]):
        U, S, Vt = np.linalg.svd(J[:, free])
        rank = len(S)
        move = Vt[:rank].T @ (S / (S * S + damping) * (U[:, :rank].T @ remaining))
        null = Vt[rank:].T
        if null.shape[1]:
            A = weights[free, None] * null
            b = weights[free] * (pull[free] - move)
            move = move + null @ np.linalg.solve(A.T @ A + 1e-4 * np.eye(null.shape[1]), A.T @ b)
        move *= min(1.0, MAX_STEP_RAD / max(float(np.abs(move).max()), 1e-12))
        step[free] = move
        over = free & ((step < low) | (step > high))
        if not over.any():
            break
        step[over] = np.clip(step[over], low[over], high[over])
        free &= ~over
        remaining = error - J[:, ~free] @ step[~free]
        if not free.any():
            break
    return step


def descend(
    model: RobotModel,
    goal: FloatArray,
    seed: Vector,
    posture: Vector,
    weights: Vector,
    *,
    free_spin: bool,
    iterations: int,
) -> Vector | None:
    """Nearest solution (J,) that iterations from the seed lead to, or None."""
    lower, upper = model.limits.lower + MARGIN_RAD, model.limits.upper - MARGIN_RAD
    q = np.clip(seed, lower, upper)
    rows = 5 if free_spin else 6
    best, stalled = np.inf, 0
    solution: Vector | None = None
    for _ in range(iterations):
        error = pose_error(model.forward(q), goal, free_spin)
        size = float(np.abs(error).max())
        if size < TOLERANCE:
            solution = q
        stalled = 0 if size < 0.9 * best else stalled + 1
        best = min(best, size)
        if stalled > 12 and solution is None:
            return None
        step = _step(model.jacobian(q)[:rows], error, posture - q, weights, lower - q, upper - q)
        if solution is not None and float(np.abs(step).max()) < 1e-5:
            break
        q = q + step
    return solution


def _seeds(model: RobotModel, goal: FloatArray, seed: Vector) -> list[Vector]:
    """The seed itself, home turned towards the goal, and a few fixed positions about home."""
    at_home = model.forward(model.home)
    aimed = model.home.copy()
    aimed[0] += np.arctan2(goal[1, 3], goal[0, 3]) - np.arctan2(at_home[1, 3], at_home[0, 3])
    rng = np.random.default_rng(0)
    spread = rng.uniform(model.limits.lower, model.limits.upper, (RESTARTS, len(model.home)))
    return [seed, aimed, *(0.5 * aimed + 0.5 * spread)]


def solve_pose(model: RobotModel, goal: FloatArray, seed: Vector, *, free_spin: bool = False) -> Vector:
    """Joint position (J,) at the tip pose (4, 4); with `free_spin` at any angle about the tool's axis.

    Args:
        model: the arm.
        goal: tip pose in the base frame.
        seed: where to continue from, (J,).
        free_spin: leave the angle about the tool's axis open.

    Raises:
        Refused: rule `unreachable`.
    """
    weights = model.posture.copy()
    if free_spin:
        weights[-1] = 1.0
    for start in _seeds(model, goal, seed):
        q = descend(model, goal, start, model.home, weights, free_spin=free_spin, iterations=60)
        if q is not None:
            return q
    q = descend(model, goal, seed, seed, np.zeros_like(weights), free_spin=free_spin, iterations=60)
    if q is not None:
        return q
    raise unreachable("tip pose", goal, model)


def unreachable(where: str, goal: FloatArray, model: RobotModel) -> Refused:
    """The refusal of a tip pose that the arm cannot take."""
    x, y, z = (round(float(v), 4) for v in goal[:3, 3])
    remedy = "choose a pose nearer to the middle of the arm's working range"
    if len(model.joint_names) < 6:
        remedy += (
            f"; with {len(model.joint_names)} joints the tool can only lean towards the base's axis or away from it"
        )
    return Refused("unreachable", where, f"x {x}, y {y}, z {z} m", f"joint limits of {model.name}", remedy)

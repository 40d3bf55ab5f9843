"""Following a tip pose in small steps: differential inverse kinematics within the joint limits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.inverse import pose_error
from embodied_vision.control.limits import Vector
from embodied_vision.control.robot import RobotModel
from embodied_vision.types import FloatArray

ITERATIONS, TOLERANCE, DAMPING = 4, 1e-4, 1e-4
MARGIN_RAD, VELOCITY_SHARE = 0.01, 0.75
POSTURE_GAIN = 0.1


def step_towards(model: RobotModel, q: Vector, goal: FloatArray, seconds: float) -> tuple[Vector, bool]:
    """Joint position (J,) to be at after `seconds`, near q (J,), with the tip as near to a pose (4, 4) as can be.

    Every joint keeps within its position limits and 75 % of its speed limit; freedom that the pose leaves draws
    joints to the model's preferred posture (Buss 2004, damped least squares).

    Returns:
        The position, and whether the tip gets there.
    """
    lower, upper = model.limits.lower + MARGIN_RAD, model.limits.upper - MARGIN_RAD
    farthest = VELOCITY_SHARE * model.limits.velocity * seconds
    low, high = np.maximum(lower, q - farthest), np.minimum(upper, q + farthest)
    low, high = np.minimum(low, q), np.maximum(high, q)
    reached = np.asarray(q, float)
    for _ in range(ITERATIONS):
        error = pose_error(model.forward(reached), goal, free_spin=False)
        if float(np.abs(error).max()) < TOLERANCE:
            return reached, True
        reached = np.clip(reached + _move(model, reached, error), low, high)
    error = pose_error(model.forward(reached), goal, free_spin=False)
    return reached, bool(float(np.abs(error).max()) < TOLERANCE)


def _move(model: RobotModel, q: Vector, error: NDArray[np.float64]) -> Vector:
    J = model.jacobian(q)
    inverse = J.T @ np.linalg.inv(J @ J.T + DAMPING * np.eye(6))
    pull = POSTURE_GAIN * model.posture * (model.home - q)
    return np.asarray(inverse @ error + pull - inverse @ (J @ pull))

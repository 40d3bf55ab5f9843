"""Rounds what enters the physics, far finer than matters.

Mathematical libraries differ in the last bit between processors, and contacts make that bit grow. Poses and joint
targets that are the same after rounding make the same episode, bit for bit, on any of them. Steps are powers of two,
since decimal ones would have limits and other round figures lie halfway between two of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

POSE_STEP = 2.0**-30
"""Of lengths in m and of quaternions: a nanometre."""
JOINT_STEP, VELOCITY_STEP = 2.0**-20, 2.0**-13
"""Of joint positions in rad and velocities in rad/s: finer than an encoder counts."""


def rounded(values: ArrayLike, step: float = POSE_STEP) -> NDArray[np.float64]:
    """Values of any shape as multiples of a step, without negative zeros."""
    result: NDArray[np.float64] = np.round(np.asarray(values, np.float64) / step) * step + 0.0
    return result

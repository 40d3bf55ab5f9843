"""From logits to numbers finer than the grid: soft-argmax around the mode."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float64]


def softmax(logits: FloatMap) -> FloatMap:
    """Probabilities over all entries."""
    weights: FloatMap = np.exp(logits - logits.max())
    return weights / weights.sum()


def peak(probability: FloatMap, reach: int = 2) -> NDArray[np.float64]:
    """(2,) fractional index of the mode: the mean of the square of `reach` cells around the largest entry."""
    i, j = (int(k) for k in np.unravel_index(int(probability.argmax()), probability.shape))
    rows = np.arange(max(i - reach, 0), min(i + reach + 1, probability.shape[0]))
    columns = np.arange(max(j - reach, 0), min(j + reach + 1, probability.shape[1]))
    area = probability[np.ix_(rows, columns)]
    return np.array([area.sum(1) @ rows, area.sum(0) @ columns]) / area.sum()


def place_and_yaw(logits: FloatMap, reach: int = 2) -> tuple[NDArray[np.float64], float, float]:
    """Decode the fine stage.

    The place is found first, over all rotations together, so that an object whose yaw does not matter, and whose
    probability is spread over all yaws, still has one sharp place.

    Args:
        logits: (R, W, W) for rotation bins over 360° and places.
        reach: cells and bins around the mode that are averaged.

    Returns:
        (2,) fractional index of the place, yaw in rad in (−π, π], probability within `reach` of the place.
    """
    bins = logits.shape[0]
    probability = softmax(logits)
    marginal = probability.sum(0)
    place = peak(marginal, reach)
    i, j = (int(k) for k in np.unravel_index(int(marginal.argmax()), marginal.shape))
    near = probability[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].sum((1, 2))
    best = int(near.argmax())
    around = np.arange(-reach, reach + 1)
    weights = near[(best + around) % bins]
    turn = 2 * math.pi / bins * (best + float(weights @ around) / float(weights.sum()))
    yaw = -((math.pi - turn) % (2 * math.pi) - math.pi)
    confidence = marginal[max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1].sum()
    return place, yaw, float(confidence)

"""From logits to numbers finer than the grid: soft-argmax around the mode."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatMap = NDArray[np.float64]


def softmax(logits: FloatMap) -> FloatMap:
    """Probabilities over all entries."""
    weights: FloatMap = np.exp(logits - logits.max())
    return weights / weights.sum()


def modes(probability: FloatMap, most: int, apart: int, least: float) -> list[NDArray[np.int_]]:
    """Indices (2,) of the largest entries in order, each more than `apart` cells from those before in row or column.

    Args:
        probability: (h, w).
        most: how many at most.
        apart: half the edge of the square around an entry in which no further one is taken.
        least: an entry with a smaller share of the largest one is left out.
    """
    left = probability.copy()
    found: list[NDArray[np.int_]] = []
    while len(found) < most:
        i, j = (int(k) for k in np.unravel_index(int(left.argmax()), left.shape))
        if left[i, j] <= least * probability.max() and found:
            break
        found.append(np.array([i, j]))
        left[max(i - apart, 0) : i + apart + 1, max(j - apart, 0) : j + apart + 1] = -1.0
    return found


def log_between(probability: FloatMap, cells: FloatMap, least: float = 1e-9) -> FloatMap:
    """Logarithm of a probability (h, w), at least of `least`, at fractional indices (…, 2), linear between cells."""
    logarithm: FloatMap = np.log(np.maximum(probability, least))
    between: FloatMap = ndimage.map_coordinates(logarithm, np.moveaxis(cells, -1, 0), order=1, mode="nearest")
    return between


def peak(probability: FloatMap, reach: int = 2) -> NDArray[np.float64]:
    """(2,) fractional index of the mode: the mean of the square of `reach` cells around the largest entry."""
    mode = np.array(np.unravel_index(int(probability.argmax()), probability.shape))
    return peak_at(probability, mode, reach)


def peak_at(probability: FloatMap, mode: NDArray[np.int_], reach: int) -> NDArray[np.float64]:
    """(2,) fractional index: the mean of the square of `reach` cells around a mode."""
    i, j = (int(k) for k in mode)
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

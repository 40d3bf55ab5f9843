"""Read-outs that are fitted in closed form: ridge regression, and votes of the nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.types import FloatArray

RIDGE = 1e-3
"""Penalty as a share of the number of samples, where there are many more of these than features."""
PENALTIES = tuple(10.0**power for power in range(-3, 4))
"""Those that leave-one-out chooses among, as shares of the number of samples."""
NEIGHBOURS = 10
BANK = 4000
"""Most samples that neighbours are looked for among."""
_BLOCK = 2000
_TINY = 1e-9


def ridge(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Closed-form ridge regression of y (N, K) on standardised x (N, D): matrix (D, K) and offset (K,)."""
    mean, deviation = x.mean(0), x.std(0) + _TINY
    z = (x - mean) / deviation
    slope = np.linalg.solve(z.T @ z + RIDGE * len(x) * np.eye(x.shape[1]), z.T @ (y - y.mean(0)))
    slope = slope / deviation[:, None]
    return slope, y.mean(0) - mean @ slope


def ridge_left_out(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`ridge` with the penalty of `PENALTIES` whose predictions of left-out samples are best, for few samples.

    All leave-one-out errors follow from one decomposition (Allen's PRESS, 1974).
    """
    mean, deviation, middle = x.mean(0), x.std(0) + _TINY, y.mean(0)
    left, singular, right = np.linalg.svd((x - mean) / deviation, full_matrices=False)
    projected = left.T @ (y - middle)
    best, slope = np.inf, np.zeros((x.shape[1], y.shape[1]))
    for penalty in PENALTIES:
        kept = singular**2 / (singular**2 + penalty * len(x))
        leverage = np.square(left) @ kept + 1 / len(x)
        residual = (y - middle - left @ (kept[:, None] * projected)) / (1 - np.minimum(leverage, 1 - _TINY))[:, None]
        error = float(np.square(residual).sum())
        if error < best:
            best = error
            slope = right.T @ ((kept / np.maximum(singular, _TINY))[:, None] * projected)
    slope = slope / deviation[:, None]
    return slope, middle - mean @ slope


def balanced_ridge(x: FloatArray, kind: NDArray[np.int64], kinds: int) -> tuple[FloatArray, FloatArray]:
    """Ridge regression on one-hot kinds (N,), each counting alike: matrix (D, kinds) and offset (kinds,).

    The kind with the largest output is the answer.
    """
    one_hot = np.eye(kinds)[kind]
    weight = np.sqrt(1 / one_hot.sum(0).clip(min=1))[kind][:, None]
    mean, deviation = x.mean(0), x.std(0) + _TINY
    z = np.concatenate([(x - mean) / deviation, np.ones((len(x), 1))], axis=1) * weight
    penalty = RIDGE * float((weight**2).sum()) * np.eye(z.shape[1])
    penalty[-1, -1] = 0
    solution = np.linalg.solve(z.T @ z + penalty, z.T @ (one_hot * weight))
    slope = solution[:-1] / deviation[:, None]
    return slope, solution[-1] - mean @ slope


class Neighbours:
    """The most similar of up to `BANK` samples, by the cosine of standardised features (Caron et al., DINO, 2021).

    Args:
        x: (N, D) features.
        seed: of the samples that are kept where there are more.
    """

    def __init__(self, x: FloatArray, seed: int) -> None:
        self._mean, self._deviation = x.mean(0), x.std(0) + _TINY
        self.kept = np.random.default_rng(seed).permutation(len(x))[:BANK]
        self._bank = self._unit(x[self.kept])

    def _unit(self, x: FloatArray) -> FloatArray:
        z = (x - self._mean) / self._deviation
        return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), _TINY)

    def of(self, x: FloatArray) -> NDArray[np.int64]:
        """Indices (N, k) into the first samples of the nearest ones of each of x (N, D), nearest first."""
        count = min(NEIGHBOURS, len(self.kept))
        found = []
        for start in range(0, len(x), _BLOCK):
            likeness = self._unit(x[start : start + _BLOCK]) @ self._bank.T
            near = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
            order = np.take_along_axis(-likeness, near, 1).argsort(1, kind="stable")
            found.append(self.kept[np.take_along_axis(near, order, 1)])
        return np.concatenate(found) if found else np.empty((0, count), np.int64)


def vote(kind: NDArray[np.int64], neighbours: NDArray[np.int64], kinds: int) -> NDArray[np.int64]:
    """The kind (N,) that most of the neighbours (N, k) have; of several the one of the nearest among them."""
    named = kind[neighbours]
    counts = np.zeros((len(named), kinds))
    np.add.at(counts, (np.arange(len(named))[:, None], named), 1.0)
    most = np.take_along_axis(counts, named, 1) == counts.max(1, keepdims=True)
    return np.take_along_axis(named, most.argmax(1)[:, None], 1)[:, 0]

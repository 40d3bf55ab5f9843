"""Statistics of features as LeRobot keeps them, by episode and over all, for the normalisation of policies.

Quantiles are exact within an episode and averaged over episodes, as in lerobot, which takes those of an episode from a
histogram. Standard deviations of images are true ones; lerobot 0.4.4 squares them in 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, NDArray[Any]]

_FEW = 100
_WIDE = 300
_THUMB = 150


class ImageStats:
    """Statistics of an episode's images by channel, in [0, 1], from a sample of its frames and pixels.

    Args:
        frames: how many there are.
    """

    def __init__(self, frames: int) -> None:
        count = min(frames, max(_FEW, min(int(frames**0.75), 10_000)))
        self._chosen = set(np.linspace(0, frames - 1, count).round().astype(int).tolist())
        self._histogram = np.zeros((3, 256), np.int64)

    def add(self, number: int, color: NDArray[np.uint8]) -> None:
        """Take in frame `number`, uint8 (H, W, 3), if it is one of the sample."""
        if number in self._chosen:
            longest = max(color.shape[:2])
            step = 1 if longest < _WIDE else longest // _THUMB
            for channel in range(3):
                values = color[::step, ::step, channel].ravel()
                self._histogram[channel] += np.bincount(values, minlength=256)

    def result(self) -> Stats:
        """(3, 1, 1) each, and `count` (1,) of frames."""
        level = np.arange(256) / 255.0
        total = self._histogram.sum(1)
        mean = self._histogram @ level / total
        seen = [np.flatnonzero(row) for row in self._histogram]
        upto = self._histogram.cumsum(1) / total[:, None]
        found = {
            "min": np.array([level[values[0]] for values in seen]),
            "max": np.array([level[values[-1]] for values in seen]),
            "mean": mean,
            "std": np.sqrt(np.maximum(0, self._histogram @ level**2 / total - mean**2)),
            **{key: np.array([level[np.searchsorted(row, q)] for row in upto]) for key, q in QUANTILES.items()},
        }
        shaped = {key: value.reshape(3, 1, 1) for key, value in found.items()}
        return {**shaped, "count": np.array([len(self._chosen)])}


def column_stats(values: NDArray[Any]) -> Stats:
    """Statistics (D,) of a feature (T, D), and `count` (1,)."""
    exact = values.astype(np.float64)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": exact.mean(0),
        "std": exact.std(0),
        "count": np.array([len(values)]),
        **{key: np.quantile(exact, q, axis=0) for key, q in QUANTILES.items()},
    }


def combine(parts: Sequence[Stats]) -> Stats:
    """Those of all episodes from those of each."""
    counts = np.array([int(part["count"][0]) for part in parts], np.float64)

    def weighted(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.tensordot(counts, np.stack(values), 1) / counts.sum()

    mean = weighted([part["mean"] for part in parts])
    spread = weighted([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    return {
        "min": np.stack([part["min"] for part in parts]).min(0),
        "max": np.stack([part["max"] for part in parts]).max(0),
        "mean": mean,
        "std": np.sqrt(spread),
        "count": np.array([int(counts.sum())]),
        **{key: weighted([part[key] for part in parts]) for key in QUANTILES},
    }

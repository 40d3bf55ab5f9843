"""Intervals for what was measured on a limited number of scenes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int) -> Interval:
    """Share of successes with Wilson's score interval (Wilson, 1927); [0, 1] without trials."""
    if trials == 0:
        return Interval(0.0, 0.0, 1.0)
    share, z2 = successes / trials, Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def bootstrap(values: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean with its percentile bootstrap interval over the values (Efron, 1979); the same seed gives the same one."""
    sample = np.asarray(values, float)
    if sample.size == 0:
        return Interval(0.0, 0.0, 0.0)
    rng = np.random.default_rng(seed)
    means = sample[rng.integers(sample.size, size=(resamples, sample.size))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(sample.mean()), float(low), float(high))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p value of the exact McNemar test (McNemar, 1947) that two classifiers succeed equally often.

    Args:
        only_first: pairs in which only the first succeeded.
        only_second: pairs in which only the second did.
    """
    discordant = only_first + only_second
    fewer = sum(math.comb(discordant, count) for count in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * fewer / 2**discordant)

"""Two ways to train, compared on the same scenes: the difference of their scores over several training runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from embodied_vision.errors import BadInput
from embodied_vision.learning.statistics import Interval


@dataclass(frozen=True)
class Crossed:
    """What two ways to train reach on the same scenes.

    Attributes:
        first, second: mean reward of each.
        difference: of the first less the second, with its 95 % interval.
        runs: training runs of each, paired by their seeds.
        scenes: that every run was measured on.
    """

    first: float
    second: float
    difference: Interval
    runs: int
    scenes: int


def crossed(
    first: Sequence[ArrayLike], second: Sequence[ArrayLike], *, resamples: int = 10_000, seed: int = 0
) -> Crossed:
    """Compare rewards (runs, scenes) in [0, 1] of two ways to train.

    The interval is a percentile bootstrap that draws scenes and, where there are several, training runs anew, each for
    both at once (Efron, 1979; crossed as in Owen, "The pigeonhole bootstrap", 2007): what holds for these scenes and
    runs alone is not taken for a gain. With one run of each it says nothing about other runs.

    Args:
        first, second: one list of rewards a training run, in the same order of seeds and of scenes.
        resamples: draws.
        seed: of the draws.

    Raises:
        BadInput: there are no rewards, or their numbers differ.
    """
    a, b = (np.atleast_2d(np.asarray(rewards, float)) for rewards in (first, second))
    if a.shape != b.shape or not a.size:
        raise BadInput(f"rewards of {a.shape} and {b.shape} runs and scenes do not pair; measure both on the same ones")
    difference = a - b
    runs, scenes = difference.shape
    rng = np.random.default_rng(seed)
    chosen = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples) / runs
    drawn = rng.multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples) / scenes
    means = ((chosen @ difference) * drawn).sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    interval = Interval(float(difference.mean()), float(low), float(high))
    return Crossed(float(a.mean()), float(b.mean()), interval, runs, scenes)

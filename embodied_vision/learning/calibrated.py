"""Probabilities that mean what they say: fitted on episodes that training never saw, and checked on yet others.

A network's logits are scaled and shifted (Platt, 1999; Guo et al., "On Calibration of Modern Neural Networks", 2017),
with Platt's smoothed targets, so that few episodes, or ones that all ended alike, never give a probability of 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from embodied_vision.errors import BadInput
from embodied_vision.learning.statistics import wilson

BINS = 10
LEAST_SCALE, LARGEST_SCALE = 1e-3, 20.0


@dataclass(frozen=True)
class Calibration:
    """Logit to probability: sigmoid(scale · logit + shift).

    Attributes:
        scale: inverse temperature, positive, so that the order of logits is kept.
        shift: for another share of successes than in training.
        count: outcomes that it was fitted on.
    """

    scale: float = 1.0
    shift: float = 0.0
    count: int = 0

    def probability(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of logits, same shape; NaN for those that are not finite."""
        values = np.asarray(logits, float)
        z = self.scale * np.where(np.isfinite(values), values, 0.0) + self.shift
        return np.where(np.isfinite(values), np.exp(-np.logaddexp(0.0, -z)), np.nan)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Calibration:
        """Read what `to_dict` wrote."""
        return cls(float(data["scale"]), float(data["shift"]), int(data["count"]))


def calibrate(logits: ArrayLike, succeeded: ArrayLike) -> Calibration:
    """Fit scale and shift by maximum likelihood.

    Args:
        logits: (N,) of outcomes that the network was not trained on.
        succeeded: (N,) bool, how they ended.

    Raises:
        BadInput: none, or some that are not finite, or all of them ended alike.
    """
    z, y = _pairs(logits, succeeded)
    good, bad = int(y.sum()), int((~y).sum())
    if not good or not bad:
        raise BadInput(
            f"all {len(y)} outcomes to calibrate on are {'successes' if good else 'failures'}; log some of the other "
            "kind, or collect them: embodied-vision learn outcomes collect"
        )
    target = np.where(y, (good + 1) / (good + 2), 1 / (bad + 2))
    spread = max(float(np.std(z)), 1e-6)

    def loss(x: NDArray[np.float64]) -> float:
        v = np.exp(x[0]) * (z - z.mean()) / spread + x[1]
        return float(np.mean(np.logaddexp(0.0, v) - target * v))

    low, high = np.log(LEAST_SCALE * spread), np.log(LARGEST_SCALE * spread)
    found = minimize(loss, [np.clip(np.log(spread), low, high), 0.0], bounds=[(low, high), (-30.0, 30.0)])
    scale = float(np.exp(found.x[0]) / spread)
    return Calibration(scale, float(found.x[1] - scale * z.mean()), len(y))


@dataclass(frozen=True)
class Bin:
    """Outcomes whose probability was said to be in [low, high): how many there are, and how many of them succeeded."""

    low: float
    high: float
    count: int
    succeeded: int
    mean_probability: float
    share: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class Reliability:
    """How far probabilities can be believed.

    Attributes:
        bins: that hold any outcome, with Wilson's 95 % intervals of the share that succeeded.
        expected_error: expected calibration error over the bins (Naeini et al., 2015), 0 … 1.
        brier: mean square error of the probability (Brier, 1950); a quarter for one that knows nothing.
        log_loss: mean −ln of what happened, in nats.
        count: outcomes.
    """

    bins: Sequence[Bin]
    expected_error: float
    brier: float
    log_loss: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def reliability(probability: ArrayLike, succeeded: ArrayLike, bins: int = BINS) -> Reliability:
    """Compare said probabilities (N,) with what happened (N,) bool.

    Raises:
        BadInput: none, or some that are not probabilities.
    """
    p, y = _pairs(probability, succeeded)
    if p.min() < 0 or p.max() > 1:
        raise BadInput(f"probabilities from {p.min():g} to {p.max():g}; give values in [0, 1]")
    number = np.minimum((p * bins).astype(int), bins - 1)
    found: list[Bin] = []
    error = 0.0
    for index in range(bins):
        chosen = number == index
        count, good = int(chosen.sum()), int(y[chosen].sum())
        if not count:
            continue
        said, interval = float(p[chosen].mean()), wilson(good, count)
        error += count / len(p) * abs(said - interval.value)
        edges = (index / bins, (index + 1) / bins)
        found.append(Bin(*edges, count, good, said, interval.value, interval.low, interval.high))
    sure = np.clip(np.where(y, p, 1 - p), 1e-12, 1.0)
    return Reliability(found, error, float(np.mean((p - y) ** 2)), float(-np.log(sure).mean()), len(p))


def _pairs(values: ArrayLike, succeeded: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    v, y = np.asarray(values, float).ravel(), np.asarray(succeeded, bool).ravel()
    if len(v) != len(y):
        raise BadInput(f"{len(v)} values for {len(y)} outcomes; give one each")
    if not len(v):
        raise BadInput("no outcome to compare with; give episodes whose outcome is known")
    if not np.isfinite(v).all():
        raise BadInput(f"{int((~np.isfinite(v)).sum())} of {len(v)} values are not finite; check the features")
    return v, y

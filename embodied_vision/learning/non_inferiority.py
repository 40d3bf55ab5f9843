"""Whether one policy is no worse than another on the same scenes, told by pairs of successes and failures.

Only the scenes that one of the two solves say anything: wins, which the candidate alone solves, and losses. The
statistic is the score of Tango (1998), Statistics in Medicine 17, 891–908, for the hypothesis that the candidate
solves `margin` fewer than the other. Its normal approximation is too generous where few scenes are lost, which is how
good policies differ; so the p value is exact, the largest over all rates at which scenes may be won and lost on the
edge of the hypothesis (Hsueh, Liu & Chen (2001), Biometrics 57, 478–483).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtri

from embodied_vision.errors import BadInput

LEVEL = 0.05
"""Largest probability of a false promotion."""
POWER = 0.8
MOST_SCENES = 1000
"""More are neither tested nor planned for: the table of outcomes grows with the square."""
_RATES = 128
_EXACT = 300
_TIE = 1e-9


def statistic(wins: NDArray[Any] | int, losses: NDArray[Any] | int, scenes: int, margin: float) -> NDArray[np.float64]:
    """Tango's score, large when the candidate is not worse by `margin`; wins and losses may be arrays."""
    w, x = np.asarray(wins, float), np.asarray(losses, float)
    half = (w * (1 - margin) + x * (1 + margin) + 2 * scenes * margin) / (4 * scenes)
    rate = half + np.sqrt(np.maximum(half**2 - x * margin * (1 + margin) / (2 * scenes), 0))
    variance = scenes * (2 * rate - margin * (1 + margin))
    score: NDArray[np.float64] = (w - x + scenes * margin) / np.sqrt(np.maximum(variance, 1e-300))
    return score


@dataclass(frozen=True)
class Table:
    """All ways in which `scenes` scenes may be won and lost.

    Attributes:
        scenes: how many.
        margin: by which the candidate may be worse, a share of the scenes.
        wins, losses: (M,) of each way.
        p_value: (M,) probability of as much evidence or more from a candidate that is worse by the margin, at most.
    """

    scenes: int
    margin: float
    wins: NDArray[np.int64]
    losses: NDArray[np.int64]
    p_value: NDArray[np.float64]

    def probability(self, win: float, loss: float) -> NDArray[np.float64]:
        """(M,) of each way, when a scene is won with probability `win` and lost with `loss`."""
        return np.exp(_log_pmf(self.scenes, self.wins, self.losses, win, loss))

    def passes(self, win: float, loss: float, level: float = LEVEL) -> float:
        """Probability that the test passes."""
        return float(self.probability(win, loss)[self.p_value <= level].sum())

    def at(self, wins: int, losses: int) -> float:
        """p value of an outcome."""
        return float(self.p_value[(self.wins == wins) & (self.losses == losses)][0])


@lru_cache(maxsize=64)
def table(scenes: int, margin: float) -> Table:
    """The outcomes of a number of scenes with their exact p values.

    Raises:
        BadInput: no scenes or more than `MOST_SCENES`, or a margin outside (0, 1).
    """
    if not 1 <= scenes <= MOST_SCENES:
        raise BadInput(f"{scenes} scenes cannot be tested; give 1 to {MOST_SCENES}")
    if not 0 < margin < 1:
        raise BadInput(
            f"margin {margin:g} lies outside (0, 1); give the share of scenes that may be lost, such as 0.05"
        )
    wins, losses = (part.ravel() for part in np.meshgrid(np.arange(scenes + 1), np.arange(scenes + 1), indexing="ij"))
    there = wins + losses <= scenes
    wins, losses = wins[there], losses[there]
    score = statistic(wins, losses, scenes, margin)
    order = np.argsort(-score, kind="stable")
    wins, losses, score = wins[order], losses[order], score[order]
    last = np.searchsorted(-score, -score + _TIE, side="right") - 1
    p_value = np.zeros(len(score))
    for loss in margin + (1 - margin) / 2 * np.linspace(0, 1, _RATES) ** 3:
        more = np.cumsum(np.exp(_log_pmf(scenes, wins, losses, loss - margin, loss)))
        np.maximum(p_value, more, out=p_value)
    return Table(scenes, margin, wins, losses, np.minimum(p_value[last], 1.0))


def _log_pmf(
    scenes: int, wins: NDArray[np.int64], losses: NDArray[np.int64], win: float, loss: float
) -> NDArray[np.float64]:
    rest, factorials = scenes - wins - losses, _factorials(scenes)
    ways = factorials[scenes] - factorials[wins] - factorials[losses] - factorials[rest]
    logs: NDArray[np.float64] = ways + _power(wins, win) + _power(losses, loss) + _power(rest, 1 - win - loss)
    return logs


@lru_cache(maxsize=8)
def _factorials(most: int) -> NDArray[np.float64]:
    values: NDArray[np.float64] = gammaln(np.arange(most + 1) + 1.0)
    return values


def _power(times: NDArray[np.int64], rate: float) -> NDArray[np.float64]:
    """Logarithm of rate ** times, with 0 ** 0 = 1."""
    if rate > 1e-15:
        return np.asarray(times * math.log(rate), np.float64)
    logs: NDArray[np.float64] = np.where(times == 0, 0.0, -np.inf)
    return logs


@dataclass(frozen=True)
class NonInferiority:
    """What a test says of a candidate.

    Attributes:
        scenes: compared.
        wins, losses: scenes that the candidate alone solved, and the other alone.
        margin: by which the candidate may be worse.
        p_value: exact, of the hypothesis that it is worse by that or more.
        shown: whether it is refuted at the level.
        worse_p: one-sided exact p value of McNemar's test that the candidate is no worse; small when it is worse.
        better_p: the same that it is no better; small when it is better.
        needed: scenes on which as good a candidate passes with probability `POWER`, roughly, if scenes go on to be won
            and lost as often as each other at the rate seen.
    """

    scenes: int
    wins: int
    losses: int
    margin: float
    p_value: float
    shown: bool
    worse_p: float
    better_p: float
    needed: int

    @property
    def difference(self) -> float:
        """Share of scenes won less the share lost."""
        return (self.wins - self.losses) / self.scenes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "difference": self.difference}


def non_inferior(
    candidate: Sequence[bool], baseline: Sequence[bool], margin: float, level: float = LEVEL
) -> NonInferiority:
    """Compare two policies on the same scenes, in the same order.

    Raises:
        BadInput: no scenes, or not the same number.
    """
    if not candidate or len(candidate) != len(baseline):
        raise BadInput(f"{len(candidate)} and {len(baseline)} outcomes are no pairs; run both on the same scenes")
    pairs = list(zip(candidate, baseline, strict=True))
    scenes = len(pairs)
    wins = sum(ours and not theirs for ours, theirs in pairs)
    losses = sum(theirs and not ours for ours, theirs in pairs)
    p_value = table(scenes, margin).at(wins, losses)
    shown = p_value <= level
    return NonInferiority(
        scenes=scenes,
        wins=wins,
        losses=losses,
        margin=margin,
        p_value=p_value,
        shown=shown,
        worse_p=one_sided(losses, wins),
        better_p=one_sided(wins, losses),
        needed=roughly_needed(margin, (wins + losses) / scenes, level=level),
    )


def one_sided(more: int, fewer: int) -> float:
    """Probability of at least `more` of more + fewer coins falling one way: McNemar's exact test, one-sided."""
    discordant = more + fewer
    return sum(math.comb(discordant, k) for k in range(more, discordant + 1)) / 2**discordant


def fewest_scenes(margin: float, level: float = LEVEL) -> int:
    """Scenes below which nothing can be shown, though none be lost.

    Raises:
        BadInput: margin or level outside (0, 1).
    """
    if not (0 < margin < 1 and 0 < level < 1):
        raise BadInput(f"margin {margin:g} or level {level:g} lies outside (0, 1); give shares such as 0.05")
    return math.ceil(math.log(level) / math.log1p(-margin))


def roughly_needed(margin: float, discordant: float, *, power: float = POWER, level: float = LEVEL) -> int:
    """`scenes_needed` by Tango's normal approximation, and no fewer than the fewest; good from some hundreds on."""
    shares = discordant * ((ndtri(1 - level) + ndtri(power)) / margin) ** 2
    return max(fewest_scenes(margin, level), math.ceil(shares))


@lru_cache(maxsize=256)
def scenes_needed(
    margin: float, discordant: float, *, power: float = POWER, level: float = LEVEL, tasks: int = 1
) -> int | None:
    """Scenes a task on which a candidate as good as the other passes on all tasks with the given probability.

    Every task must pass, so that no single test needs a stricter level (intersection–union test, Berger (1982)), but
    each must pass more surely.

    Args:
        margin: by which a candidate may be worse.
        discordant: share of scenes that one of two equally good policies solves and the other does not.
        power: wanted probability of passing.
        level: of each test.
        tasks: that all must pass.

    Returns:
        exact up to some hundreds, roughly from there on; None when `MOST_SCENES` are not enough.

    Raises:
        BadInput: a share outside its range.
    """
    if not (0 <= discordant <= 1 and 0 < power < 1 and tasks >= 1):
        raise BadInput(
            f"discordant {discordant:g}, power {power:g}, tasks {tasks} cannot be planned with; give shares between 0 "
            "and 1 and at least one task"
        )
    wanted = power ** (1 / tasks)
    about = roughly_needed(margin, discordant, power=wanted, level=level)
    if about > _EXACT:
        return about if about <= MOST_SCENES else None

    def enough(scenes: int) -> bool:
        return table(scenes, margin).passes(discordant / 2, discordant / 2, level) >= wanted

    low = high = max(fewest_scenes(margin, level), about // 2)
    while not enough(high):
        low, high = high + 1, high + 16
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high

"""The soak's judgement: steady series pass however they wander, leaks are found, silences are counted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from bench.soak import MISSED_S, Slope, Witness, slope


def wander(rng: np.random.Generator, count: int, common: float) -> np.ndarray:
    """Noise of which a share is carried on from sample to sample."""
    values = np.zeros(count)
    for i in range(1, count):
        values[i] = common * values[i - 1] + rng.normal()
    return values


@pytest.mark.parametrize("common", [0.0, 0.6, 0.9])
def test_a_steady_series_seldom_seems_to_grow(common: float) -> None:
    rng = np.random.default_rng(3)
    times = np.arange(420) * 5.0
    found = [slope(times, 200 + wander(rng, 420, common)) for _ in range(300)]
    assert np.mean([one.grows for one in found]) < 0.05


def test_eight_steady_series_seldom_seem_to_grow_together() -> None:
    rng = np.random.default_rng(5)
    times = np.arange(420) * 5.0
    noise = lfilter([1.0], [1.0, -0.6], rng.normal(size=(200, 8, 420)))
    alarms = [[any(slope(times, one, among).grows for one in run) for run in 200 + noise] for among in (1, 8)]
    each, together = np.mean(alarms, axis=1)
    assert together < 0.06
    assert each > 0.12


@pytest.mark.parametrize("among", [1, 8])
def test_a_leak_of_the_size_of_the_noise_is_found(among: int) -> None:
    rng = np.random.default_rng(4)
    times = np.arange(420) * 5.0
    found = [slope(times, 200 + 0.1 * times / 60 + wander(rng, 420, 0.6), among) for _ in range(100)]
    assert np.mean([one.grows for one in found]) > 0.95
    assert np.mean([one.rise for one in found]) == pytest.approx(0.1, abs=0.01)


def test_constant_and_falling_series_do_not_grow() -> None:
    times = np.arange(40) * 5.0
    assert not slope(times, np.full(40, 7.0)).grows
    assert not slope(times, 300 - times).grows


def test_what_grows_is_what_lies_above_zero_altogether() -> None:
    assert Slope(0.2, 0.1).grows
    assert not Slope(0.2, 0.3).grows


class Client:
    """Stands for a client of the graph: nothing arrives by itself."""

    class Node:
        def create_subscription(self, *_arguments: object) -> None:
            pass

    node = Node()


def test_silences_are_counted_also_those_that_last() -> None:
    witness = Witness(Client(), ["arm", "task"])  # type: ignore[arg-type]
    for now_s in (10.0, 10.2, 10.4, 10.4 + MISSED_S + 0.5, 12.2):
        witness._note("arm", now_s)
    assert witness.missed["arm"] == 1
    assert witness.longest_s["arm"] == pytest.approx(MISSED_S + 0.5)
    witness.end()
    assert witness.missed == {"arm": 2, "task": 1}

"""The soak's judgement: steady series pass however they wander, leaks are found, silences are counted."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_a_leak_of_the_size_of_the_noise_is_found() -> None:
    rng = np.random.default_rng(4)
    times = np.arange(420) * 5.0
    found = [slope(times, 200 + 0.1 * times / 60 + wander(rng, 420, 0.6)) for _ in range(100)]
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

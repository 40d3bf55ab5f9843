"""Intervals agree with SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from embodied_vision.learning.statistics import bootstrap, mcnemar, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (95, 100), (50, 100), (1, 3)])
def test_wilson_agrees_with_scipy(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    found = wilson(successes, trials)
    assert found.value == successes / trials
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_of_nothing_says_nothing() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_bootstrap_agrees_with_scipy() -> None:
    values = np.random.default_rng(5).beta(5, 1, 100)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, random_state=1
    ).confidence_interval
    found = bootstrap(values)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert bootstrap(values) == found


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap([1.0] * 20) == bootstrap([1.0] * 30)


@pytest.mark.parametrize(("only_first", "only_second", "p_value"), [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 1 / 16)])
def test_mcnemar_is_exact(only_first: int, only_second: int, p_value: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p_value)
    assert mcnemar(only_second, only_first) == pytest.approx(p_value)


@pytest.mark.parametrize("pairs", [1, 2, 7, 40, 2001])
def test_mcnemar_is_a_sign_test(pairs: int) -> None:
    for only_first in {0, 1, pairs // 3, pairs // 2, pairs}:
        expected = stats.binomtest(only_first, pairs, 0.5).pvalue
        assert mcnemar(only_first, pairs - only_first) == pytest.approx(expected, rel=1e-9)

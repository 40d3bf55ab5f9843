"""Durations are counted in bounded memory and told no better than they are."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.nodes.durations import Durations


def test_percentiles_are_those_of_all_and_never_below_them() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.lognormal(-8, 1, 20_000)
    durations = Durations()
    for value in seconds:
        durations.add(value)
    for share in (0.5, 0.99, 0.999):
        exact = np.quantile(seconds, share, method="inverted_cdf") * 1e3
        assert exact <= durations.percentile_ms(share) <= exact * 1.05 + 0.001
    assert durations.percentile_ms(1.0) == durations.longest_ms == seconds.max() * 1e3
    assert durations.to_dict()["count"] == 20_000


def test_nothing_counted_is_zero_and_very_long_ones_are_kept() -> None:
    durations = Durations()
    assert durations.to_dict() == {"count": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
    durations.add(1e6)
    assert durations.longest_ms == 1e9
    assert durations.percentile_ms(0.5) > 1e6


def test_a_timed_callback_is_counted_even_where_it_raises() -> None:
    durations = Durations()

    def callback(value: int) -> None:
        raise ValueError(value)

    with pytest.raises(ValueError, match="3"):
        durations.timed(callback)(3)
    assert durations.count == 1

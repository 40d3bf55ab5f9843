"""Probabilities mean what they say, and what cannot be calibrated is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.errors import BadInput
from embodied_vision.learning.calibrated import Calibration, calibrate, reliability


def _stream(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times too large and shifted, with what happened."""
    truth = rng.normal(0, 2, count)
    return 3 * truth + 1.5, rng.uniform(size=count) < 1 / (1 + np.exp(-truth))


def test_calibration_mends_what_is_too_sure_of_itself() -> None:
    rng = np.random.default_rng(0)
    found = calibrate(*_stream(rng, 400))
    logits, happened = _stream(rng, 4000)
    before = reliability(Calibration().probability(logits), happened)
    after = reliability(found.probability(logits), happened)
    assert found.scale == pytest.approx(1 / 3, rel=0.25)
    assert after.expected_error < 0.03 < before.expected_error
    assert after.brier < before.brier
    assert after.log_loss < before.log_loss


def test_bins_hold_what_happened() -> None:
    found = reliability([0.05, 0.05, 0.95, 1.0], [False, True, True, True])
    assert [(each.count, each.succeeded) for each in found.bins] == [(2, 1), (2, 2)]
    assert found.expected_error == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)
    assert found.bins[0].ci_low < 0.5 < found.bins[0].ci_high


@given(
    st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({good for _, good in rows}) == 2
    )
)
@settings(max_examples=25, deadline=None)
def test_the_order_of_logits_is_kept_and_nothing_is_certain(rows: list[tuple[float, bool]]) -> None:
    logits = np.array([value for value, _ in rows])
    found = calibrate(logits, [good for _, good in rows])
    probability = found.probability(np.sort(logits))
    assert np.isfinite(probability).all()
    assert (np.diff(probability) >= -1e-12).all()
    assert found.scale > 0


def test_outcomes_of_one_kind_are_refused() -> None:
    for kind, word in ((True, "successes"), (False, "failures")):
        with pytest.raises(BadInput, match=f"all 5 outcomes .* {word}"):
            calibrate(np.arange(5.0), [kind] * 5)


def test_nothing_and_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(BadInput, match="no outcome"):
        calibrate([], [])
    with pytest.raises(BadInput, match="1 of 2 values are not finite"):
        calibrate([0.0, float("nan")], [True, False])
    with pytest.raises(BadInput, match="probabilities"):
        reliability([0.5, 1.5], [True, False])
    assert np.isnan(Calibration().probability([np.nan, np.inf])).all()

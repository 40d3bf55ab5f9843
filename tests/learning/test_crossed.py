"""The paired interval covers what scenes and training runs leave open, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.errors import BadInput
from embodied_vision.learning.crossed import crossed


def test_what_both_have_in_common_does_not_widen_the_interval() -> None:
    hard = np.random.default_rng(0).random(100)
    found = crossed([0.2 + 0.5 * hard], [0.5 * hard])
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx((0.2, 0.2, 0.2))
    assert (found.runs, found.scenes) == (1, 100)


def test_training_runs_that_differ_widen_it() -> None:
    scenes = np.random.default_rng(1).random((3, 100)) < 0.5
    alike = crossed(scenes, np.zeros((3, 100)))
    differing = crossed(scenes * np.array([[0.2], [1.0], [1.8]]), np.zeros((3, 100)))
    assert differing.difference.value == pytest.approx(alike.difference.value, abs=0.05)
    wide, narrow = (found.difference.high - found.difference.low for found in (differing, alike))
    assert wide > 2 * narrow


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(100):
        a, b = rng.random(60) < 0.7, rng.random(60) < 0.5
        interval = crossed([a], [b], resamples=400).difference
        held += interval.low <= 0.2 <= interval.high
    assert 88 <= held <= 100


def test_rewards_that_do_not_pair_are_refused() -> None:
    with pytest.raises(BadInput, match="do not pair"):
        crossed([[1.0, 0.0]], [[1.0]])
    with pytest.raises(BadInput, match="do not pair"):
        crossed([], [])

"""Which rotation bins a fine step tries: near the right turn, some of the wrong ones, none that is alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_vision.learning.augment import IDLE, _tried_turns

BINS = 36


def away(angles_rad: np.ndarray, from_rad: float) -> np.ndarray:
    return np.abs(np.remainder(angles_rad - from_rad + math.pi, 2 * math.pi) - math.pi)


@given(st.floats(-7, 7), st.sampled_from([1, 2, 3, 4, 5, 6, 8, 12]), st.sampled_from([8, 12, 36]), st.integers(0, 99))
def test_tried_turns_stand_for_all_that_are_not_alike(phi: float, fold: int, tried: int, seed: int) -> None:
    angles, log_weight, label = _tried_turns(phi, BINS, tried, fold, np.random.default_rng(seed))
    assert len(angles) == len(log_weight) == len(label) == tried
    assert label.sum() == pytest.approx(1)
    right = [phi + 2 * math.pi * k / fold for k in range(fold)]
    nearest = np.min([away(angles, turn) for turn in right], axis=0)
    assert (nearest[label > 0] <= 2 * 2 * math.pi / BINS + 1e-9).all()
    wrong = (label == 0) & (log_weight > IDLE)
    assert (nearest[wrong] > 2 * math.pi / BINS - 1e-9).all()
    counted = np.exp(log_weight[log_weight > IDLE]).sum()
    every = 2 * math.pi / BINS * np.arange(BINS)
    alike = {int(np.floor(t % (2 * math.pi) / (2 * math.pi / BINS)) + o) % BINS for t in right for o in range(-1, 3)}
    assert counted == pytest.approx(4 + len(every) - len(alike))


def test_each_of_the_turns_that_are_alike_is_the_right_one_now_and_then() -> None:
    rng, found = np.random.default_rng(0), set()
    for _ in range(60):
        angles, _, label = _tried_turns(0.1, BINS, 8, 4, rng)
        found.add(round(float(angles[label.argmax()]) / (math.pi / 2)) % 4)
    assert found == {0, 1, 2, 3}


def test_what_is_not_symmetric_has_one_right_turn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles, _, label = _tried_turns(2.0, BINS, 8, 1, rng)
        assert away(angles[label.argmax()], 2.0) < math.radians(5.01)

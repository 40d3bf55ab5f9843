"""Simulated time follows the clock: it catches up in bounded bursts and never pretends to have kept up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_vision_sim.pacing import Pacer

STEP_S = 1 / 240


def follow(pacer: Pacer, now_s: float) -> int:
    steps = pacer.due(now_s)
    pacer.took(steps)
    return steps


@given(st.lists(st.floats(0.0, 0.2), min_size=1, max_size=60))
def test_it_stays_within_a_step_of_the_clock_when_calls_come_in_time(gaps: list[float]) -> None:
    pacer, now_s = Pacer(STEP_S), 1000.0
    follow(pacer, now_s)
    for gap_s in gaps:
        now_s += gap_s
        follow(pacer, now_s)
        assert -1e-6 <= now_s - 1000.0 - pacer.time_s <= STEP_S + 1e-6
    assert pacer.lost_s == 0.0


def test_a_long_stall_is_lost_not_caught_up() -> None:
    pacer = Pacer(STEP_S, max_burst_s=0.25)
    follow(pacer, 0.0)
    assert follow(pacer, 10.0) == 60
    assert pacer.lost_s == pytest.approx(9.75)
    assert follow(pacer, 10.1) == 24
    assert pacer.clock_s(10.1) == pytest.approx(pacer.time_s, abs=STEP_S)


def test_the_real_time_factor_shows_a_slow_machine() -> None:
    pacer = Pacer(STEP_S, max_burst_s=0.05)
    assert pacer.real_time_factor() == 1.0
    for tick in range(100):
        follow(pacer, tick * 0.1)
    assert pacer.real_time_factor() == pytest.approx(0.5, abs=0.02)
    for tick in range(400):
        follow(pacer, 10.0 + tick * 0.01)
    assert pacer.real_time_factor() == pytest.approx(1.0, abs=0.02)


def test_steps_taken_ahead_are_waited_for() -> None:
    pacer = Pacer(STEP_S)
    follow(pacer, 0.0)
    pacer.took(24)
    assert follow(pacer, 0.05) == 0
    assert follow(pacer, 0.1 + 2.5 * STEP_S) == 2


def test_a_reset_takes_no_simulated_time() -> None:
    pacer = Pacer(STEP_S)
    follow(pacer, 0.0)
    follow(pacer, 0.1)
    pacer.forgive(5.0)
    assert follow(pacer, 5.1) == 24
    assert pacer.lost_s == 0.0

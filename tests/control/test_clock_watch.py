"""The system's clock is set: noticed; it is slewed, or we were held up between two readings: nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_vision.control.clock_watch import ClockWatch

TICK_NS = 25_000_000


class Clocks:
    """Two clocks that run evenly, until the system's is set. Reading one takes `reading_ns`."""

    def __init__(self, reading_ns: int = 100) -> None:
        self.steady, self.offset, self.reading_ns = 5_000_000_000, 1_700_000_000_000_000_000, reading_ns
        self.held_ns: list[int] = []
        self.watch = ClockWatch(real_ns=self.real_ns, steady_ns=self.steady_ns)

    def steady_ns(self) -> int:
        self.steady += self.reading_ns + (self.held_ns.pop(0) if self.held_ns else 0)
        return self.steady

    def real_ns(self) -> int:
        return self.steady_ns() + self.offset

    def look(self) -> float:
        self.steady += TICK_NS
        return self.watch.look()


@pytest.mark.parametrize("step_s", [3600.0, 0.06, -0.06, -3600.0])
def test_a_step_is_seen_once_with_its_size_and_sign(step_s: float) -> None:
    clocks = Clocks()
    assert [clocks.look() for _ in range(3)] == [0.0] * 3
    clocks.offset += round(step_s * 1e9)
    assert clocks.look() == pytest.approx(step_s, abs=1e-5)
    assert clocks.look() == 0.0


@pytest.mark.parametrize("step_s", [0.04, -0.04])
def test_a_step_within_the_slack_of_stamps_is_let_be(step_s: float) -> None:
    clocks = Clocks()
    clocks.look()
    clocks.offset += round(step_s * 1e9)
    assert clocks.look() == 0.0


def test_a_clock_that_is_slewed_never_jumps() -> None:
    clocks = Clocks()
    for _ in range(10_000):
        clocks.offset += TICK_NS // 1000  # 1000 ppm, twice what the kernel slews at most
        assert clocks.look() == 0.0


@given(st.lists(st.integers(0, 3_000_000_000), max_size=40))
def test_whoever_is_held_up_between_readings_sees_no_jump(held_ns: list[int]) -> None:
    clocks = Clocks()
    clocks.look()
    clocks.held_ns = list(itertools.chain(held_ns))
    assert [clocks.look() for _ in range(6)] == [0.0] * 6


def test_the_real_clocks_stand_still_against_each_other() -> None:
    watch = ClockWatch()
    assert [watch.look() for _ in range(100)] == [0.0] * 100

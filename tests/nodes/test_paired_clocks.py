"""Two clocks as one: stamps are exactly as far apart as steady times, until the clock of the stamps is set."""

from __future__ import annotations

import time

import pytest

from embodied_vision.nodes.paired_clocks import SET_NS, PairedClocks


class Stamps:
    """A clock of stamps that can be set, and hesitates."""

    def __init__(self) -> None:
        self.offset_ns = 1_700_000_000_000_000_000
        self.noise_ns = 0
        self.hesitate = 0

    def read(self) -> int:
        if self.hesitate:
            self.hesitate -= 1
            time.sleep(0.001)
        return time.monotonic_ns() + self.offset_ns + self.noise_ns


def test_stamps_are_as_far_apart_as_the_moments_whatever_the_reading_took() -> None:
    stamps = Stamps()
    clocks = PairedClocks(stamps.read)
    first = clocks.now()
    for noise_ns in (900_000, -900_000, SET_NS - 500_000):
        stamps.noise_ns, stamps.hesitate = noise_ns, 2
        steady_s, stamp_ns = clocks.now()
        assert stamp_ns - first[1] == pytest.approx((steady_s - first[0]) * 1e9, abs=20)
        assert clocks.steady_s(stamp_ns) == pytest.approx(steady_s, abs=1e-6)


def test_a_clock_that_was_set_is_followed() -> None:
    stamps = Stamps()
    clocks = PairedClocks(stamps.read)
    clocks.now()
    stamps.offset_ns += 3_000_000_000
    steady_s, stamp_ns = clocks.now()
    assert stamp_ns == pytest.approx(time.monotonic_ns() + stamps.offset_ns, abs=50_000_000)
    assert clocks.steady_s(stamp_ns) == pytest.approx(steady_s, abs=1e-6)

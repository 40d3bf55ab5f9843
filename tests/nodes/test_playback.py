"""Timing of a replay: relative times are exact whatever is done in between, and little is held ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from embodied_vision.nodes.keys import split
from embodied_vision.nodes.playback import AHEAD, Act, Items, Playback

PERIOD_S = 0.02
COUNT = 20
START_NS = 1_700_000_000_000_000_000
TOLERANCE_S = 0.25
"""For a machine whose cores are busy elsewhere."""


class Recording:
    """Plays 20 items in a thread; every second one is slow, every fourth a mark."""

    def __init__(self, make: Callable[[int], None] | None = None, period_s: float = PERIOD_S, **options: Any) -> None:
        self.heard: list[tuple[float, int]] = []
        self.held = self.most_held = 0
        self.arrived = threading.Condition()
        self._make = make
        stamps = START_NS + np.arange(COUNT) * round(period_s * 1e9)
        items = Items(stamps, self._prepare, np.arange(0, COUNT, 2), np.arange(0, COUNT, 4))
        self.playback = Playback(items, **options)
        self.result: bool | BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.result = self.playback.run()
        except Exception as error:
            self.result = error

    def _prepare(self, number: int) -> Act:
        if self._make is not None:
            self._make(number)
        with self.arrived:
            self.held += 1
            self.most_held = max(self.most_held, self.held)

        def publish() -> None:
            with self.arrived:
                self.held -= 1
                self.heard.append((time.monotonic(), number))
                self.arrived.notify_all()

        return publish

    def wait(self, count: int) -> list[int]:
        """The numbers heard once there are so many."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.heard) >= count, 20), self.heard
            return [number for _, number in self.heard]

    def end(self) -> list[int]:
        self.thread.join(20)
        assert not self.thread.is_alive()
        return [number for _, number in self.heard]


@contextmanager
def playing(
    make: Callable[[int], None] | None = None, period_s: float = PERIOD_S, **options: Any
) -> Iterator[Recording]:
    recording = Recording(make, period_s, **options)
    recording.thread.start()
    try:
        yield recording
    finally:
        recording.playback.stop()
        recording.thread.join(20)


def test_everything_comes_once_and_in_time() -> None:
    with playing(rate=2.0) as recording:
        assert recording.end() == list(range(COUNT))
        times = np.array([at for at, _ in recording.heard])
        np.testing.assert_allclose(times - times[0], np.arange(COUNT) * PERIOD_S / 2, atol=TOLERANCE_S)
        assert recording.result is True


def test_lateness_does_not_add_up() -> None:
    """Each item takes longer than its period for a while; the last one is in time nevertheless."""
    busy_until = time.monotonic() + 0.3

    def make(number: int) -> None:
        while number in (0, 1) and time.monotonic() < busy_until:
            pass

    began = time.monotonic()
    with playing(make, period_s=0.05) as recording:
        recording.end()
        assert recording.heard[0][0] - began > 0.25
        assert recording.heard[-1][0] - began == pytest.approx((COUNT - 1) * 0.05, abs=TOLERANCE_S)


def test_nothing_comes_while_paused_and_the_rest_keeps_its_distances() -> None:
    with playing() as recording:
        recording.wait(5)
        recording.playback.pause()
        status = recording.playback.status()
        assert status.paused
        count = len(recording.wait(5))
        with recording.arrived:
            assert not recording.arrived.wait_for(lambda: len(recording.heard) > count + 1, 0.3)
        assert recording.playback.status().position_s == status.position_s
        resumed = time.monotonic()
        recording.playback.resume()
        assert recording.end() == list(range(COUNT))
        expected = resumed + (COUNT - 1) * PERIOD_S - status.position_s
        assert recording.heard[-1][0] == pytest.approx(expected, abs=TOLERANCE_S)


def test_steps_go_from_mark_to_mark() -> None:
    with playing(paused=True) as recording:
        assert recording.heard == []
        recording.playback.step()
        assert recording.wait(1) == [0]
        recording.playback.step()
        assert recording.wait(5) == list(range(5))
        recording.playback.step()
        recording.playback.step()
        assert recording.wait(13) == list(range(13))
        assert recording.playback.status().position_s == pytest.approx(12 * PERIOD_S)
        recording.playback.step()
        recording.playback.step()
        assert recording.wait(COUNT) == list(range(COUNT)), "past the last mark: what is left"
        recording.playback.step()
        assert recording.end() == list(range(COUNT))


def test_seek_goes_both_ways_and_keeps_the_state() -> None:
    with playing(paused=True) as recording:
        recording.playback.seek(10 * PERIOD_S)
        recording.playback.step()
        assert recording.wait(3) == [10, 11, 12]
        recording.playback.seek(2.5 * PERIOD_S)
        recording.playback.resume()
        assert recording.end() == [10, 11, 12, *range(3, COUNT)]


@pytest.mark.parametrize(("position_s", "first"), [(-5.0, 4), (1e6, 15)])
def test_seek_stays_within_the_part_to_play(position_s: float, first: int) -> None:
    with playing(paused=True, start_s=4 * PERIOD_S, end_s=15 * PERIOD_S) as recording:
        recording.playback.seek(position_s)
        recording.playback.resume()
        assert recording.end() == list(range(first, 16))


def test_loops_do_not_drift() -> None:
    with playing(start_s=10 * PERIOD_S, rate=4.0, loop=True) as recording:
        recording.wait(35)
        recording.playback.set_loop(False)
        heard = recording.end()
        assert heard[:30] == 3 * list(range(10, COUNT))
        assert recording.playback.status().loops >= 3
        firsts = [at for at, number in recording.heard if number == 10]
        expected = np.arange(len(firsts)) * 9 * PERIOD_S / 4
        np.testing.assert_allclose(np.array(firsts) - firsts[0], expected, atol=TOLERANCE_S)


def test_the_rate_changes_while_it_plays() -> None:
    with playing(rate=0.01) as recording:
        recording.wait(1)
        recording.playback.set_rate(100.0)
        began = time.monotonic()
        recording.end()
        assert time.monotonic() - began < 1.0, "at the first rate it would have taken 38 s"


def test_little_is_prepared_ahead() -> None:
    with playing(paused=True) as recording:
        recording.playback.step()
        recording.wait(1)
        recording.playback.resume()
        recording.end()
        assert recording.most_held <= AHEAD + 2


def test_what_fails_ends_it() -> None:
    def make(number: int) -> None:
        if number == 6:
            raise ValueError("damaged")

    with playing(make) as recording:
        assert recording.end() == list(range(6))
        assert isinstance(recording.result, ValueError)


def test_stop_ends_it_at_once() -> None:
    with playing(rate=0.01) as recording:
        recording.wait(1)
        recording.playback.stop()
        assert recording.end() == [0]
        assert recording.result is False


@pytest.mark.parametrize("loop", [False, True])
def test_nothing_to_play(loop: bool) -> None:
    empty = np.zeros(0, np.int64)
    assert Playback(Items(empty, lambda number: lambda: None, empty, empty), loop=loop).run()
    with playing(start_s=0.5 * PERIOD_S, end_s=0.7 * PERIOD_S, loop=loop) as recording:
        assert recording.end() == []


def test_keys() -> None:
    assert split(b" .\x1b[C\x1b[D\x1b[1;5Aq+") == [" ", ".", "right", "left", "q", "+"]
    assert split(b"\x1b[") == []

"""Frames of several cameras for slow work: those of one moment together, the newest, and never a queue."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from embodied_vision.newest_set import NewestSet

MS = 1_000_000
SLOP_NS = 5 * MS


def _play(
    frames: list[tuple[float, str, int]], cameras: tuple[str, ...], work_s: float, patience_s: float = 0.25
) -> tuple[list[tuple[float, dict[str, int]]], NewestSet]:
    """What a worker that needs `work_s` a frame is given, and when, of (arrival in s, camera, stamp in ns)."""
    kept, given, free_s = NewestSet(cameras, SLOP_NS, patience_s), [], 0.0
    for arrival_s, camera, stamp_ns in [*sorted(frames), (1e9, cameras[0], 2**60)]:
        while True:  # all that the worker takes before this frame comes
            due = kept.due_in(free_s)
            if due is None or free_s + due >= arrival_s:
                break
            free_s += due
            taken = kept.take(free_s)
            assert taken
            given.append((free_s, taken))
            free_s += work_s * len(taken)
        free_s = max(free_s, arrival_s)
        kept.add(camera, stamp_ns, stamp_ns, arrival_s)
    return given, kept


def _stream(camera: str, count: int, period_s: float, delay_s: float = 0.0, first_s: float = 0.0, ahead_ns: int = 0):
    stamps = [round((first_s + k * period_s) * 1e9) + ahead_ns for k in range(count)]
    return [(stamp * 1e-9 + delay_s, camera, stamp) for stamp in stamps]


@pytest.mark.parametrize("work_s", [0.001, 0.02, 0.15, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_siblings_stay_together_however_slow_the_work_and_uneven_the_ways(work_s: float, seed: int) -> None:
    """Three cameras at 30 Hz, up to 60 ms on their way, a twentieth lost: with a slot a camera they never met."""
    rng = np.random.default_rng(seed)
    cameras = ("left", "right", "top")
    frames = [
        (arrival + rng.uniform(0.0, 0.06), camera, stamp)
        for k, camera in enumerate(cameras)
        for arrival, _, stamp in _stream(camera, 300, 1 / 30, ahead_ns=k * 2 * MS)
        if rng.random() > 0.05
    ]
    for camera in cameras:  # a transport keeps the order
        own = sorted(stamp for _, name, stamp in frames if name == camera)
        arrivals = sorted(arrival for arrival, name, _ in frames if name == camera)
        frames = [f for f in frames if f[1] != camera] + [(a, camera, s) for a, s in zip(arrivals, own, strict=True)]
    given, kept = _play(frames, cameras, work_s)
    whole = [(at, taken) for at, taken in given if len(taken) == 3]
    assert len(whole) >= 0.9 * min(len(given), 10.0 / (3 * work_s))
    for _, taken in whole:
        stamps = list(taken.values())
        assert max(abs(stamp - stamps[0]) for stamp in stamps) <= SLOP_NS
    for camera in cameras:
        stamps = [taken[camera] for _, taken in given if camera in taken]
        assert stamps == sorted(set(stamps)), "each frame once, in order"
    for at, taken in whole:  # the newest: nothing whole that had come before was passed over for it
        assert at - max(taken.values()) * 1e-9 < 3 * work_s + 0.06 + 3 / 30
    count = sum(len(taken) for _, taken in given)
    assert count + kept.dropped <= len(frames) + 1
    kept.clear()
    assert count + kept.dropped == len(frames) + 1


def test_a_camera_alone_is_never_waited_for() -> None:
    kept = NewestSet(("only",), SLOP_NS, 10.0)
    for stamp in (1, 2, 3):
        kept.add("only", stamp, f"frame {stamp}", 0.0)
    assert (kept.take(0.0), kept.dropped, kept.whole) == ({"only": "frame 3"}, 2, True)
    assert kept.take(100.0) == {}
    assert kept.due_in(0.0) is None


def test_a_silent_camera_holds_the_others_up_once_and_for_no_longer_than_stated() -> None:
    frames = _stream("left", 90, 1 / 30, 0.01) + _stream("right", 30, 1 / 30, 0.01)
    frames += _stream("right", 30, 1 / 30, 0.01, first_s=2.0)
    given, _ = _play(frames, ("left", "right"), 0.001)
    times = [at for at, taken in given if "left" in taken]
    gaps = np.diff(times)
    silent = int(np.argmax(gaps))
    assert gaps[silent] <= 0.25 + 1 / 30 + 1e-3
    assert (gaps > 0.05).sum() == 1, "waited once"
    assert abs(times[silent] - 1.0) < 0.05
    back = [at for at, taken in given if "right" in taken and at > 1.5]
    assert back[0] < 2.0 + 0.02
    assert len(back) >= 29
    assert sum(len(taken) == 2 for at, taken in given if at > 2.0) >= 28


def test_a_slow_camera_and_a_fast_one_meet() -> None:
    frames = _stream("left", 90, 1 / 30, 0.002) + _stream("right", 15, 0.2, 0.004)
    for work_s in (0.001, 0.09):
        given, _ = _play(frames, ("left", "right"), work_s)
        right = [taken["right"] for _, taken in given if "right" in taken]
        left = {taken["left"] for _, taken in given if "left" in taken}
        met = [stamp for stamp in right if any(abs(stamp - other) <= SLOP_NS for other in left)]
        assert len(met) >= 13, "each frame of the slow one has its sibling, at once or before it"


def test_cameras_that_nobody_synchronised_are_told_of_and_go_on() -> None:
    frames = _stream("left", 60, 1 / 30) + _stream("right", 60, 1 / 30, ahead_ns=16 * MS)
    given, kept = _play(frames, ("left", "right"), 0.001)
    assert not kept.whole
    times = [at for at, _ in given]
    assert max(later - earlier for earlier, later in pairwise(times[:-1])) <= 0.25 + 1 / 30 + 1e-3
    assert all(len(taken) == 2 for _, taken in given[:-1])


def test_a_fast_camera_whose_sibling_is_silent_is_not_held_back_by_its_own_newer_frames() -> None:
    given, _ = _play(_stream("left", 500, 0.005), ("left", "right"), 0.001)
    assert 0.24 < given[0][0] < 0.27
    assert len(given) > 400


def test_frames_that_follow_siblings_which_went_alone_are_given_away_at_once() -> None:
    kept = NewestSet(("left", "right"), SLOP_NS, 0.1)
    kept.add("left", 100 * MS, "l", 0.0)
    assert kept.take(0.05) == {}
    assert kept.due_in(0.05) == pytest.approx(0.05)
    assert (kept.take(0.1), kept.whole, kept.absent) == ({"left": "l"}, False, ["right"])
    kept.add("right", 102 * MS, "r", 0.2)
    assert (kept.take(0.2), kept.whole, kept.absent) == ({"right": "r"}, True, [])
    kept.add("right", 104 * MS, "again", 0.21)
    assert kept.take(0.21) == {}, "its sibling is matched once"


def test_a_clock_that_goes_back_leaves_nothing_behind() -> None:
    kept = NewestSet(("left", "right"), SLOP_NS, 0.5)
    for stamp in (10_000 * MS, 10_033 * MS):
        kept.add("left", stamp, stamp, 0.0)
    kept.add("left", 0, 0, 0.1)
    kept.add("right", 0, 0, 0.1)
    assert (kept.take(0.1), kept.dropped) == ({"left": 0, "right": 0}, 2)


def test_stamps_that_stand_still_wait_no_longer_than_others() -> None:
    kept = NewestSet(("left", "right"), SLOP_NS, 0.1)
    for k in range(20):
        kept.add("left", 0, k, 0.01 * k)
    assert kept.due_in(0.19) == 0.0
    assert kept.take(0.19) == {"left": 19}

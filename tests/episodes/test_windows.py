"""Windows hold what a plain search through the samples finds, whatever the stamps; padding is told."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.episodes.alignment import ALIGNMENTS, Alignment, Timeline, ages, align
from embodied_vision.episodes.windows import NO_AGE, NO_STAMP, Sampling, Window, Windows
from embodied_vision.errors import BadInput
from episodes.samples import PERIOD_NS, START_NS, make_action, make_camera, make_frame

INT64 = st.integers(-(2**63) + 1, 2**63 - 1)
NEAR = st.integers(START_NS - 6, START_NS + 6)
STAMPS = st.lists(NEAR | INT64, min_size=1, max_size=12)
TIMES = st.lists(NEAR | INT64, min_size=1, max_size=6)
TOLERANCES = st.none() | st.integers(0, 8) | st.integers(0, 10**18)


def plain(
    stamps: list[int], time: int, how: Alignment, tolerance: int | None, end: int
) -> tuple[int, int, Fraction] | None:
    """Numbers of the two samples and the second's weight by searching all of them, in Python's whole numbers."""
    number_of = {stamp: number for number, stamp in enumerate(stamps)}  # of equal stamps the last logged
    limit = math.inf if tolerance is None else tolerance
    earlier = [stamp for stamp in number_of if stamp <= time]
    later = [stamp for stamp in number_of if stamp > time]
    if how == "hold":
        if not earlier or time - max(earlier) > limit or time > max(end, *number_of):
            return None
        return number_of[max(earlier)], number_of[max(earlier)], Fraction(0)
    if how == "nearest":
        closest = min(number_of, key=lambda stamp: (abs(stamp - time), stamp))
        if abs(closest - time) > limit:
            return None
        return number_of[closest], number_of[closest], Fraction(0)
    if time in number_of:
        return number_of[time], number_of[time], Fraction(0)
    if not earlier or not later or min(later) - max(earlier) > limit:
        return None
    one, other = max(earlier), min(later)
    return number_of[one], number_of[other], Fraction(time - one, other - one)


@given(STAMPS, TIMES, st.sampled_from(ALIGNMENTS), TOLERANCES, NEAR)
@example([0], [2**63 - 1], "nearest", None, 0)
@example([-(2**63) + 1, 2**63 - 1], [0, 2**63 - 2], "interpolate", None, 0)
@settings(max_examples=300, deadline=None)
def test_alignment_finds_what_a_plain_search_finds(
    stamps: list[int], times: list[int], how: Alignment, tolerance: int | None, end: int
) -> None:
    timeline = Timeline.of(np.array(stamps, np.int64))
    found = align(timeline, np.array(times, np.int64), how, tolerance, end)
    for place, time in enumerate(times):
        wanted = plain(stamps, time, how, tolerance, end)
        assert found.padded[place] == (wanted is None)
        if wanted is not None:
            assert timeline.numbers[found.first[place]] == wanted[0]
            assert timeline.numbers[found.second[place]] == wanted[1]
            assert found.weight[place] == pytest.approx(float(wanted[2]), abs=1e-12)
            assert 0 <= found.weight[place] < 1


@given(st.lists(st.tuples(INT64, INT64), min_size=1, max_size=8))
def test_ages_are_exact_and_do_not_wrap_around(pairs: list[tuple[int, int]]) -> None:
    times, stamps = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    wanted = [max(-(2**63) + 1, min(2**63 - 1, time - stamp)) for time, stamp in pairs]
    assert ages(times, stamps).tolist() == wanted


ROWS = st.lists(
    st.tuples(NEAR | st.integers(START_NS - 10**10, START_NS + 10**10), st.floats(allow_nan=True, width=64)),
    min_size=1,
    max_size=8,
)


@given(ROWS, st.sampled_from(ALIGNMENTS), st.integers(0, 7), st.lists(st.integers(-12, 12), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_of_an_episode_hold_what_was_logged(
    tmp_path: Path, rows: list[tuple[int, float]], how: Alignment, tolerance: int, offsets: list[int]
) -> None:
    store = EpisodeStore(tmp_path)
    with EpisodeWriter(store, task="task", robot="robot", cameras=[]) as writer:
        for stamp, value in rows:
            writer.append("joints", stamp, [value, 1.0])
        episode = store.open(writer.close({}))
    windows = Windows(episode, {"streams/joints": Sampling(tuple(offsets), how, tolerance)})
    stamps = [stamp for stamp, _ in rows]
    assert windows.anchors_ns.tolist() == stamps
    for anchor, found in zip(stamps, windows, strict=True):
        window = found["streams/joints"]
        assert window.times_ns.tolist() == [anchor + offset for offset in offsets]
        for place, offset in enumerate(offsets):
            wanted = plain(stamps, anchor + offset, how, tolerance, max(stamps))
            assert window.padded[place] == (wanted is None)
            if wanted is None:
                assert window.values[place].tolist() == [0, 0]
                taken = (window.stamps_ns[place], window.later_ns[place], window.ages_ns[place], window.numbers[place])
                assert taken == (NO_STAMP, NO_STAMP, NO_AGE, -1)
                continue
            one, other, weight = wanted
            assert window.numbers[place] == one
            assert (window.stamps_ns[place], window.later_ns[place]) == (stamps[one], stamps[other])
            assert window.ages_ns[place] == anchor + offset - stamps[one]
            a, b = rows[one][1], rows[other][1]
            assert window.values[place, 1] == 1.0
            if one == other or a == b:
                assert window.values[place, 0] == a or math.isnan(a)
            elif math.isnan(a) or math.isnan(b) or (math.isinf(a) and math.isinf(b)):
                assert math.isnan(window.values[place, 0])
            elif not (math.isinf(a) or math.isinf(b)):
                mean = (1 - weight) * Fraction(a) + weight * Fraction(b)
                slack = 1e-12 * (abs(Fraction(a)) + abs(Fraction(b))) + Fraction(1, 10**300)
                assert abs(Fraction(float(window.values[place, 0])) - mean) <= slack


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    """A camera of 9 frames, one without any, a stream at three times the rate, one of angles, two decisions."""
    cameras = [make_camera("front"), make_camera("hand/left", 6, 8), make_camera("off")]
    store = EpisodeStore(tmp_path_factory.mktemp("windows"))
    with EpisodeWriter(store, task="task", robot="robot", cameras=cameras, color_codec="lossless") as writer:
        for number in range(9):
            writer.append_frame(make_frame(cameras[0], number))
            if number % 3 == 0:
                writer.append_frame(make_frame(cameras[1], number))
        for number in range(27):
            writer.append("joints", START_NS + number * PERIOD_NS // 3, [float(number), -2.0 * number])
        writer.append("wrist", START_NS, [3.0])
        writer.append("wrist", START_NS + 10, [-3.0])
        writer.append("gripper", START_NS + 5 * PERIOD_NS, [0.5])
        for number in range(2):
            writer.append_decision(make_action(number), [make_frame(cameras[0], 0)])
        return store.open(writer.close({}))


def at_ns(*offsets: int, **options: object) -> Sampling:
    return Sampling(offsets, **options)  # type: ignore[arg-type]


def one(windows: Windows, anchor_ns: int) -> Window:
    (window,) = windows.at(anchor_ns).values()
    return window


def test_images_come_with_their_masks_at_both_ends(episode: Episode) -> None:
    period_s = PERIOD_NS / 1e9
    history = Sampling.at(*(k * period_s for k in (-2, -1, 0, 1)), align="nearest", tolerance_s=0.001)
    windows = Windows(episode, {"cameras/front/color": history, "cameras/front/depth": history})
    assert len(windows) == 9
    frames = episode.frames("front")
    for number, padded in ((0, [1, 1, 0, 0]), (1, [1, 0, 0, 0]), (4, [0, 0, 0, 0]), (-1, [0, 0, 0, 1])):
        for key, images in (("color", frames.colors(range(9))), ("depth", frames.depths_mm(range(9)))):
            window = windows[number][f"cameras/front/{key}"]
            assert window.padded.tolist() == [bool(flag) for flag in padded]
            for place, offset in enumerate((-2, -1, 0, 1)):
                wanted = np.zeros_like(images[0]) if padded[place] else images[number % 9 + offset]
                np.testing.assert_array_equal(window.values[place], wanted)


def test_the_edge_may_fill_what_is_padding(episode: Episode) -> None:
    sampling = Sampling.every(1e9 / PERIOD_NS, first=-2, length=5, fill="edge")
    first, last = (
        Windows(episode, {"streams/joints": sampling}, reference="cameras/front/color")[number]["streams/joints"]
        for number in (0, -1)
    )
    assert first.values[:, 0].tolist() == [0, 0, 0, 3, 6]
    assert first.padded.tolist() == [True, True, False, False, False]
    assert first.ages_ns[0] == -2 * PERIOD_NS
    assert last.values[:, 0].tolist() == [18, 21, 24, 26, 26]
    # 26 is the stream's own last sample, after the last frame; what lies after both is padding.
    assert last.padded.tolist() == [False, False, False, True, True]


def test_hold_knows_nothing_of_the_future(episode: Episode) -> None:
    window = one(Windows(episode, {"streams/gripper": at_ns(-1, 0, 1)}), START_NS + 5 * PERIOD_NS)
    assert window.padded.tolist() == [True, False, True]
    held = Windows(episode, {"streams/gripper": at_ns(0)}, reference="cameras/front/color")
    assert [bool(one(held, int(t)).padded[0]) for t in held.anchors_ns] == [True] * 5 + [False] * 4
    aged = Windows(episode, {"streams/gripper": at_ns(0, tolerance_ns=PERIOD_NS)}, reference="cameras/front/color")
    assert [bool(one(aged, int(t)).padded[0]) for t in aged.anchors_ns] == [True] * 5 + [False] * 2 + [True] * 2


def test_angles_go_the_shorter_way_round(episode: Episode) -> None:
    plainly = one(Windows(episode, {"streams/wrist": at_ns(5, align="interpolate")}), START_NS)
    assert plainly.values[0, 0] == 0
    turned = one(Windows(episode, {"streams/wrist": at_ns(0, 5, 10, align="interpolate", angles=True)}), START_NS)
    assert turned.values[:, 0] == pytest.approx([3, math.pi, -3])


def test_a_camera_without_frames_is_padding_alone(episode: Episode) -> None:
    windows = Windows(episode, {"cameras/off/color": at_ns(0, 1)}, reference="streams/joints")
    window = windows[3]["cameras/off/color"]
    assert window.values.shape == (2, 12, 16, 3)
    assert not window.values.any()
    assert window.padded.all()
    assert len(Windows(episode, {"cameras/off/color": at_ns(0)})) == 0


def test_names_may_hold_slashes(episode: Episode) -> None:
    window = one(Windows(episode, {"cameras/hand/left/color": at_ns(0)}), START_NS + 3 * PERIOD_NS)
    np.testing.assert_array_equal(window.values[0], episode.frames("hand/left").color(1))
    assert window.numbers.tolist() == [1]


def test_decisions_are_a_stream(episode: Episode) -> None:
    window = one(Windows(episode, {"decisions": at_ns(-1, 0, 1)}, reference="cameras/front/color"), START_NS)
    assert window.padded.tolist() == [True, False, False]
    assert window.numbers.tolist() == [-1, 0, 1]
    for number in range(2):
        np.testing.assert_array_equal(window.values[number + 1, 0], make_action(number).pick)
        np.testing.assert_array_equal(window.values[number + 1, 1], make_action(number).place)


def test_long_streams_are_read_by_chunk(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    with EpisodeWriter(store, task="task", robot="robot", cameras=[]) as writer:
        for number in range(2500):
            writer.append("joints", START_NS + number, [float(number)])
        episode = store.open(writer.close({}))
    window = one(Windows(episode, {"streams/joints": at_ns(-600, 0, 600, 1499)}), START_NS + 1000)
    assert window.values[:, 0].tolist() == [400, 1000, 1600, 2499]


def test_seconds_become_whole_nanoseconds() -> None:
    assert Sampling.at(-0.1, 0, 1.5).offsets_ns == (-100_000_000, 0, 1_500_000_000)
    assert Sampling.every(30, first=-1, length=3).offsets_ns == (-33_333_333, 0, 33_333_333)
    assert Sampling.every(3, length=4).offsets_ns[-1] == 10**9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling(()), "at least one"),
        (lambda: Sampling((10**19,)), "further"),
        (lambda: Sampling.at(float("nan")), "no time"),
        (lambda: Sampling.every(0, length=2), "rate"),
        (lambda: Sampling.every(30, length=0), "length"),
        (lambda: Sampling((0,), "nearest"), "tolerance"),
        (lambda: Sampling((0,), tolerance_ns=-1), "tolerance"),
        (lambda: Sampling((0,), "linear"), "alignment"),  # type: ignore[arg-type]
        (lambda: Sampling((0,), angles=True), "angles"),
        (lambda: Sampling((0,), fill="mirror"), "fill"),  # type: ignore[arg-type]
    ],
)
def test_a_sampling_that_makes_no_sense_is_refused(make, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("cameras/front", {}),
        ("cameras/front/color/", {}),
        ("cameras/back/color", {}),
        ("cameras/front/features", {}),
        ("streams/../joints", {}),
        ("streams", {}),
        ("decision", {}),
        ("cameras/front/color", {"align": "interpolate"}),
        ("decisions", {"align": "interpolate"}),
    ],
)
def test_what_cannot_be_sampled_is_refused(episode: Episode, key: str, options: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=key):
        Windows(episode, {key: at_ns(0, **options)})


def test_bad_places_are_refused(episode: Episode) -> None:
    windows = Windows(episode, {"streams/joints": at_ns(1)})
    with pytest.raises(IndexError, match="27"):
        windows[27]
    with pytest.raises(BadInput, match="int64"):
        windows.at(2**63 - 1)
    with pytest.raises(BadInput, match="nothing"):
        Windows(episode, {})

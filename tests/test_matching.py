"""Parts of a frame find each other by stamp, whatever the order in which they come."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.matching import StampMatcher


@settings(deadline=None)
@given(st.permutations([(kind, stamp) for kind in "abc" for stamp in range(6)]))
def test_every_set_is_formed_once_in_any_order(arrivals: list[tuple[str, int]]) -> None:
    matcher = StampMatcher("abc")
    found = [matcher.add(kind, stamp, (kind, stamp)) for kind, stamp in arrivals]
    sets = [parts for parts in found if parts is not None]
    assert sorted(parts["a"][1] for parts in sets) == list(range(6))
    assert all(parts == {kind: (kind, parts["a"][1]) for kind in "abc"} for parts in sets)
    assert matcher.newest() == {"a": None, "b": None, "c": None}


def test_stamps_within_the_slop_match_and_others_do_not() -> None:
    matcher = StampMatcher(["color", "depth"], slop_ns=5)
    assert matcher.add("color", 100, "c100") is None
    assert matcher.add("depth", 106, "d106") is None
    assert matcher.add("depth", 104, "d104") == {"color": "c100", "depth": "d104"}
    assert matcher.add("color", 109, "c109") == {"color": "c109", "depth": "d106"}


def test_memory_is_bounded_and_lost_frames_are_counted() -> None:
    matcher = StampMatcher(["color", "depth"], capacity=3)
    for stamp in range(10):
        assert matcher.add("color", stamp, stamp) is None
    assert matcher.forgotten == 7
    assert matcher.add("depth", 6, "late") is None
    assert matcher.add("depth", 9, "in time") == {"color": 9, "depth": "in time"}


def test_what_lacks_a_part_for_too_long_is_given_up_and_counted() -> None:
    matcher = StampMatcher(("color", "depth"))
    for stamp in (1, 2, 3):
        matcher.add("color", stamp, "c")
    matcher.add("depth", 4, "d")
    assert matcher.forget_before(3) == 2
    assert matcher.forgotten == 2
    assert matcher.newest() == {"color": 3, "depth": 4}
    assert matcher.add("depth", 3, "d") == {"color": "c", "depth": "d"}
    assert matcher.forget_before(5) == 0
    assert matcher.newest() == {"color": None, "depth": None}

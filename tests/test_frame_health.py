"""Which pictures of a camera are believed, and since when they are the same."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.errors import BadInput
from embodied_vision.frame_health import FrameHealth, check_frame
from embodied_vision.types import RGBD, Camera

PERIOD_NS = 66_000_000
NOW_NS = 1_700_000_000_000_000_000


def picture(value: int = 120, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    image = np.full((*size, 3), 100, np.uint8)
    image[3, 5] = value
    return image


def look(health: FrameHealth, number: int, color: np.ndarray, *, late_ns: int = 30_000_000) -> tuple[str, int]:
    stamp_ns = NOW_NS + number * PERIOD_NS
    report = health.look(color, stamp_ns, stamp_ns + late_ns)
    return report.problem, (report.unchanged_ns - NOW_NS) // PERIOD_NS


def test_pictures_that_change_are_believed_and_equal_ones_counted_from_the_first() -> None:
    health = FrameHealth()
    seen = [look(health, n, picture(value)) for n, value in enumerate([1, 2, 3, 3, 3, 4])]
    assert seen == [("", 0), ("", 1), ("", 2), ("", 2), ("", 2), ("", 5)]


@pytest.mark.parametrize(("value", "word"), [(0, "black"), (3, "black"), (255, "white")])
def test_a_picture_without_light_or_with_too_much_is_not(value: int, word: str) -> None:
    assert word in look(FrameHealth(), 0, np.full((24, 32, 3), value, np.uint8))[0]


def test_stamps_that_stand_or_go_back_are_noticed_and_then_forgiven() -> None:
    health = FrameHealth()
    assert look(health, 5, picture(1))[0] == ""
    assert look(health, 5, picture(2))[0] == "its stamps stand still"
    assert "went back by 0.066 s" in look(health, 4, picture(3))[0]
    assert look(health, 6, picture(4))[0] == ""


@pytest.mark.parametrize(("late_ns", "word"), [(1_100_000_000, "behind"), (-200_000_000, "ahead of")])
def test_stamps_far_from_the_clock_are_not_believed(late_ns: int, word: str) -> None:
    assert word in look(FrameHealth(), 0, picture(), late_ns=late_ns)[0]
    assert look(FrameHealth(), 0, picture(), late_ns=900_000_000)[0] == ""


def test_a_row_of_equal_pictures_begins_anew_after_wrong_stamps() -> None:
    health = FrameHealth()
    look(health, 100, picture(1))
    for number in (10, 11, 12):  # the camera's clock is wrong for a while
        assert look(health, number, picture(2), late_ns=(100 - number) * PERIOD_NS)[0]
    assert look(health, 103, picture(2), late_ns=0) == ("", 103)
    assert look(health, 104, picture(2)) == ("", 103)


def test_another_size_is_wrong_until_the_first_is_back() -> None:
    health = FrameHealth()
    assert look(health, 0, picture())[0] == ""
    assert "24x12 now and were 32x24" in look(health, 1, picture(size=(12, 24)))[0]
    assert look(health, 2, picture(7))[0] == ""


def test_what_cannot_be_read_says_why_and_is_no_equal_picture() -> None:
    health = FrameHealth()
    look(health, 0, picture())
    assert health.unusable(BadInput("no color"), NOW_NS).problem == "no color"
    assert look(health, 2, picture()) == ("", 2)


def test_nothing_is_decided_on_black_pictures_or_without_depth() -> None:
    camera = Camera("camera", 32, 24, np.eye(3), np.eye(4))
    depth = np.ones((24, 32), np.float32)
    check_frame(RGBD(picture(), depth, camera, 5))
    with pytest.raises(BadInput, match=r"'camera', frame stamped 5: .* black"):
        check_frame(RGBD(np.zeros((24, 32, 3), np.uint8), depth, camera, 5))
    for empty in (np.zeros_like(depth), np.full_like(depth, np.nan)):
        with pytest.raises(BadInput, match="no returns"):
            check_frame(RGBD(picture(), empty, camera, 5))

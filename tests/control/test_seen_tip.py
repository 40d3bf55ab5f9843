"""Where a camera's picture shows the tool, and how far it has moved in it."""

from __future__ import annotations

import numpy as np

from embodied_vision.calibration import read_cameras
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.seen_tip import GAP_NS, SeenTip
from embodied_vision.geometry import project, tool_down

MODEL = RobotModel.load()
CAMERA = read_cameras()[0]
POINTS = ((0.45, -0.1, 0.1), (0.5, 0.1, 0.1))
POSES = [MODEL.inverse(tool_down(*point), MODEL.home) for point in POINTS]
FIRST, LAST = project(np.array(POINTS), CAMERA.K, CAMERA.T_base_camera)[0]
WAY_PX = float(np.linalg.norm(LAST - FIRST))


def tip_at(*places: tuple[int, np.ndarray]) -> SeenTip:
    tip = SeenTip(MODEL, CAMERA)
    for stamp_ns, q in places:
        tip.add_joints(q, stamp_ns)
    return tip


def moved_px(tip: SeenTip, row_ns: int, stamp_ns: int) -> float:
    """With one more picture."""
    tip.add_picture(row_ns, stamp_ns)
    return tip.moved_px


def test_the_way_in_the_picture_is_that_of_the_projected_tip() -> None:
    places = (9, POSES[0]), (10, POSES[0]), (11, POSES[0]), (20, POSES[1]), (21, POSES[1])
    np.testing.assert_allclose(moved_px(tip_at(*places), 10, 20), WAY_PX, atol=0.5)
    assert moved_px(tip_at(*places), 10, 19) == 0.0, "between two joint states it may still have been at the first"
    assert moved_px(tip_at(*places), 20, 25) == 0.0, "another row"


def test_pictures_that_come_before_their_joint_states_wait_for_them() -> None:
    """A camera may be quicker than a driver; what is known of its row stays, for nothing new is known."""
    tip = tip_at((9, POSES[0]), (11, POSES[0]))
    for stamp_ns in (10, 20, 30, 40):
        assert moved_px(tip, 10, stamp_ns) == 0.0
    for n in (19, 21):
        tip.add_joints(POSES[1], n)
    np.testing.assert_allclose(tip.moved_px, WAY_PX, atol=0.5)
    tip.add_joints(POSES[1], 29)
    np.testing.assert_allclose(moved_px(tip, 10, 50), WAY_PX, atol=0.5)
    for n in (31, 39, 41):
        tip.add_joints(POSES[0], n)
    assert tip.moved_px < 0.5, "back where it was"
    assert moved_px(tip, 60, 60) == 0.0, "another row"
    for n in (59, 61):
        tip.add_joints(POSES[1], n)
    assert tip.moved_px == 0.0, "the last picture of the row before is of no interest"


def test_a_tip_outside_the_picture_has_not_moved_in_it_and_one_that_came_in_has() -> None:
    outside = MODEL.home + np.array([0.3, 0, 0, 0, 0, 0, 0])
    tip = tip_at((9, MODEL.home), (11, MODEL.home), (19, outside), (21, outside))
    assert moved_px(tip, 10, 20) == 0.0
    for n in (29, 31):
        tip.add_joints(POSES[0], n)
    assert moved_px(tip, 10, 30) > 20.0


def test_a_row_is_remembered_however_long_it_lasts() -> None:
    tip = tip_at(*((n, POSES[0]) for n in range(1000)))
    assert moved_px(tip, 990, 998) == 0.0
    for n in range(2000, 3000):
        tip.add_joints(POSES[0], n)
        assert moved_px(tip, 990, n) == 0.0
    for n in (3000, 3001):
        tip.add_joints(POSES[1], n)
    np.testing.assert_allclose(moved_px(tip, 990, 3000), WAY_PX, atol=0.5)


def test_where_the_tip_was_while_nothing_was_heard_is_unknown() -> None:
    """Else an arm that came to rest unheard would seem to have moved before a camera that is well."""
    last, first = GAP_NS // 10, 2 * GAP_NS
    tip = tip_at((0, POSES[0]), (last, POSES[0]))
    for row_ns in (last + 1, GAP_NS, first - 1):
        for n in range(first, first + 10):
            tip.add_joints(POSES[1], n)
            assert moved_px(tip, row_ns, n - 1) == 0.0
    for n in range(first + 10, first + 13):
        tip.add_joints(POSES[0], n)
    np.testing.assert_allclose(moved_px(tip, first - 1, first + 11), WAY_PX, atol=0.5)


def test_joint_states_that_are_not_finite_or_come_twice_change_nothing() -> None:
    assert moved_px(SeenTip(MODEL, CAMERA), 0, 10) == 0.0
    assert moved_px(tip_at((10, POSES[0]), (10, POSES[1]), (20, np.full(7, np.nan))), 0, 30) == 0.0


def test_a_clock_that_is_set_back_ends_what_was_known() -> None:
    tip = tip_at((1000, POSES[0]), (1010, POSES[0]), (1020, POSES[1]), (1030, POSES[1]))
    assert moved_px(tip, 1005, 1025) > 20.0
    tip.add_joints(POSES[1], 500)
    assert tip.moved_px == 0.0
    tip.add_joints(POSES[1], 510)
    assert moved_px(tip, 500, 505) == 0.0
    assert moved_px(tip, 1005, 1025) == 0.0

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
        tip.add(q, stamp_ns)
    return tip


def test_the_way_in_the_picture_is_that_of_the_projected_tip() -> None:
    tip = tip_at((9, POSES[0]), (10, POSES[0]), (11, POSES[0]), (20, POSES[1]), (21, POSES[1]))
    np.testing.assert_allclose(tip.moved_px(10, 20), WAY_PX, atol=0.5)
    assert tip.moved_px(10, 19) == 0.0, "between two joint states it may still have been at the first"
    assert tip.moved_px(20, 25) == 0.0, "another row"


def test_a_tip_outside_the_picture_has_not_moved_in_it_and_one_that_came_in_has() -> None:
    tip = tip_at((10, MODEL.home), (20, MODEL.home + np.array([0.3, 0, 0, 0, 0, 0, 0])))
    assert tip.moved_px(10, 20) == 0.0
    tip.add(POSES[0], 30)
    tip.add(POSES[0], 31)
    assert tip.moved_px(10, 30) > 20.0


def test_a_row_is_remembered_however_long_it_lasts() -> None:
    tip = tip_at(*((n, POSES[0]) for n in range(1000)))
    assert tip.moved_px(990, 999) == 0.0
    for n in range(2000, 3000):
        tip.add(POSES[0], n)
        assert tip.moved_px(990, n) == 0.0
    tip.add(POSES[1], 3000)
    tip.add(POSES[1], 3001)
    np.testing.assert_allclose(tip.moved_px(990, 3000), WAY_PX, atol=0.5)


def test_where_the_tip_was_while_nothing_was_heard_is_unknown() -> None:
    """Else an arm that came to rest unheard would seem to have moved before a camera that is well."""
    last, first = GAP_NS // 10, 2 * GAP_NS
    tip = tip_at((0, POSES[0]), (last, POSES[0]))
    for row_ns in (last + 1, GAP_NS, first - 1):
        for n in range(first, first + 10):
            tip.add(POSES[1], n)
            assert tip.moved_px(row_ns, n - 1) == 0.0
    for n in range(first + 10, first + 13):
        tip.add(POSES[0], n)
    np.testing.assert_allclose(tip.moved_px(first - 1, first + 11), WAY_PX, atol=0.5)


def test_joint_states_that_are_not_finite_or_come_twice_change_nothing() -> None:
    assert SeenTip(MODEL, CAMERA).moved_px(0, 10) == 0.0
    assert tip_at((10, POSES[0]), (10, POSES[1]), (20, np.full(7, np.nan))).moved_px(0, 30) == 0.0


def test_a_clock_that_is_set_back_ends_what_was_known() -> None:
    tip = tip_at((1000, POSES[0]), (1010, POSES[1]), (500, POSES[1]), (510, POSES[1]))
    assert tip.moved_px(500, 510) == 0.0
    assert tip.moved_px(1000, 1010) == 0.0

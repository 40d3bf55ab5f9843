"""Where a camera's picture shows the tool, and how far it has moved in it."""

from __future__ import annotations

import numpy as np

from embodied_vision.calibration import read_cameras
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.seen_tip import SeenTip
from embodied_vision.geometry import project, tool_down

MODEL = RobotModel.load()
CAMERA = read_cameras()[0]
POINTS = ((0.45, -0.1, 0.1), (0.5, 0.1, 0.1))
POSES = [MODEL.inverse(tool_down(*point), MODEL.home) for point in POINTS]


def test_the_way_in_the_picture_is_that_of_the_projected_tip() -> None:
    tip = SeenTip(MODEL, CAMERA)
    for stamp_ns, q in ((10, POSES[0]), (20, POSES[1])):
        tip.add(q, stamp_ns)
    first, last = project(np.array(POINTS), CAMERA.K, CAMERA.T_base_camera)[0]
    np.testing.assert_allclose(tip.moved_px(10, 20), np.linalg.norm(last - first), atol=0.5)
    assert tip.moved_px(10, 19) == 0.0, "between two joint states the older counts"
    assert tip.moved_px(20, 25) == 0.0


def test_a_tip_outside_the_picture_has_not_moved_in_it_and_one_that_came_in_has() -> None:
    tip = SeenTip(MODEL, CAMERA)
    tip.add(MODEL.home, 10)
    tip.add(MODEL.home + np.array([0.3, 0, 0, 0, 0, 0, 0]), 20)
    assert tip.moved_px(10, 20) == 0.0
    tip.add(POSES[0], 30)
    assert tip.moved_px(10, 30) > 20.0


def test_joint_states_that_are_not_finite_or_come_twice_change_nothing() -> None:
    tip = SeenTip(MODEL, CAMERA)
    assert tip.moved_px(0, 10) == 0.0
    tip.add(POSES[0], 10)
    tip.add(POSES[1], 10)
    tip.add(np.full(7, np.nan), 20)
    assert tip.moved_px(0, 30) == 0.0


def test_a_clock_that_is_set_back_ends_what_was_known() -> None:
    tip = SeenTip(MODEL, CAMERA)
    for stamp_ns, q in ((1000, POSES[0]), (1010, POSES[1]), (500, POSES[1]), (510, POSES[1])):
        tip.add(q, stamp_ns)
    assert tip.moved_px(500, 510) == 0.0
    assert tip.moved_px(1000, 1010) == 0.0

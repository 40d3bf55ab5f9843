"""The simulated arm controller does what ros2_control's does: join, interpolate, replace, hold, reject."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_vision.errors import BadInput
from embodied_vision_sim.joint_trajectory_controller import JointPath, JointTrajectoryController

HOME = np.array([0.1, -0.2])


def path(times: list[float], *positions: list[float], velocities: list[list[float]] | None = None) -> JointPath:
    return JointPath(
        np.array(times), np.array(positions), np.zeros((len(times), 2)) if velocities is None else np.array(velocities)
    )


def test_it_holds_before_and_after() -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(path([1.0], [0.5, 0.5]), 10.0)
    for now_s, expected in ((9.0, HOME), (11.0, [0.5, 0.5]), (99.0, [0.5, 0.5])):
        q, qd = controller.desired(now_s)
        np.testing.assert_allclose(q, expected)
        assert not qd.any()
    assert controller.end_s == 11.0


@given(st.floats(0.0, 1.0), st.floats(0.05, 0.9))
def test_a_replacement_starts_where_the_arm_is_supposed_to_be(when: float, first: float) -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(path([1.0], [1.0, 1.0]), 0.0)
    before = controller.desired(when)
    controller.accept(path([first, first + 1.0], [0.3, 0.3], [0.0, 0.0]), when)
    after = controller.desired(when)
    np.testing.assert_allclose(after, before, atol=1e-9)
    np.testing.assert_allclose(controller.desired(when + first)[0], [0.3, 0.3], atol=1e-9)


def test_velocities_are_honoured_and_match_the_positions() -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(path([0.5, 1.0], [0.5, 0.0], [0.6, 0.0], velocities=[[0.4, 0.1], [0.0, 0.0]]), 0.0)
    np.testing.assert_allclose(controller.desired(0.5)[1], [0.4, 0.1], atol=1e-9)
    for now_s in np.linspace(0.05, 0.95, 19):
        numeric = (controller.desired(now_s + 1e-6)[0] - controller.desired(now_s - 1e-6)[0]) / 2e-6
        np.testing.assert_allclose(controller.desired(now_s)[1], numeric, atol=1e-4)


def test_without_velocities_it_moves_evenly() -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(JointPath(np.array([2.0]), np.array([[2.1, -0.2]])), 0.0)
    np.testing.assert_allclose(controller.desired(0.5)[0], [0.6, -0.2])
    np.testing.assert_allclose(controller.desired(0.5)[1], [1.0, 0.0])


def test_a_trajectory_for_later_leaves_the_running_one_until_then() -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(path([1.0], [1.0, 1.0]), 0.0)
    at_half = controller.desired(0.5)[0]
    controller.accept(path([1.0], [0.0, 0.0]), 0.8)
    np.testing.assert_allclose(controller.desired(0.5)[0], at_half)
    controller.forget_before(0.9)
    np.testing.assert_allclose(controller.desired(1.8)[0], [0.0, 0.0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (path([]), "no points"),
        (path([0.0, 0.0], [0, 0], [0, 0]), "do not increase"),
        (path([-1.0], [0, 0]), "do not increase"),
        (path([1.0], [np.nan, 0]), r"positions\[0\]\[0\] is nan"),
        (path([1.0], [0, 0], velocities=[[0.0, np.inf]]), r"velocities\[0\]\[1\] is inf"),
        (path([1.0], [0, 0], velocities=[[0.5, 0.0]]), "ends with velocities"),
        (path([1.0], [0.0], velocities=[[0.0]]), "shape"),
    ],
)
def test_malformed_trajectories_are_rejected_and_the_running_one_goes_on(bad: JointPath, message: str) -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(path([1.0], [0.5, 0.5]), 0.0)
    with pytest.raises(BadInput, match=message):
        controller.accept(bad, 0.5)
    np.testing.assert_allclose(controller.desired(1.0)[0], [0.5, 0.5])

"""The simulated arm controller does what ros2_control's does: join, interpolate, replace, hold, reject."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_vision.errors import BadInput
from embodied_vision_sim.joint_trajectory_controller import JOIN_S, JointPath, JointTrajectoryController

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
        (replace(path([1.0], [0, 0]), accelerations=np.array([[0.0, np.nan]])), r"accelerations\[0\]\[1\] is nan"),
        (replace(path([1.0], [0, 0]), velocities=None, accelerations=np.zeros((1, 2))), "without velocities"),
    ],
)
def test_malformed_trajectories_are_rejected_and_the_running_one_goes_on(bad: JointPath, message: str) -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(path([1.0], [0.5, 0.5]), 0.0)
    with pytest.raises(BadInput, match=message):
        controller.accept(bad, 0.5)
    np.testing.assert_allclose(controller.desired(1.0)[0], [0.5, 0.5])


def quintic() -> JointPath:
    """Samples of one smooth motion with its velocities and accelerations."""
    times = np.linspace(0.1, 1.0, 10)
    u = times[:, None] * np.array([1.0, 1.0])
    return JointPath(
        times,
        HOME + (10 * u**3 - 15 * u**4 + 6 * u**5),
        30 * u**2 - 60 * u**3 + 30 * u**4,
        60 * u - 180 * u**2 + 120 * u**3,
    )


def test_with_accelerations_it_follows_a_quintic_exactly_up_to_its_derivatives() -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(quintic(), 5.0)
    for t in np.linspace(0.001, 0.999, 57):
        q, qd, qdd = controller.sample(5.0 + t)
        np.testing.assert_allclose(q, HOME + 10 * t**3 - 15 * t**4 + 6 * t**5, atol=1e-9)
        np.testing.assert_allclose(qd, 30 * t**2 - 60 * t**3 + 30 * t**4, atol=1e-8)
        np.testing.assert_allclose(qdd, 60 * t - 180 * t**2 + 120 * t**3, atol=1e-6)


def test_a_trajectory_that_began_before_it_arrived_is_entered_midway() -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(quintic(), 5.0)
    before = controller.sample(5.43)
    controller.take(controller.plan(quintic(), 5.0, join_s=5.42))
    np.testing.assert_allclose(controller.sample(5.43), before, atol=1e-6)
    np.testing.assert_allclose(controller.sample(5.42)[0], HOME + 10 * 0.42**3 - 15 * 0.42**4 + 6 * 0.42**5, atol=1e-9)


def test_a_trajectory_that_arrives_in_its_last_moment_is_followed_to_its_end() -> None:
    controller = JointTrajectoryController(np.zeros(1))
    path = JointPath(np.array([0.5, 1.0]), np.array([[0.5], [0.6]]), np.zeros((2, 1)))
    controller.take(controller.plan(path, 0.0, 1.0 - JOIN_S / 2))
    assert controller.desired(2.0)[0] == pytest.approx([0.6])


def test_a_trajectory_that_is_over_when_it_arrives_is_rejected() -> None:
    controller = JointTrajectoryController(HOME)
    with pytest.raises(BadInput, match=r"ended 0.500 s ago"):
        controller.plan(path([1.0], [0.5, 0.5]), 10.0, join_s=11.5)


def test_a_new_trajectory_takes_the_place_of_one_that_was_to_come() -> None:
    controller = JointTrajectoryController(HOME)
    controller.accept(path([1.0], [1.0, 1.0]), 5.0)
    controller.accept(path([1.0], [0.0, 0.0]), 2.0)
    np.testing.assert_allclose(controller.desired(7.0)[0], [0.0, 0.0])
    assert controller.end_s == 3.0

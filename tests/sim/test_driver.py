"""The simulated driver without ROS: its own limits, goals and their tolerances, braking, a witness of its stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import BadInput, Refused
from embodied_vision_sim.driver import CHECK_S, Driver, DriverLimits, Goal
from embodied_vision_sim.joint_trajectory_controller import JointPath
from embodied_vision_sim.setpoints import Setpoint

ONE = np.ones(2)
LIMITS = DriverLimits(("a", "b"), -2 * ONE, 2 * ONE, ONE, 4 * ONE)
STILL = np.zeros(2)


def ramp(distance: float, duration: float) -> JointPath:
    """A quintic of both joints from 0 to `distance` rad; at most 1.875 d/T rad/s and 5.774 d/T² rad/s²."""
    return JointPath(np.array([duration]), np.full((1, 2), distance), np.zeros((1, 2)), np.zeros((1, 2)))


def stream(driver: Driver, first_s: float, last_s: float, rate: float = 120.0) -> list[Setpoint]:
    return [driver.setpoint(float(t)) for t in np.arange(first_s, last_s, 1 / rate)]


def goal(path_rad: float = np.inf, goal_rad: float = 0.02, goal_s: float = 0.5) -> Goal:
    return Goal(np.full(2, path_rad), np.full(2, goal_rad), goal_s)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 1.9), st.floats(0.3, 8.0))
def test_it_follows_what_keeps_its_limits_and_refuses_the_rest(distance: float, duration: float) -> None:
    speed, bend = 1.875 * distance / duration, 10 / np.sqrt(3) * distance / duration**2 / 4.0
    driver = Driver(LIMITS, STILL)
    if max(speed, bend) > 1.001:
        with pytest.raises(Refused):
            driver.offer(ramp(distance, duration), 1.0, 1.0)
        assert sum(driver.account.refused.values()) == 1
        assert not stream(driver, 1.0, 2.0)[-1].positions.any()
    elif max(speed, bend) < 0.999:
        driver.offer(ramp(distance, duration), 1.0, 1.0)
        points = stream(driver, 1.0, 1.1 + duration)
        np.testing.assert_allclose(points[-1].positions, distance)
        assert driver.account.velocity_share == pytest.approx(speed, rel=1e-3)
    assert not driver.account.violations


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (ramp(2.1, 20.0), "driver_position_limit"),
        (ramp(1.5, 2.0), "driver_velocity_limit"),
        (ramp(0.1, 0.3), "driver_acceleration_limit"),
        (JointPath(np.array([0.0, 1.0]), np.full((2, 2), 0.1), np.zeros((2, 2))), "driver_velocity_limit"),
        (JointPath(np.array([1.0, 2.0, 3.0]), np.array([[0.5], [-0.4], [0.5]]) * ONE), "driver_velocity_limit"),
    ],
)
def test_the_limit_that_is_broken_is_named(path: JointPath, rule: str) -> None:
    driver = Driver(LIMITS, STILL)
    if path.velocities is None:
        path = JointPath(path.times_s / 2, path.positions)
    with pytest.raises(Refused) as refusal:
        driver.offer(path, 1.0, 1.0)
    assert refusal.value.rule == rule
    assert driver.account.refused == {rule: 1}
    assert "a" in driver.account.last


def test_a_refused_or_malformed_trajectory_leaves_the_running_one() -> None:
    driver = Driver(LIMITS, STILL)
    driver.offer(ramp(0.5, 2.0), 1.0, 1.0)
    stream(driver, 1.0, 2.0)
    with pytest.raises(Refused):
        driver.offer(ramp(-1.9, 0.2), 2.0, 2.0)
    with pytest.raises(BadInput, match="ago"):
        driver.offer(ramp(0.1, 0.5), 0.5, 2.0)
    np.testing.assert_allclose(stream(driver, 2.0, 3.1)[-1].positions, 0.5)
    assert (driver.account.accepted, driver.account.malformed) == (1, 1)
    assert driver.account.late_s == 1.5
    assert not driver.account.violations


def test_a_goal_is_reached_when_the_arm_is_there() -> None:
    driver = Driver(LIMITS, STILL)
    driver.offer(ramp(0.5, 2.0), 1.0, 1.0, goal())
    driver.measure(STILL, 1.0, 1.0)
    driver.measure(np.full(2, 0.45), 3.01, 3.01)
    assert driver.result() is None
    driver.measure(np.full(2, 0.49), 3.02, 3.02)
    result = driver.result()
    assert result is not None
    assert result.ending == "reached"
    assert driver.result() is None


def test_a_measurement_from_before_the_end_does_not_reach_the_goal() -> None:
    driver = Driver(LIMITS, STILL)
    driver.offer(ramp(0.5, 2.0), 1.0, 1.0, goal())
    driver.measure(np.full(2, 0.5), 2.99, 3.02)
    assert driver.result() is None


def test_a_goal_that_is_not_reached_in_time_fails() -> None:
    driver = Driver(LIMITS, STILL)
    driver.offer(ramp(0.5, 2.0), 1.0, 1.0, goal(goal_s=0.3))
    driver.measure(np.array([0.5, 0.4]), 3.25, 3.25)
    assert driver.result() is None
    driver.measure(np.array([0.5, 0.4]), 3.35, 3.35)
    result = driver.result()
    assert result is not None
    assert result.ending == "goal_tolerance"
    assert result.reason.startswith("b is 0.1000 rad away")


def test_an_arm_off_its_path_is_braked() -> None:
    driver = Driver(LIMITS, STILL)
    driver.offer(ramp(0.8, 2.0), 1.0, 1.0, goal(path_rad=0.1))
    stream(driver, 1.0, 2.0)
    desired = driver.desired(1.95).positions
    driver.measure(desired, 1.95, 2.0)
    assert driver.result() is None
    driver.measure(desired + np.array([0.0, 0.11]), 1.95, 2.0)
    result = driver.result()
    assert result is not None
    assert result.ending == "path_tolerance"
    points = stream(driver, 2.0, 3.0)
    assert not points[-1].velocities.any()
    assert points[-1].positions[0] < 0.7
    assert driver.account.braked == 1
    assert not driver.account.violations


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 2.2), st.floats(0.1, 1.0))
def test_it_brakes_within_its_limits_whenever_it_is_told_to(when: float, distance: float) -> None:
    driver = Driver(LIMITS, STILL)
    driver.offer(ramp(distance, 2.0), 1.0, 1.0)
    stream(driver, 1.0, 1.0 + when, rate=240)
    driver.cancel(1.0 + when)
    points = stream(driver, 1.0 + when, 2.0 + when, rate=240)
    assert not points[-1].velocities.any()
    assert not driver.account.violations


def test_an_arm_that_was_moved_while_nobody_looked_is_held_where_it_is() -> None:
    driver = Driver(LIMITS, STILL)
    driver.offer(ramp(0.5, 2.0), 1.0, 1.0, goal())
    stream(driver, 1.0, 3.1)
    driver.find(np.full(2, 0.51), 4.0)
    np.testing.assert_allclose(driver.setpoint(4.0).positions, 0.5)
    driver.find(np.full(2, -0.3), 9.0)
    np.testing.assert_allclose(driver.setpoint(9.0).positions, -0.3)
    stream(driver, 9.01, 9.2)
    assert not driver.account.violations


def test_a_replaced_and_a_cancelled_goal_say_so() -> None:
    driver = Driver(LIMITS, STILL)
    driver.offer(ramp(0.5, 2.0), 1.0, 1.0, goal())
    driver.offer(ramp(0.4, 2.0), 1.5, 1.5, goal())
    assert driver.result() is not None
    driver.cancel(1.7)
    result = driver.result()
    assert result is not None
    assert result.ending == "cancelled"


@pytest.mark.parametrize(
    ("positions", "rule"),
    [([0, 0.02, 0.04], "velocity"), ([0, 0.0, 0.002], "acceleration"), ([2.1, 2.1, 2.1], "position")],
)
def test_the_witness_judges_the_stream_alone(positions: list[float], rule: str) -> None:
    driver = Driver(LIMITS, STILL)
    for number, position in enumerate(positions):
        driver._witness(Setpoint(1.0 + number / 100, np.full(2, float(position)), STILL))
    assert rule in driver.account.violations
    assert rule in driver.account.last


def test_the_witness_does_not_divide_by_next_to_nothing() -> None:
    driver = Driver(LIMITS, STILL)
    for number in range(4):
        driver._witness(Setpoint(1.0 + number * CHECK_S / 10, np.full(2, number * 1e-9), STILL))
    assert not driver.account.violations


def test_the_shipped_limits_hold_for_the_panda_and_are_no_wider_than_the_models() -> None:
    model = RobotModel.load("panda_suction")
    limits = DriverLimits.read(model.joint_names)
    assert (limits.velocity <= model.limits.velocity).all()
    assert (limits.acceleration <= model.limits.acceleration).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("joint_limits: {b: {}}", "no joint_limits of a"),
        ("joint_limits: {a: {min_pos", "cannot be read"),
        ("joint_limits: 3", "cannot be read"),
        ("", "cannot be read"),
        ("joint_limits: {a: {min_position: -1}}", "lack 'max_position'"),
        (
            "joint_limits: {a: {min_position: 1, max_position: -1, max_velocity: 1, max_acceleration: 1}}",
            "min below max",
        ),
        (
            "joint_limits: {a: {min_position: -1, max_position: 1, max_velocity: .inf, max_acceleration: 1}}",
            "finite numbers",
        ),
    ],
)
def test_limits_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        DriverLimits.read(["a"], path)
    with pytest.raises(BadInput, match="does not exist"):
        DriverLimits.read(["a"], tmp_path / "none.yaml")

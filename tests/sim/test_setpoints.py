"""Setpoints of a driver outside are joined smoothly; where they end the arm coasts to rest, and goes on from there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from embodied_vision.errors import BadInput
from embodied_vision_sim.camera import front_camera
from embodied_vision_sim.joint_trajectory_controller import JointPath
from embodied_vision_sim.live import REST_S, WAIT_S, LiveCell
from embodied_vision_sim.setpoints import COAST_S, STILL_S, Setpoint, SetpointFollower


def point(time_s: float, position: float, velocity: float = 0.0) -> Setpoint:
    return Setpoint(time_s, np.array([position, -position]), np.array([velocity, -velocity]))


def test_it_holds_before_the_first_and_joins_what_comes() -> None:
    follower = SetpointFollower(np.zeros(2))
    np.testing.assert_array_equal(follower.desired(3.0)[0], [0, 0])
    for t in np.arange(1.0, 2.0, 0.01):
        follower.accept(point(t, np.sin(t), np.cos(t)))
    for t in np.linspace(1.0, 1.98, 331):
        q, qd = follower.desired(float(t))
        np.testing.assert_allclose(q[0], np.sin(t), atol=1e-9)
        np.testing.assert_allclose(qd[0], np.cos(t), atol=1e-5)


def test_without_news_it_coasts_to_rest_and_takes_up_the_next_from_there() -> None:
    follower = SetpointFollower(np.zeros(2))
    follower.accept(point(1.0, 0.0, 0.5))
    assert follower.desired(1.0 + COAST_S)[1][0] == pytest.approx(0.0, abs=1e-12)
    assert follower.desired(9.0)[0][0] == pytest.approx(0.5 * COAST_S / 2)
    follower.forget_before(1.05)
    before = follower.desired(1.05)
    assert not follower.accept(point(1.04, 0.02, 0.5))
    assert follower.accept(point(1.10, 0.05, 0.5))
    np.testing.assert_allclose(follower.desired(1.05), before)
    np.testing.assert_allclose(follower.desired(1.10)[0][0], 0.05)


def test_it_knows_when_it_moves() -> None:
    follower = SetpointFollower(np.zeros(2))
    assert not follower.accept(point(1.0, 0.0))
    assert follower.end_s == -np.inf
    assert follower.accept(point(2.0, 0.1))
    assert not follower.accept(point(3.0, 0.1))
    assert follower.end_s == 2.0 + STILL_S


@pytest.mark.parametrize("bad", [Setpoint(5.0, np.zeros(3), np.zeros(3)), point(5.0, np.nan), point(5.0, 0.0, np.inf)])
def test_a_malformed_setpoint_is_refused_and_the_others_stand(bad: Setpoint) -> None:
    follower = SetpointFollower(np.zeros(2))
    follower.accept(point(1.0, 0.3))
    with pytest.raises(BadInput, match="check the driver"):
        follower.accept(bad)
    assert follower.desired(6.0)[0][0] == 0.3


@pytest.fixture
def cell() -> Iterator[LiveCell]:
    cell = LiveCell((front_camera(),), driven=True)
    cell.reset("block-insertion", 5)
    yield cell
    cell.close()


def drive(cell: LiveCell, first_s: float, last_s: float, speed: float) -> None:
    """Turn the first joint evenly; setpoints come in good time."""
    start = cell.world.joint_state()[0]
    direction = np.eye(len(start))[0]
    for now_s in np.arange(first_s, last_s, 0.01):
        moved = start + direction * speed * (now_s - first_s)
        cell.setpoint(Setpoint(float(now_s), moved, direction * speed))
        list(cell.advance(float(now_s), 4))
    list(cell.advance(last_s, 4))


def test_the_world_follows_the_driver_and_judges_when_it_rests(cell: LiveCell) -> None:
    home = cell.world.joint_state()[0]
    list(cell.advance(0.0, 4))
    drive(cell, 0.0, 1.0, 0.0)
    assert cell.judge() is None
    drive(cell, 1.0, 2.0, 0.3)
    assert cell.moving
    assert cell.world.joint_state()[0][0] == pytest.approx(home[0] + 0.3, abs=0.01)
    assert cell.judge() is None
    drive(cell, 2.0, 2.0 + REST_S + STILL_S + 0.1, 0.0)
    assert not cell.moving
    judged = cell.judge()
    assert judged is not None
    assert judged.motions == 1


def test_a_driver_that_dies_leaves_the_arm_standing(cell: LiveCell) -> None:
    list(cell.advance(0.0, 4))
    drive(cell, 0.0, 1.0, 0.5)
    for now_s in np.arange(1.0, 1.0 + WAIT_S + COAST_S + 0.2, 0.01):
        list(cell.advance(float(now_s), 4))
    assert np.abs(cell.world.joint_state()[1]).max() < 0.01


def test_the_world_waits_a_little_for_the_driver_and_no_longer(cell: LiveCell) -> None:
    list(cell.advance(0.0, 4))
    drive(cell, 0.0, 0.5, 0.5)
    list(cell.advance(0.5 + WAIT_S / 2, 4))
    assert cell.pacer.time_s <= 0.5
    list(cell.advance(0.5 + 2 * WAIT_S, 4))
    assert cell.pacer.time_s == pytest.approx(0.5 + WAIT_S, abs=0.005)


def test_a_reset_leaves_the_arm_where_its_driver_holds_it(cell: LiveCell) -> None:
    list(cell.advance(0.0, 4))
    drive(cell, 0.0, 1.0, 0.4)
    drive(cell, 1.0, 1.5, 0.0)
    before = cell.world.joint_state()[0]
    cell.reset("block-insertion", 6)
    np.testing.assert_allclose(cell.world.joint_state()[0], before, atol=1e-3)
    cell.reset("place-red-in-green", 6)
    np.testing.assert_allclose(cell.world.joint_state()[0], before, atol=1e-3)


def test_each_cell_takes_its_own_kind_of_command(cell: LiveCell) -> None:
    with pytest.raises(BadInput, match="has a driver"):
        cell.follow(JointPath(np.array([1.0]), np.zeros((1, 7))), 0.0)
    with pytest.raises(BadInput, match="reset it first"):
        LiveCell((front_camera(),)).setpoint(Setpoint(0.0, np.zeros(7), np.zeros(7)))

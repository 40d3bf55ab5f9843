"""Grasps are confirmed after the lift, drops are noticed on the way, and an arm with nothing in hand comes home."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.control import executive
from embodied_vision.control.holding import Holding
from embodied_vision.control.motion import CLOSED, OPEN
from embodied_vision.errors import Refused
from embodied_vision.types import PickPlace
from tests.control.bench import TICK_S, Bench
from tests.control.samples import MODEL


def closed_since(bench: Bench) -> float:
    """When the gripper was closed last; infinite while it is open."""
    at_s, command = bench.arm.grips[-1] if bench.arm.grips else (np.inf, OPEN)
    return at_s if command == CLOSED else np.inf


def test_that_nothing_is_held_counts_once_it_lasts() -> None:
    sensor = Holding(settle_s=0.1)
    assert not sensor.empty(5.0)
    for now_s, held, empty in ((0.0, False, False), (0.09, False, False), (0.11, False, True), (0.12, True, False)):
        sensor.feed(held, now_s)
        assert (sensor.held, sensor.empty(now_s)) == (held, empty)
    sensor.feed(False, 0.13)
    sensor.feed(True, 0.15)
    sensor.feed(False, 0.2)
    assert not sensor.empty(0.29)


def test_a_grasp_that_holds_is_carried_out() -> None:
    bench = Bench(holding=Holding())
    bench.held = lambda: bench.arm.now_s - closed_since(bench) > 0.2
    bench.begin()
    bench.run(20.0, until=lambda: bench.state() == "idle")
    status = bench.executive.status
    assert (status.done, status.failed, status.aborted) == (True, "", False)
    assert [command for _, command in bench.arm.grips] == [CLOSED, OPEN]


def test_a_missed_grasp_is_told_and_the_arm_comes_home_open() -> None:
    bench = Bench(holding=Holding())
    action = bench.action()
    bench.begin(action)
    bench.run(20.0, until=lambda: bool(bench.executive.status.failed))
    status = bench.executive.status
    assert (status.state, status.failed) == ("moving", "grasp_missed")
    assert "nothing is held" in status.reason
    assert MODEL.forward(bench.joints.positions)[2, 3] > 0.18  # noticed at the end of the lift, not before
    bench.run(20.0, until=lambda: bench.state() == "idle")
    status = bench.executive.status
    assert (status.done, status.aborted, status.failed) == (False, False, "grasp_missed")
    assert status.decision_id == action.decision_id
    assert [command for _, command in bench.arm.grips] == [CLOSED, OPEN, OPEN]
    np.testing.assert_allclose(bench.joints.positions, MODEL.home, atol=1e-3)
    bench.held = lambda: True
    bench.begin()
    assert bench.executive.status.failed == ""
    bench.run(20.0, until=lambda: bench.state() == "idle")
    assert bench.executive.status.done


@pytest.mark.parametrize("segment", ["transfer", "descend_place"])
def test_a_drop_on_the_way_brakes_lets_go_and_comes_home(segment: str) -> None:
    bench = Bench(holding=Holding(settle_s=0.1))
    bench.held = lambda: bench.arm.now_s - closed_since(bench) > 0.2
    bench.begin()
    bench.run(20.0, until=lambda: bench.executive.status.segment == segment)
    bench.run(0.3)
    assert bench.arm.moving()
    bench.held = lambda: False
    bench.run(0.1 + 0.25 + 3 * TICK_S)
    assert bench.executive.status.failed == "dropped"
    bench.run(20.0, until=lambda: bench.state() == "idle")
    status = bench.executive.status
    assert (status.done, status.aborted, status.failed) == (False, False, "dropped")
    np.testing.assert_allclose(bench.joints.positions, MODEL.home, atol=1e-3)


def test_a_flicker_of_the_sensor_is_no_drop() -> None:
    bench = Bench(holding=Holding(settle_s=0.1))
    bench.held = lambda: bench.arm.now_s - closed_since(bench) > 0.2 and round(bench.arm.now_s / TICK_S) % 20 > 1
    bench.begin()
    bench.run(20.0, until=lambda: bench.state() == "idle")
    assert bench.executive.status.done


def test_an_interruption_while_the_arm_brakes_for_a_drop_does_not_carry_on_with_nothing() -> None:
    bench = Bench(holding=Holding())
    bench.held = lambda: bench.arm.now_s - closed_since(bench) > 0.2
    bench.begin()
    bench.run(20.0, until=lambda: bench.executive.status.segment == "transfer")
    bench.run(0.3)
    bench.held = lambda: False
    bench.run(1.0, until=lambda: bool(bench.executive.status.failed))
    bench.silent = {"encoder"}
    bench.watchdog.set_alive("encoder", False)
    bench.run(0.3)
    assert bench.state() == "paused"
    bench.watchdog.set_alive("encoder", True)
    bench.silent = set()
    bench.run(0.5, until=lambda: bench.state() == "moving")
    assert "lets go" in bench.executive.status.reason
    bench.run(20.0, until=lambda: bench.state() == "idle")
    status = bench.executive.status
    assert (status.done, status.aborted, status.failed) == (False, False, "dropped")
    np.testing.assert_allclose(bench.joints.positions, MODEL.home, atol=1e-3)


def test_a_stop_while_it_returns_is_latched_and_the_failure_stays_told() -> None:
    bench = Bench(holding=Holding())
    bench.begin()
    bench.run(20.0, until=lambda: bool(bench.executive.status.failed))
    bench.executive.stop("operator", bench.arm.now_s, bench.arm.now_ns, bench.joints)
    bench.run(1.0)
    status = bench.executive.status
    assert (status.state, status.aborted, status.failed) == ("stopped", True, "grasp_missed")
    assert not bench.arm.moving()


def test_without_a_way_home_a_failed_grasp_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(holding=Holding())
    bench.begin()
    bench.run(20.0, until=lambda: bool(bench.executive.status.failed))

    def blocked(*_arguments: object) -> None:
        raise Refused("unreachable", "the way up", "blocked", "free", "clear it")

    monkeypatch.setattr(executive, "plan_home", blocked)
    bench.run(3.0, until=lambda: bench.state() == "idle")
    status = bench.executive.status
    assert (status.state, status.aborted, status.failed) == ("idle", True, "grasp_missed")
    assert (status.refused, status.reason[:11]) == ("unreachable", "unreachable")


def test_pushing_needs_no_grasp() -> None:
    bench = Bench(holding=Holding())
    action = bench.action()
    pick, place = action.pick.copy(), action.place.copy()
    pick[:3, 3], place[:3, 3] = (0.5, -0.1, 0.05), (0.5, 0.1, 0.05)
    bench.begin(PickPlace(pick=pick, place=place, primitive="push", stamp_ns=action.stamp_ns))
    bench.run(20.0, until=lambda: bench.state() == "idle")
    assert bench.executive.status.done

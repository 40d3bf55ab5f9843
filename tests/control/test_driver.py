"""A driver that is not ready gets nothing and ends the motion; one that runs slowly gets the same path, slowly."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.control.driver import DriverState
from embodied_vision.errors import BadInput, Refused
from tests.control.bench import TICK_S, Bench
from tests.control.samples import MODEL


def test_it_is_ready_once_all_have_said_so() -> None:
    driver = DriverState(["program", "robot_mode"])
    assert driver.problems == {"program": "program was never heard", "robot_mode": "robot_mode was never heard"}
    driver.report("program")
    driver.report("robot_mode", "robot mode 'IDLE'")
    assert driver.problems == {"robot_mode": "robot mode 'IDLE'"}
    driver.report("robot_mode")
    assert driver.problems == {}


@pytest.mark.parametrize("percent", [np.nan, np.inf, -1.0, 100.1])
def test_a_speed_scaling_that_is_none_changes_nothing(percent: float) -> None:
    driver = DriverState()
    driver.set_speed_scaling(40.0)
    with pytest.raises(BadInput, match="0 to 100"):
        driver.set_speed_scaling(percent)
    assert driver.pace == 0.4


def test_nothing_begins_before_the_robot_is_ready() -> None:
    bench = Bench(DriverState(["program"]))
    with pytest.raises(Refused, match="program was never heard") as error:
        bench.begin()
    assert error.value.rule == "lost"
    assert (bench.arm.sent, bench.executive.status.lost) == ([], "program")
    assert not bench.executive.can_begin(bench.joints, bench.arm.now_s, bench.arm.now_ns)
    bench.driver.report("program")
    bench.run(TICK_S)
    bench.begin()
    assert bench.state() == "moving"


def test_a_protective_stop_ends_the_motion_sends_nothing_and_is_latched() -> None:
    bench = Bench()
    bench.begin()
    bench.run(1.5)
    sent = len(bench.arm.sent)
    bench.driver.report("robot_mode", "robot mode 'PROTECTIVE_STOP'")
    bench.run(0.5)
    status = bench.executive.status
    assert (status.state, status.aborted, status.lost) == ("stopped", True, "robot_mode")
    assert "PROTECTIVE_STOP" in status.reason
    assert (len(bench.arm.sent), bench.drops) == (sent, 1)
    bench.driver.report("robot_mode")
    bench.run(2.0)
    assert (bench.state(), len(bench.arm.sent)) == ("stopped", sent)
    bench.executive.resume()
    bench.begin()
    assert bench.state() == "moving"


def test_a_driver_that_gives_up_stops_the_arm_and_nothing_is_sent() -> None:
    bench = Bench()
    bench.begin()
    bench.run(1.5)
    sent = len(bench.arm.sent)
    bench.executive.fail("the controller aborted: path tolerance violated", bench.arm.now_ns)
    bench.run(1.0)
    status = bench.executive.status
    assert (status.state, status.aborted, len(bench.arm.sent), bench.drops) == ("stopped", True, sent, 1)


def duration_s(bench: Bench) -> float:
    start_s = bench.arm.now_s
    bench.begin()
    bench.run(300.0, until=lambda: bench.state() != "moving")
    assert bench.executive.status.done, bench.executive.status
    np.testing.assert_allclose(bench.joints.positions, MODEL.home, atol=1e-3)
    return bench.arm.now_s - start_s


def test_a_scaled_driver_takes_longer_for_the_same_path() -> None:
    full_s = duration_s(Bench())
    slow = Bench()
    slow.driver.set_speed_scaling(25.0)
    assert duration_s(slow) == pytest.approx(4 * full_s, rel=0.05)
    assert slow.executive.status.refusals == 0
    assert slow.executive.status.speed_scaling == 0.25


def test_scaling_that_changes_on_the_way_is_followed() -> None:
    bench = Bench()
    rng = np.random.default_rng(3)
    bench.begin()
    for _ in range(2000):
        if bench.state() != "moving":
            break
        bench.driver.set_speed_scaling(float(rng.choice([0.0, 3.0, 30.0, 70.0, 100.0])))
        bench.run(float(rng.uniform(0.05, 0.6)), until=lambda: bench.state() != "moving")
    status = bench.executive.status
    assert (status.done, status.refusals) == (True, 0), status


def test_a_driver_at_a_standstill_gets_nothing_and_is_no_fault() -> None:
    bench = Bench()
    bench.begin()
    bench.run(1.0)
    bench.driver.set_speed_scaling(0.0)
    bench.run(TICK_S)
    sent = len(bench.arm.sent)
    bench.run(10.0)
    assert (bench.state(), len(bench.arm.sent)) == ("moving", sent)
    bench.driver.set_speed_scaling(100.0)
    bench.run(20.0, until=lambda: bench.state() != "moving")
    assert bench.executive.status.done


def test_silence_brakes_a_scaled_arm_on_its_path() -> None:
    bench = Bench()
    bench.driver.set_speed_scaling(50.0)
    bench.begin()
    bench.run(2.0)
    bench.watchdog.set_alive("encoder", False)
    bench.run(0.25 / 0.5 + 2 * TICK_S)
    assert not bench.arm.moving()
    assert bench.state() == "paused"

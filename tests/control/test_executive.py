"""The arm's state machine: what it refuses, how it pauses and goes on, and that nothing passes the guard unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodied_vision.control.executive import ArmExecutive, ExecutiveSettings
from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import CLOSED, OPEN, MotionSettings
from embodied_vision.control.planning import plan_joint
from embodied_vision.control.player import PlayerSettings
from embodied_vision.control.standstill import to_rest
from embodied_vision.control.watchdog import Watchdog
from embodied_vision.errors import Refused
from embodied_vision.geometry import tool_down
from tests.control.bench import TICK_S, Bench
from tests.control.follower import Follower
from tests.control.samples import MODEL


def test_a_decision_is_carried_out() -> None:
    bench = Bench()
    action = bench.action()
    bench.begin(action)
    assert bench.state() == "moving"
    bench.run(20.0, until=lambda: bench.state() == "idle")
    status = bench.executive.status
    assert (status.done, status.aborted, status.decision_id) == (True, False, action.decision_id)
    assert status.last_sent_ns < status.ended_ns
    assert [command for _, command in bench.arm.grips] == [CLOSED, OPEN]
    np.testing.assert_allclose(bench.arm.joints().positions, MODEL.home, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"pick": tool_down(0.5, 0.0, np.nan)}, "non_finite"),
        ({"place": tool_down(2.0, 0.0, 0.03)}, "workspace"),
        ({"pick": tool_down(0.75, 0.5, 0.03)}, "unreachable"),
        ({"stamp_ns": 0}, "stale_observation"),
    ],
)
def test_a_bad_decision_is_refused_and_nothing_is_sent(change: dict[str, object], rule: str) -> None:
    bench = Bench()
    action = replace(bench.action(), **change)
    with pytest.raises(Refused) as error:
        bench.begin(action)
    assert error.value.rule == rule
    assert bench.arm.sent == []
    status = bench.executive.status
    assert (status.state, status.refused, status.refusals, status.decision_id) == ("idle", rule, 1, action.decision_id)


def test_one_decision_at_a_time_and_the_first_is_not_disturbed() -> None:
    bench = Bench()
    first = bench.action()
    bench.begin(first)
    with pytest.raises(Refused) as error:
        bench.begin()
    assert error.value.rule == "busy"
    assert (bench.state(), bench.executive.status.decision_id) == ("moving", first.decision_id)


def test_a_pause_names_everybody_who_falls_silent_and_each_once() -> None:
    bench = Bench()
    bench.begin()
    bench.run(1.5)
    bench.silent = {"encoder"}
    bench.run(0.5)
    assert bench.executive.status.reason.startswith("encoder silent")
    bench.silent = {"encoder", "joint_states"}
    bench.run(1.0)
    reason = bench.executive.status.reason
    assert (reason.count("encoder"), reason.count("joint_states")) == (1, 1), reason


def test_nothing_begins_while_somebody_is_lost() -> None:
    bench = Bench()
    bench.silent = {"encoder"}
    bench.run(0.5)
    with pytest.raises(Refused, match="encoder silent") as error:
        bench.begin()
    assert error.value.rule == "lost"
    assert bench.arm.sent == []


def test_the_arm_pauses_when_somebody_falls_silent_and_gives_up_when_that_lasts() -> None:
    bench = Bench()
    bench.begin()
    bench.run(1.5)
    assert bench.arm.moving()
    bench.silent = {"encoder"}
    bench.run(0.3 + 0.25 + 2 * TICK_S)
    assert not bench.arm.moving()
    assert bench.state() == "paused"
    assert "encoder silent" in bench.executive.status.reason
    bench.run(3.0)
    assert bench.state() == "paused"
    bench.silent = set()
    sent = len(bench.arm.sent)
    bench.run(0.9)
    assert bench.state() == "paused"
    bench.run(0.3)
    status = bench.executive.status
    assert (status.state, status.done, status.aborted) == ("idle", False, True)
    assert len(bench.arm.sent) == sent


def test_a_short_silence_only_delays_the_motion() -> None:
    bench = Bench()
    bench.begin()
    bench.run(1.5)
    bench.silent = {"joint_states"}
    bench.run(0.4)
    assert bench.state() == "paused"
    bench.silent = set()
    bench.run(20.0, until=lambda: bench.state() == "idle")
    assert bench.executive.status.done


def test_a_loss_that_the_transport_reports_stops_the_arm_within_the_brake() -> None:
    bench = Bench()
    bench.begin()
    bench.run(1.5)
    bench.watchdog.set_alive("encoder", False)
    bench.run(0.25 + TICK_S)
    assert not bench.arm.moving()


def test_a_stop_is_latched() -> None:
    bench = Bench()
    bench.begin()
    bench.run(1.5)
    bench.executive.stop("operator", bench.arm.now_s, bench.arm.now_ns, bench.joints)
    bench.run(0.3)
    assert not bench.arm.moving()
    status = bench.executive.status
    assert (status.state, status.reason, status.done, status.aborted) == ("stopped", "operator", False, True)
    with pytest.raises(Refused) as error:
        bench.begin()
    assert error.value.rule == "stopped"
    assert bench.state() == "stopped"
    bench.executive.resume()
    bench.begin()
    assert bench.state() == "moving"


def test_it_comes_up_stopped_when_the_guard_is() -> None:
    guard = Guard(MODEL)
    guard.stop("started again")
    settings = ExecutiveSettings(MotionSettings(), MotionSettings(), PlayerSettings())
    arm = Follower(MODEL.home)
    executive = ArmExecutive(MODEL, guard, Watchdog({}), settings, arm.send, arm.grip)
    assert (executive.status.state, executive.status.reason) == ("stopped", "started again")


def test_a_motion_waits_until_it_is_known_to_be_heard() -> None:
    bench = Bench()
    bench.unheard = "the driver is new"
    bench.begin()
    bench.run(0.6)
    assert bench.state() == "moving"
    assert len(bench.arm.sent) == 3  # now, after 0.25 s and after 0.5 s
    for _, asked in bench.arm.sent:
        assert (asked.positions == MODEL.home).all()
        assert not asked.velocities.any()
    bench.unheard = ""
    bench.run(30.0, until=lambda: bench.state() == "idle")
    assert (bench.executive.status.done, bench.executive.status.refusals) == (True, 0)
    sent = len(bench.arm.sent)
    bench.begin()
    bench.run(TICK_S)
    assert len(bench.arm.sent) == sent + 1
    assert bench.arm.sent[-1][1].velocities.any()  # no hold: it is known already


def test_a_motion_that_nobody_hears_is_given_up() -> None:
    bench = Bench()
    bench.unheard = "nobody reads the topic"
    bench.begin()
    bench.run(10.0, until=lambda: bench.state() != "moving")
    assert bench.state() == "paused"
    assert "nobody reads the topic" in bench.executive.status.reason
    bench.run(10.0, until=lambda: bench.state() == "idle")
    assert (bench.executive.status.done, bench.executive.status.aborted) == (False, True)
    assert all((sent.positions == MODEL.home).all() for _, sent in bench.arm.sent)
    bench.unheard = ""
    bench.begin()
    bench.run(30.0, until=lambda: bench.state() == "idle")
    assert bench.executive.status.done


def test_a_motion_that_has_waited_too_long_for_its_frames_is_not_begun() -> None:
    bench = Bench()
    bench.unheard = "the driver is new"
    bench.begin()
    bench.run(2.2)
    bench.unheard = ""
    bench.run(10.0, until=lambda: bench.state() == "idle")
    assert (bench.executive.status.refused, bench.executive.status.done) == ("stale_observation", False)
    assert all((sent.positions == MODEL.home).all() for _, sent in bench.arm.sent)
    bench.unheard = "the driver is new"
    bench.executive.home(bench.joints, bench.arm.now_s, bench.arm.now_ns)
    bench.run(2.2)
    bench.unheard = ""
    bench.run(10.0, until=lambda: bench.state() == "idle")
    assert bench.executive.status.done


def test_a_stop_ends_the_wait_for_those_who_should_hear() -> None:
    bench = Bench()
    bench.unheard = "the driver is new"
    bench.begin()
    bench.run(0.3)
    bench.executive.stop("operator", bench.arm.now_s, bench.arm.now_ns, bench.joints)
    sent = len(bench.arm.sent)
    bench.run(1.0)
    assert (bench.state(), len(bench.arm.sent)) == ("stopped", sent)


def test_an_arm_that_does_not_follow_is_not_sent_any_further() -> None:
    bench = Bench()
    bench.begin()
    bench.frozen = replace(bench.arm.joints(), velocities=np.zeros(7))
    for _ in range(400):
        if bench.state() != "moving":
            break
        bench.frozen = replace(bench.frozen, stamp_ns=bench.arm.now_ns)
        bench.run(TICK_S)
    assert bench.state() == "paused"
    assert bench.executive.status.refused == "jump"
    for _ in range(400):
        bench.frozen = replace(bench.frozen, stamp_ns=bench.arm.now_ns)
        bench.run(TICK_S)
    assert (bench.state(), bench.executive.status.aborted) == ("idle", True)


def test_the_way_home_lets_go_at_its_end() -> None:
    bench = Bench()
    bench.begin()
    bench.run(2.0)
    bench.executive.stop("operator", bench.arm.now_s, bench.arm.now_ns, bench.joints)
    bench.run(0.5)
    bench.executive.resume()
    grips = len(bench.arm.grips)
    bench.executive.home(bench.joints, bench.arm.now_s, bench.arm.now_ns)
    bench.run(20.0, until=lambda: bench.state() == "idle")
    assert bench.executive.status.done
    assert bench.executive.status.decision_id == "home"
    assert [command for _, command in bench.arm.grips[grips:]] == [OPEN]
    np.testing.assert_allclose(bench.arm.joints().positions, MODEL.home, atol=1e-3)


def test_a_stop_brings_an_arm_to_rest_that_somebody_else_moves() -> None:
    bench = Bench()
    stranger = plan_joint(MODEL, MODEL.home, MODEL.home + 0.6)
    bench.arm.send(stranger)
    bench.run(0.3)
    assert np.abs(bench.joints.velocities).max() > 0.1
    bench.executive.stop("a stranger", bench.arm.now_s, bench.arm.now_ns, bench.joints)
    assert len(bench.arm.sent) == 2
    bench.run(0.5)
    assert np.abs(bench.joints.velocities).max() < 1e-3
    assert bench.state() == "stopped"


def test_a_stop_brings_an_arm_to_rest_that_was_taken_off_its_path() -> None:
    bench = Bench()
    bench.begin()
    bench.run(0.6)
    q, qd = bench.arm.state(bench.arm.now_s)
    bench.arm.send(to_rest(q + 0.3, qd, MODEL.limits))  # as if somebody had led it away
    sent = len(bench.arm.sent)
    bench.executive.stop("a stranger", bench.arm.now_s, bench.arm.now_ns, bench.joints)
    assert len(bench.arm.sent) == sent + 1
    bench.run(0.5)
    assert np.abs(bench.joints.velocities).max() < 1e-3


def test_a_stop_brings_a_paused_arm_to_rest_that_somebody_else_moves() -> None:
    bench = Bench()
    bench.begin()
    bench.run(0.6)
    bench.silent.add("encoder")
    bench.run(1.0)
    assert bench.state() == "paused"
    q, _ = bench.arm.state(bench.arm.now_s)
    bench.arm.send(plan_joint(MODEL, q, q + 0.3))
    bench.run(0.2)
    bench.executive.stop("a stranger", bench.arm.now_s, bench.arm.now_ns, bench.joints)
    bench.run(0.5)
    assert np.abs(bench.joints.velocities).max() < 1e-3


def test_a_stop_can_be_given_a_better_reason_and_stays_latched() -> None:
    bench = Bench()
    bench.executive.explain("no stop, no reason")
    assert (bench.state(), bench.executive.status.reason) == ("idle", "")
    bench.executive.stop("somebody", bench.arm.now_s, bench.arm.now_ns, bench.joints)
    bench.executive.explain("/rqt")
    assert (bench.state(), bench.executive.status.reason, bench.executive.guard.stopped) == ("stopped", "/rqt", "/rqt")


def test_a_stopped_arm_is_held_still_without_a_quarrel_and_stays_stopped() -> None:
    bench = Bench()
    bench.executive.hold_still(bench.joints, bench.arm.now_s, bench.arm.now_ns)
    assert not bench.arm.sent
    bench.executive.stop("a stranger", bench.arm.now_s, bench.arm.now_ns, bench.joints)
    brakes = 0
    for _ in range(12):  # a stranger who insists
        bench.arm.send(plan_joint(MODEL, bench.joints.positions, bench.joints.positions + 0.3))
        bench.arm.now_s += 0.1
        before = len(bench.arm.sent)
        bench.executive.hold_still(bench.joints, bench.arm.now_s, bench.arm.now_ns)
        brakes += len(bench.arm.sent) - before
    assert 3 <= brakes <= 5
    for _ in range(20):
        bench.arm.now_s += 0.05
        bench.executive.hold_still(bench.joints, bench.arm.now_s, bench.arm.now_ns)
    assert np.abs(bench.joints.velocities).max() < 1e-3
    assert (bench.state(), bench.executive.guard.stopped) == ("stopped", "a stranger")

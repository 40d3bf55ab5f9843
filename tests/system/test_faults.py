"""The whole cell at work while everything about it breaks, one thing after the other: see `faults_table`.

In every case the arm must halt and stand within the bounds of the table, say why, and the work must go on as the table
says. `make faults` tries all of them, the ordinary run those that are marked `often`.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from geometry_msgs.msg import PoseArray
from trajectory_msgs.msg import JointTrajectory

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import RunFailed
from embodied_vision.launching.graph import CELL, PARAMETERS, NodeSpec
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from tests.system import faults_behind
from tests.system.faults_table import BY_NAME, note, tried
from tests.system.rig import MOVING_RAD_S, START_S, Reaction, Rig, monitor_pid, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]
TASK = "block-insertion"
FIRST_SEED = 2_000_000
RECOVERY_S = 120.0
MOMENT_S = 1.0
"""Faults that pass last so long, which is shorter than `resume_within` of the arm."""

FAST_RAD_S = 0.3
"""A fault strikes while the arm moves at least so fast."""

BEHIND = {spec.name: replace(spec, module="faults_behind") for spec in CELL}
RELAY = NodeSpec("relay", "faults_relay", 4)
ALL_JOINTS = ["joint_states", "more_joint_states"]


# ---- the cell that all but two of the faults are tried on


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("episodes")


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder by which the nodes' clocks and domains are set."""
    folder = tmp_path_factory.mktemp("orders")
    faults_behind.make_folder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(faults_behind.FOLDER, str(folder))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield folder


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, store: Path, orders: Path) -> Iterator[Rig]:
    """A cell that works on one scene after the other until the end of the module."""
    parameters: dict[str, dict[str, Any]] = {
        "arm": {"joint_state_topics": ALL_JOINTS},
        "recorder": {"store": str(store)},
        "task": {"task": TASK, "first_seed": FIRST_SEED, "scenes": 10_000, "retries": 20},
    }
    options: dict[str, Any] = {"params_files": (PARAMETERS,), "restarts": 100, "driver": "raw/joint_states"}
    nodes = (*BEHIND.values(), RELAY)
    with Rig(tmp_path_factory.mktemp("cell"), nodes, parameters, images=False, **options) as rig:
        rig.cell.wait_active(START_S)
        rig.wait_joined()
        rig.client.watch("episode/event", "relay/onset")
        rig.client.trigger("task/run")
        yield rig


@pytest.fixture(autouse=True)
def nothing_wrong_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails half-way leaves the others a cell that works."""
    yield
    if "rig" in request.fixturenames:
        rig = request.getfixturevalue("rig")
        spoil(rig, "")
        for name in rig.cell.pids:
            rig.cell.kill(name, signal.SIGCONT)
        if rig.status("arm/status").get("state") == "stopped":
            resume(rig)
        if rig.status("task/status").get("state") != "running" and "task" in rig.cell.pids:
            rig.cell.wait_active(START_S)
            rig.client.trigger("task/run")


# ---- steps


def spoil(rig: Rig, fault: str) -> float:
    """Have the relay do this from now on; when it began, on the steady clock in s."""
    rig.client.set_parameters("relay", {"fault": fault})
    return float(rig.client.wait("relay/onset", lambda onset: onset["fault"] == fault, 10)["at_s"])


def wait_at_work(rig: Rig) -> dict[str, Any]:
    """Wait until the arm moves fast on its way from pick to place, in sight of the camera; what it says."""

    def moves() -> dict[str, Any] | None:
        status = rig.status("arm/status")
        carries = status["state"] == "moving" and status["segment"] == "transfer"
        return status if carries and rig.speed() > FAST_RAD_S else None

    status: dict[str, Any] = until(moves, RECOVERY_S, "the arm to carry something")
    return status


def strike(rig: Rig, name: str, inject: Callable[[], float], *, watch_s: float = MOMENT_S) -> Reaction:
    """Let a fault happen while the arm moves, and hold what the arm does against the table."""
    fault = BY_NAME[name]
    at_work = wait_at_work(rig)
    at_s = inject()
    reaction = rig.reaction(at_s, watch_s)
    note(name, reaction.halt_s, reaction.stands_s)
    print(f"{name}: last trajectory after {reaction.halt_s:.3f} s, the arm stood after {reaction.stands_s:.3f} s")
    before = [speed for when, speed in rig.heard if at_s - 0.1 < when < at_s]
    assert max(before) > MOVING_RAD_S, f"the arm had come to rest before the fault, in {at_work['segment']}"
    assert fault.halt_s is None or reaction.halt_s <= fault.halt_s
    assert fault.stands_s is None or reaction.stands_s <= fault.stands_s
    return reaction


def wait_halted(rig: Rig, name: str) -> dict[str, Any]:
    """Wait until the arm says that it halted, and why; its status."""

    def told(status: dict[str, Any]) -> bool:
        halted = status["state"] in ("paused", "stopped") or bool(status["aborted"])
        return halted and BY_NAME[name].says in status["reason"]

    return rig.wait_arm(told, 3)


def resume(rig: Rig) -> None:
    """End a stop, once what caused it is gone from the graph."""

    def resumed() -> bool:
        try:
            rig.client.trigger("arm/resume")
        except RunFailed:
            return False
        return True

    until(resumed, 10, "the arm to be let go on")


def wait_motion_done(rig: Rig, decision: str) -> None:
    """Wait until the motion in hand has been done after all."""
    status = rig.wait_arm(lambda s: s["decision_id"] != decision or s["state"] == "idle", RECOVERY_S)
    assert (status["decision_id"], status["done"]) == (decision, True), status


def through(rig: Rig) -> int:
    """How many scenes are through."""
    return int(rig.status("task/status")["through"])


def wait_goes_on(rig: Rig, before: int) -> None:
    """Wait until the scene that was interrupted has been done."""
    until(lambda: through(rig) > before, RECOVERY_S, "the scene to be done after all")


def killed(rig: Rig, node: str, number: int = signal.SIGKILL) -> Callable[[], float]:
    """A signal to a node, as a fault."""

    def send() -> float:
        at_s = time.monotonic()
        rig.cell.kill(node, number)
        return at_s

    return send


# ---- processes that end


@tried("kill encoder", "kill policy", "kill recorder", "kill cell")
def test_a_node_is_killed(rig: Rig, name: str) -> None:
    node = name.split()[1]
    before = through(rig)
    strike(rig, name, killed(rig, node))
    wait_halted(rig, name)
    sent = len(rig.trajectories)
    until(lambda: any(e.kind == "restarted" and e.node == node for e in rig.cell.events[-20:]), 30, f"{node} again")
    assert len(rig.trajectories) == sent, "nothing is sent before the node is back"
    rig.cell.wait_active(START_S)
    wait_goes_on(rig, before)


@tried("kill task")
def test_the_task_node_is_killed(rig: Rig, name: str) -> None:
    strike(rig, name, killed(rig, "task"))
    wait_halted(rig, name)
    until(lambda: rig.cell.states["task"] != "active", 10, "the death to be noticed")
    rig.cell.wait_active(START_S)
    rig.wait_arm(lambda status: status["state"] == "idle" and status["aborted"], 20)
    rig.client.trigger("task/run")
    wait_goes_on(rig, 0)


@tried("kill arm")
def test_the_arm_node_is_killed_and_comes_back_stopped(rig: Rig, name: str) -> None:
    before = through(rig)
    strike(rig, name, killed(rig, "arm"))
    sent = len(rig.trajectories)
    until(lambda: rig.cell.states["arm"] != "active", 10, "the death to be noticed")
    rig.cell.wait_active(START_S)
    rig.wait_arm(lambda status: status["state"] == "stopped" and BY_NAME[name].says in status["reason"], 20)
    assert len(rig.trajectories) == sent
    resume(rig)
    wait_goes_on(rig, before)


@tried("kill monitor", "stop monitor")
def test_the_monitor_ends_and_the_work_does_not(rig: Rig, name: str) -> None:
    before, alive, pid = through(rig), dict(rig.cell.pids), monitor_pid()
    number = signal.SIGKILL if name.startswith("kill") else signal.SIGSTOP
    at_s = time.monotonic()
    os.kill(pid, number)
    until(lambda: monitor_pid() not in (pid, 0), 20, "another monitor")
    note(name, 0.0, 0.0)
    print(f"{name}: another monitor after {time.monotonic() - at_s:.1f} s")
    wait_goes_on(rig, before)
    assert rig.cell.pids == alive


# ---- processes that stop


@tried("stop ", unless=lambda fault: fault.name in ("stop monitor", "stop supervisor"))
def test_a_node_stops_for_a_moment(rig: Rig, name: str) -> None:
    node, before = name.split()[1], through(rig)
    strike(rig, name, killed(rig, node, signal.SIGSTOP))
    decision = rig.status("arm/status")["decision_id"]
    if node != "arm":
        wait_halted(rig, name)
    rig.cell.kill(node, signal.SIGCONT)
    if node == "cell":
        wait_goes_on(rig, before)
    else:
        wait_motion_done(rig, decision)


@tried("hang encoder")
def test_a_node_hangs_for_good(rig: Rig, name: str) -> None:
    before, pid = through(rig), rig.cell.pids["encoder"]
    strike(rig, name, killed(rig, "encoder", signal.SIGSTOP))
    wait_halted(rig, name)
    until(lambda: rig.cell.pids.get("encoder", pid) != pid, 40, "the encoder to be replaced")
    rig.cell.wait_active(START_S)
    wait_goes_on(rig, before)


# ---- cameras and joint states


@tried("camera ", "joints ", "cell ", unless=lambda fault: fault.halt_s is None)
def test_what_the_arm_sees_or_feels_is_wrong_for_a_moment(rig: Rig, name: str) -> None:
    before = through(rig)
    strike(rig, name, lambda: spoil(rig, name))
    decision = wait_halted(rig, name)["decision_id"]
    sent = len(rig.trajectories)
    time.sleep(0.3)
    assert len(rig.trajectories) == sent, "it stays halted while the fault lasts"
    spoil(rig, "")
    if "gives" in BY_NAME[name].reaction:
        wait_goes_on(rig, before)
    else:
        wait_motion_done(rig, decision)


@tried("joints ", unless=lambda fault: fault.halt_s is not None)
def test_joint_states_in_any_lawful_form_are_as_good(rig: Rig, name: str) -> None:
    decision = wait_at_work(rig)["decision_id"]
    spoil(rig, name)
    wait_motion_done(rig, decision)
    before = through(rig)
    wait_goes_on(rig, before)
    wait_goes_on(rig, before + 1)
    note(name, 0.0, 0.0)


@tried("camera depthless")
def test_nothing_is_decided_without_depth(rig: Rig, name: str) -> None:
    until(lambda: rig.status("task/status")["phase"] == "judging", RECOVERY_S, "the end of a motion")
    before = rig.status("arm/status")["decision_id"]
    spoil(rig, name)
    until(lambda: BY_NAME[name].says in rig.health.get("policy", (b"", ""))[1], 30, "the policy to say so")
    assert rig.status("arm/status")["decision_id"] in (before, "home")
    note(name, 0.0, 0.0)
    spoil(rig, "")
    wait_goes_on(rig, through(rig))


# ---- decisions


@tried("policy nan", "policy outside")
def test_a_bad_decision_moves_nothing(rig: Rig, name: str) -> None:
    until(lambda: rig.status("task/status")["phase"] == "judging", RECOVERY_S, "the end of a motion")
    before = rig.status("arm/status")["refusals"]
    spoil(rig, name)
    sent = len(rig.trajectories)
    status = rig.wait_arm(lambda s: s["refusals"] > before, RECOVERY_S)
    assert status["refused"] in ("not_a_pose", "non_finite", "workspace"), status
    assert len(rig.trajectories) == sent
    note(name, 0.0, 0.0)
    spoil(rig, "")
    wait_goes_on(rig, through(rig))


@tried("policy hasty")
def test_decisions_in_a_hurry_do_not_disturb_the_first(rig: Rig, name: str) -> None:
    status = wait_at_work(rig)
    spoil(rig, name)
    refused = rig.wait_arm(lambda s: s["refusals"] >= status["refusals"] + 10, 10)
    assert (refused["state"], refused["decision_id"]) == ("moving", status["decision_id"])
    spoil(rig, "")
    wait_motion_done(rig, status["decision_id"])
    note(name, 0.0, 0.0)


@tried("second driver")
def test_a_second_publisher_of_trajectories_stops_the_arm(rig: Rig, name: str) -> None:
    before = through(rig)
    with GraphClient(domain_id=rig.cell.domain) as other:

        def appear() -> float:
            at_s = time.monotonic()
            other.node.create_publisher(JointTrajectory, "arm/joint_trajectory", qos.COMMAND)
            return at_s

        strike(rig, name, appear)
        wait_halted(rig, name)
    resume(rig)
    wait_goes_on(rig, before)


@tried("second policy")
def test_a_second_policy_stops_the_arm(rig: Rig, name: str) -> None:
    before = through(rig)
    with GraphClient(domain_id=rig.cell.domain) as other:
        publisher = other.node.create_publisher(PoseArray, "pick_place", qos.DECISION)
        until(publisher.get_subscription_count, 10, "the arm to listen")

        def decide() -> float:
            at_s = time.monotonic()
            publisher.publish(PoseArray())
            return at_s

        strike(rig, name, decide)
        wait_halted(rig, name)
    resume(rig)
    wait_goes_on(rig, before)


# ---- the machine below


@tried("clock set")
def test_the_clock_is_set_while_the_arm_moves(rig: Rig, orders: Path, name: str) -> None:
    before = through(rig)

    def set_back() -> float:
        at_s = time.monotonic()
        faults_behind.set_clock(orders, -5_000_000_000)
        return at_s

    strike(rig, name, set_back, watch_s=0.5)
    wait_goes_on(rig, before)
    wait_goes_on(rig, before + 1)


@tried("full disk")
def test_the_disk_takes_no_more_and_nothing_of_the_episode_is_lost(rig: Rig, store: Path, name: str) -> None:
    before, pid, heard = through(rig), rig.cell.pids["recorder"], len(rig.errors)
    said: dict[str, Any] = {}

    def fill() -> float:
        said.update(rig.status("recorder/status"))
        at_s = time.monotonic()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, 1))  # the next write fails, as on a full disk
        return at_s

    strike(rig, name, fill, watch_s=2.5)
    until(lambda: rig.cell.pids.get("recorder", pid) != pid or "recorder" not in rig.cell.pids, 20, "its end")
    rig.cell.wait_active(START_S)
    wait_goes_on(rig, before)
    cut = EpisodeStore(store).open(said["episode"])
    assert cut.outcome["interrupted"] is True
    assert len(cut.frames("camera")) >= said["episode_frames_logged"]
    last_words = [message for name, message in rig.errors[heard:] if name == "recorder"]
    assert any("cannot be written" in message and str(store) in message for message in last_words), last_words


@tried("other domain")
def test_a_node_in_another_domain_is_as_good_as_none(rig: Rig, orders: Path, name: str) -> None:
    before = through(rig)
    (orders / "elsewhere").write_text("encoder")
    try:
        strike(rig, name, killed(rig, "encoder"))
        wait_halted(rig, name)
        events = len(rig.cell.events)
        until(lambda: any(e.kind == "restarted" for e in rig.cell.events[events:]), 30, "the encoder elsewhere")
        sent = len(rig.trajectories)
        time.sleep(8.0)
        assert "encoder" in rig.status("arm/status")["lost"]
        assert len(rig.trajectories) == sent
    finally:
        (orders / "elsewhere").write_text("")
    rig.cell.kill("encoder")
    rig.cell.wait_active(START_S)
    wait_goes_on(rig, before)


def test_no_episode_was_lost_or_is_wrong(rig: Rig, store: Path) -> None:
    """Comes last: the store after all of this."""

    def begun() -> int:
        return sum(event["event"] == "start" for event in rig.client.messages("episode/event"))

    rig.client.trigger("task/cancel")
    until(lambda: rig.status("task/status")["state"] == "failed", 60, "the run to end")
    opened = EpisodeStore(store)
    until(lambda: len(opened.ids()) == begun() and not opened.staging_ids(), 30, "every episode to be in the store")
    assert all(report.ok for report in verify(opened))
    episodes = {episode_id: opened.open(episode_id) for episode_id in opened.ids()}
    told = [result for status in rig.client.messages("task/status") for result in status["results"]]
    results = {result["episode"]: result for result in told}  # of the task node that was killed as well
    assert len(results) >= 5
    for result in results.values():
        episode = episodes[result["episode"]]
        assert episode.outcome["solved"] == result["solved"]
        logged = [decision.action.decision_id for decision in episode.decisions]
        assert [name for name in logged if not name.startswith("hasty")] == list(result["decisions"])
        moved = {name for name, was_begun in zip(logged, episode.begun, strict=True) if was_begun}
        assert moved <= set(result["decisions"]), "nobody learns from what the arm refused"
        assert moved or not result["solved"]
        assert episode.attributes["seed"] == result["seed"]
    assert len(episodes) == begun(), "every episode that was begun is there, whole or marked as interrupted"
    for episode_id, episode in episodes.items():
        if episode_id not in results:
            assert episode.outcome.get("aborted") or episode.outcome.get("interrupted")

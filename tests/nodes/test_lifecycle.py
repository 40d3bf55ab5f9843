"""What all nodes share: errors that are seen, an end that is clean, a heartbeat that tells the state."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from embodied_vision.errors import RunFailed
from embodied_vision.launching.process import ManagedProcess
from embodied_vision.nodes import conversions, qos
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import camera, frame, write_encoder

FAULTY = "tests.nodes.faulty"
DEAF_S = 2.0
"""A node shall give its monitor up after so long; in earnest it waits longer."""


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])


def test_failures_at_the_start_end_the_process_with_their_code(graph: Graph) -> None:
    cases = {
        "bad input in setup": (2, False),
        "bad input in start": (2, False),
        "bug in setup": (1, True),
        "give up": (3, False),
    }
    nodes = {fault: graph.start(fault.replace(" ", "_"), FAULTY, wait=False, fault=fault) for fault in cases}
    nodes["out of range"] = graph.start("out_of_range", FAULTY, wait=False, bounded=7.0)
    for fault, (code, traceback) in {**cases, "out of range": (2, False)}.items():
        node = nodes[fault]
        assert node.wait(60.0), fault
        log = node.log.read_text()
        assert node.exit_code() == code, log
        assert ("Traceback" in log) == traceback, log
    assert "bad input in start; give better" in nodes["bad input in start"].log.read_text()
    assert "ZeroDivisionError" in nodes["bug in setup"].log.read_text()
    assert "Max: 2.0" in nodes["out of range"].log.read_text()


def test_transitions_by_service_and_what_the_heartbeat_says(graph: Graph) -> None:
    states: list[str] = []
    node = graph.start("faulty", FAULTY, wait=False, autostart=False, fault="bad input in setup")
    graph.subscribe(String, "heartbeat/faulty", lambda m: states.append(json.loads(m.data)["state"]), qos.HEARTBEAT)
    until(lambda: states, what="a heartbeat")

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(graph.client._call(ChangeState, "faulty/change_state", request, 20.0).success)

    def state_is(expected: str) -> None:
        until(lambda: states[-1] == expected, what=lambda: f"{states[-1]} becomes {expected}")

    assert not change(Transition.TRANSITION_CONFIGURE)
    state_is("unconfigured")
    graph.client.set_parameters("faulty", {"fault": "bug in start"})
    assert change(Transition.TRANSITION_CONFIGURE)
    state_is("inactive")
    assert not change(Transition.TRANSITION_ACTIVATE)
    state_is("inactive")
    assert graph.client.trigger("faulty/ticks") == "0", "timers of a failed start are gone"
    graph.client.set_parameters("faulty", {"fault": ""})
    assert change(Transition.TRANSITION_ACTIVATE)
    state_is("active")
    until(lambda: int(graph.client.trigger("faulty/ticks")) > 3, what="it ticks")
    assert change(Transition.TRANSITION_DEACTIVATE)
    ticks = graph.client.trigger("faulty/ticks")
    state_is("inactive")
    assert graph.client.trigger("faulty/ticks") == ticks, "an inactive node does nothing"
    assert change(Transition.TRANSITION_CLEANUP)
    state_is("unconfigured")
    with pytest.raises(RunFailed, match="bounded"):
        graph.client.set_parameters("faulty", {"bounded": -1.0})
    assert graph.end(node, signal.SIGTERM) == 0


def test_health_reaches_diagnostics_under_the_nodes_full_name(graph: Graph) -> None:
    seen: list[DiagnosticStatus] = []
    graph.subscribe(DiagnosticArray, "/diagnostics", lambda m: seen.extend(m.status), qos.DIAGNOSTICS)
    node = graph.start("faulty", FAULTY, extra=["-r", "__ns:=/cell_1"], wait=False)
    until(lambda: any(s.message == "five ticks" for s in seen), what="the warning")
    status = next(s for s in seen if s.message == "five ticks")
    assert (status.name, status.level) == ("/cell_1/faulty", DiagnosticStatus.WARN)
    assert {v.key: v.value for v in status.values} == {"ticks": "5"}
    assert graph.end(node) == 0


def test_a_driver_that_publishes_best_effort_is_read_as_well(graph: Graph) -> None:
    write_encoder(graph.run_dir / "encoder")
    driver = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    images: Any = graph.client.node.create_publisher(Image, "camera/color/image_raw", driver)
    infos: Any = graph.client.node.create_publisher(CameraInfo, "camera/color/camera_info", driver)
    node = graph.start("encoder", encoder=str(graph.run_dir / "encoder"))
    stamps = iter(range(1, 10**6))

    def arrives() -> bool:
        stamp_ns, one = next(stamps), frame()
        infos.publish(conversions.camera_to_info(camera(), stamp_ns))
        images.publish(conversions.color_to_image(one.color, stamp_ns, "camera"))
        said = graph.client.messages("encoder/status")
        return bool(said) and said[-1]["encoded"] > 0

    graph.client.watch("encoder/status")
    until(arrives, what="an image is encoded")
    assert "best effort" in node.log.read_text()


def test_a_node_that_hears_a_living_monitor_no_more_ends_so_that_it_is_started_again(graph: Graph) -> None:
    left = {"pid": subprocess.Popen(["true"]).pid, "host": socket.gethostname()}
    living = {"pid": os.getpid(), "host": socket.gethostname()}
    nodes = {
        name: graph.start(
            name,
            FAULTY,
            extra=["-r", f"__ns:=/{name}", "-r", f"heartbeat/{name}:=/heartbeat/{name}"],
            deaf_after=DEAF_S,
        )
        for name in ("living", "left")
    }
    for name, beat in (("living", living), ("left", left)):
        publisher = graph.client.node.create_publisher(String, f"/{name}/{qos.MONITOR_TOPIC}", qos.MONITOR)
        until(lambda p=publisher: p.get_subscription_count() == 1, what="the node listens")  # type: ignore[misc]
        publisher.publish(conversions.to_json(beat))
    assert nodes["living"].wait(DEAF_S + 15.0)
    assert nodes["living"].exit_code() == 1
    assert "lost its way into the graph" in nodes["living"].log.read_text()
    assert nodes["left"].exit_code() is None, "a monitor that ended is no reason"


def test_parameters_that_a_node_does_not_know_or_take_end_it_with_their_place(graph: Graph) -> None:
    def given(text: str) -> list[str]:
        path = graph.run_dir / f"{len(list(graph.run_dir.glob('*.yaml')))}.yaml"
        path.write_text(text)
        return ["--params-file", str(path)]

    cases = {
        "misspelt": (
            given("/**/misspelt:\n  ros__parameters:\n    bounde: 1.0\n"),
            r"0.yaml:3: /**/misspelt: bounde: node",
        ),
        "ranged": (given("/**/ranged:\n  ros__parameters:\n    bounded: 7.0\n"), "1.yaml:3: /**/ranged: bounded"),
        "typed": (given("/**:\n  ros__parameters:\n    bounded: true\n"), "2.yaml:3: /**: bounded"),
        "broken": (given("/**/broken:\n  ros__parameters:\n    bounded: [1\n"), "3.yaml:4:1: "),
        "nan": (given("/**/nan:\n  ros__parameters:\n    free: .nan\n"), "must be a finite number"),
        "assigned": (
            ["-p", "bounde:=1.0"],
            "command line: node 'assigned' has no parameter 'bounde'; did you mean bounded?",
        ),
    }
    nodes = {name: graph.start(name, FAULTY, wait=False, extra=extra) for name, (extra, _) in cases.items()}
    others = graph.start("others", FAULTY, extra=given("/**:\n  ros__parameters:\n    elsewhere: 1.0\n"))
    for name, node in nodes.items():
        assert node.wait(60.0), name
        log = node.log.read_text()
        assert node.exit_code() == 2, log
        assert cases[name][1] in log
        assert "Traceback" not in log
    assert "has no parameter 'elsewhere'" in others.log.read_text(), "told, but it may be meant for another node"
    with pytest.raises(RunFailed, match="finite"):
        graph.client.set_parameters("others", {"free": float("nan")})
    assert graph.end(others) == 0


def test_two_nodes_in_one_process_are_each_their_own(graph: Graph) -> None:
    write_encoder(graph.run_dir / "encoder")
    states: dict[str, set[str]] = {"encoder": set(), "camera": set()}
    pids: dict[str, int] = {}

    def hear(message: String) -> None:
        beat = json.loads(message.data)
        states[beat["node"]].add(beat["state"])
        pids[beat["node"]] = beat["pid"]

    for name in states:
        graph.subscribe(String, f"heartbeat/{name}", hear, qos.HEARTBEAT)
    command = [sys.executable, "-m", "embodied_vision.nodes.composed", "encoder", "camera", "--ros-args"]
    command += ["-p", f"encoder:encoder:={graph.run_dir / 'encoder'}", "-p", "camera:autostart:=false"]
    process = ManagedProcess("composed", command, graph.variables, graph.run_dir / "composed.log")
    graph.processes.append(process)
    until(lambda: "active" in states["encoder"] and states["camera"], what="both beat")
    assert pids["encoder"] == pids["camera"] == process.pid
    assert states["camera"] == {"unconfigured"}
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    assert graph.client._call(ChangeState, "encoder/change_state", request, 20.0).success
    until(lambda: "inactive" in states["encoder"], what="the encoder alone was deactivated")
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    assert not graph.client._call(ChangeState, "camera/change_state", request, 20.0).success, "it has no source"
    assert process.exit_code() is None
    assert graph.end(process) != 1


def test_one_of_two_nodes_that_cannot_start_ends_the_process_with_its_code(graph: Graph) -> None:
    command = [sys.executable, "-m", "embodied_vision.nodes.composed", "encoder", "camera", "--ros-args"]
    command += ["-p", "camera:source:=/nowhere", "-p", f"encoder:encoder:={graph.run_dir / 'encoder'}"]
    write_encoder(graph.run_dir / "encoder")
    process = ManagedProcess("composed", command, graph.variables, graph.run_dir / "composed.log")
    graph.processes.append(process)
    assert process.wait(60.0)
    assert process.exit_code() == 2, process.last_lines(30)
    assert "/nowhere" in process.log.read_text()


def test_a_node_becomes_active_after_those_that_come_first(graph: Graph) -> None:
    def change(node: str, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(graph.client._call(ChangeState, f"{node}/change_state", request, 20.0).success)

    first = graph.start("first", FAULTY, wait=False, autostart=False)
    second = graph.start("second", FAULTY, wait=False, after=["first"])
    failing = graph.start("failing", FAULTY, wait=False, after=["first"], fault="bad input in start")
    until(lambda: graph._states["second"] == graph._states["failing"] == "inactive", what="both have configured")
    time.sleep(1.0)
    assert graph._states["second"] == "inactive"
    assert change("first", Transition.TRANSITION_CONFIGURE)
    time.sleep(1.0)
    assert graph._states["second"] == "inactive", "configured is not active"
    assert change("first", Transition.TRANSITION_ACTIVATE)
    graph.ready(first, second)
    assert failing.wait(30.0)
    assert failing.exit_code() == 2, failing.last_lines(30)


def test_a_node_that_hangs_is_silent_although_the_other_of_its_process_beats(graph: Graph) -> None:
    beats = {"first": 0, "second": 0}

    def hear(message: String) -> None:
        beats[json.loads(message.data)["node"]] += 1

    for name in beats:
        graph.subscribe(String, f"heartbeat/{name}", hear, qos.HEARTBEAT)
    code = """
import sys
import time
from functools import partial
from embodied_vision.nodes.running import run_together
from tests.nodes.faulty import FaultyNode
sys.exit(run_together([partial(FaultyNode, "first"), partial(FaultyNode, "second")]))
"""
    command = [sys.executable, "-c", code, "--ros-args", "-p", "first:fault:=hang"]
    process = ManagedProcess("pair", command, graph.variables, graph.run_dir / "pair.log")
    graph.processes.append(process)
    until(lambda: beats["second"] > 3, what="both beat")
    time.sleep(1.0)
    before = dict(beats)
    time.sleep(1.5)
    assert beats["first"] == before["first"], "it hangs"
    assert beats["second"] >= before["second"] + 4, "the other goes on"


GONE = """
from pathlib import Path
from embodied_vision.nodes.running import run_together
from tests.nodes.faulty import FaultyNode
code = run_together([FaultyNode])
threads = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
print("threads:", [name for name in threads if name.startswith("dds.") and name != "dds.shm.wdog"])
raise SystemExit(code)
"""
"""`dds.shm.wdog` belongs to the process, not to a participant."""


@pytest.mark.parametrize(
    ("parameter", "code"),
    [
        ("fault:=give up", 3),
        ("fault:=bad input in setup", 2),
        ("bounded:=true", 2),
        ("executor:=two", 2),
        ("executor:=events", 0),
    ],
)
def test_a_node_that_ends_takes_its_dds_participant_with_it(graph: Graph, parameter: str, code: int) -> None:
    process = ManagedProcess(
        "gone",
        [sys.executable, "-c", GONE, "--ros-args", "-r", "__node:=gone", "-p", parameter],
        graph.variables,
        graph.run_dir / "gone.log",
    )
    graph.processes.append(process)
    graph._hear("gone")
    if code == 0:
        until(lambda: graph._states["gone"] == "active", what="the node is active")
        process.send(signal.SIGTERM)
    assert process.wait(30.0)
    assert process.exit_code() == code, process.last_lines(30)
    assert process.log.read_text().splitlines()[-1] == "threads: []"

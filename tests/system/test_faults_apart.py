"""Faults that need a graph of their own: the supervisor ends, a simulated clock stands. See `faults_table`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embodied_vision.geometry import tool_down
from embodied_vision.launching.graph import NodeSpec
from embodied_vision.types import PickPlace
from tests.system import faults_behind
from tests.system.faults_table import BY_NAME, note, tried
from tests.system.rig import ARM, CELL, MOVING_RAD_S, START_S, Rig, until

pytestmark = pytest.mark.system

FAST_RAD_S = 0.3

SUPERVISOR = """
import socket, sys, time
from pathlib import Path
from embodied_vision.launching import supervisor
from embodied_vision.launching.domain import DomainLock
from tests.system.rig import ARM
supervisor.hold_domain = lambda domain, *_: DomainLock(domain, socket.socket())  # the cell beside it holds the domain
config = supervisor.GraphConfig((ARM,), Path(sys.argv[1]), params_files=(), domain=int(sys.argv[2]),
                                parameters={"arm": {"upstream": [""]}})
with supervisor.Supervisor(config) as graph:
    graph.wait_active(90)
    print(graph.pids["arm"], flush=True)
    time.sleep(300)
"""


def set_off(rig: Rig) -> None:
    """Have the arm begin to move to the other side of the table, and wait until it is fast."""
    last = rig.status("arm/status").get("decision_id")
    poses = tool_down(0.45, -0.25, 0.1), tool_down(0.45, 0.25, 0.1)

    def taken() -> bool:
        rig.decide(PickPlace(*poses, stamp_ns=rig.frames[-1]))
        time.sleep(0.3)
        status = rig.status("arm/status")
        return status.get("state") == "moving" and status["decision_id"] != last

    until(taken, 30, "the arm to take a decision")
    until(lambda: rig.speed() > FAST_RAD_S, 10, "the arm to be fast")


def check(rig: Rig, name: str, at_s: float) -> None:
    """Hold what the arm did since `at_s` against the table."""
    fault, reaction = BY_NAME[name], rig.reaction(at_s)
    note(name, reaction.halt_s, reaction.stands_s)
    print(f"{name}: last trajectory after {reaction.halt_s:.3f} s, the arm stood after {reaction.stands_s:.3f} s")
    assert max(speed for when, speed in rig.heard if at_s - 0.1 < when < at_s) > MOVING_RAD_S
    assert fault.halt_s is not None
    assert fault.stands_s is not None
    assert reaction.halt_s <= fault.halt_s
    assert reaction.stands_s <= fault.stands_s


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[Rig]:
    """Cameras and driver alone."""
    with Rig(tmp_path / "cell", (CELL,), {}) as rig:
        rig.cell.wait_active(START_S)
        yield rig


@pytest.fixture
def supervisor(cell: Rig, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor with the arm node, in a process of its own."""
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "arm"), str(cell.cell.domain)]
    process = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0
    cell.wait_joined()
    yield process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait(30)


@tried("stop supervisor")
def test_the_supervisor_stops_and_the_motion_does_not(
    cell: Rig, supervisor: subprocess.Popen[bytes], name: str
) -> None:
    set_off(cell)
    supervisor.send_signal(signal.SIGSTOP)
    told, at_s = len(cell.client.messages("arm/status")), time.monotonic()
    reaction = cell.reaction(at_s, 3.0)
    assert reaction.halt_s > 0.5, "trajectories are sent as before"
    supervisor.send_signal(signal.SIGCONT)
    time.sleep(2.0)
    assert supervisor.poll() is None
    later = cell.client.messages("arm/status")[told:]
    assert not [status for status in later if status["state"] == "stopped" or status["aborted"]]
    note(name, 0.0, 0.0)


@tried("kill supervisor")
def test_the_supervisor_is_killed(cell: Rig, supervisor: subprocess.Popen[bytes], name: str) -> None:
    set_off(cell)
    at_s = time.monotonic()
    supervisor.kill()
    check(cell, name, at_s)
    until(lambda: not cell.client.node.get_publishers_info_by_topic("arm/status"), 10, "the arm node to be gone")


@tried("clock stands")
def test_the_simulated_clock_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    faults_behind.make_folder(tmp_path)
    monkeypatch.setenv(faults_behind.FOLDER, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    behind = NodeSpec("cell", "faults_behind", 2)
    relay = NodeSpec("relay", "faults_relay", 2)
    parameters = {"arm": {"upstream": [""]}}
    with Rig(tmp_path / "run", (behind, relay, ARM), parameters, driver="raw/joint_states", use_sim_time=True) as rig:
        rig.cell.wait_active(START_S)
        rig.wait_joined()
        rig.client.watch("relay/onset")
        set_off(rig)
        rig.client.set_parameters("relay", {"fault": name})
        check(rig, name, float(rig.client.wait("relay/onset", lambda onset: onset["fault"] == name, 10)["at_s"]))
        assert BY_NAME[name].says in rig.wait_arm(lambda status: status["state"] == "paused", 5)["reason"]
        rig.client.set_parameters("relay", {"fault": ""})
        rig.wait_arm(lambda status: status["state"] == "moving", 10)

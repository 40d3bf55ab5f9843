"""Somebody else publishes where only one node may: the arm halts within half a second and says who it is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.errors import RunFailed
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace
from tests.system.rig import ARM, CELL, START_S, Rig, until

pytestmark = pytest.mark.system
TASK = "block-insertion"
HALT_S = 0.5
"""From the moment when the stranger is known in the graph, or its command sent, to the arm's standing still."""
DISCOVERY_S = 1.0
"""How long DDS may take to make a publisher known that is silent; 0 to 0.25 s on an idle machine."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("exclusive"), (CELL, ARM), {"arm": {"upstream": [""]}}) as rig:
        rig.cell.wait_active(START_S)
        rig.wait_joined()
        yield rig


@contextmanager
def stranger(rig: Rig, *arguments: str) -> Iterator[int]:
    """A process that publishes; yields when it has done its worst, ns. It is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.stranger", *arguments],
        env=dict(rig.cell.environment.variables),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def known_ns(rig: Rig, topic: str, since_ns: int) -> int:
    """When a participant that is neither the stranger nor the arm knows of a second publisher."""
    until(lambda: len(rig.client.node.get_publishers_info_by_topic(topic)) > 1, 5, "the discovery of the stranger")
    now_ns = time.time_ns()
    assert (now_ns - since_ns) * 1e-9 <= DISCOVERY_S
    return now_ns


def work_again(rig: Rig) -> None:
    """Resume as soon as the arm lets us, and bring it home."""
    rig.wait_arm(lambda s: not s["lost"], 20)
    rig.insist("arm/resume")
    rig.insist("arm/home")


@pytest.fixture(autouse=True)
def ready(rig: Rig) -> None:
    """No test suffers from the failure of the one before."""
    if rig.status("arm/status")["state"] == "stopped":
        work_again(rig)


def begin(rig: Rig) -> None:
    """Set the arm in motion by a decision of ours."""
    pick, place = tool_down(0.5, -0.25, 0.05), tool_down(0.45, 0.3, 0.05)
    rig.begin(PickPlace(pick=pick, place=place, stamp_ns=0))
    rig.wait_moving()


@pytest.mark.parametrize("topic", ["arm/joint_trajectory", "gripper/command"])
def test_a_silent_second_publisher_halts_the_arm_and_is_named(rig: Rig, topic: str) -> None:
    begin(rig)
    with stranger(rig, topic) as since_ns:
        assert rig.still_after_s(known_ns(rig, topic, since_ns)) <= HALT_S
        words = f"/stranger publishes on /{topic} as well"
        assert rig.wait_arm(lambda s: s["reason"].startswith(words), 5)["state"] == "stopped"
        with pytest.raises(RunFailed, match="/stranger publishes"):
            rig.client.trigger("arm/resume")
    work_again(rig)


def test_an_arm_at_rest_that_a_stranger_sets_in_motion_is_halted(rig: Rig) -> None:
    start = rig.positions[0]
    with stranger(rig, "arm/joint_trajectory", str(start + 1.0)) as since_ns:
        assert rig.still_after_s(since_ns, 3.0) <= HALT_S
        assert rig.wait_arm(lambda s: s["reason"].startswith("/stranger"), 5)["state"] == "stopped"
        assert abs(rig.positions[0] - start) < 0.2
    work_again(rig)


def test_a_second_decider_is_refused_and_stops_the_arm(rig: Rig) -> None:
    begin(rig)
    before = rig.status("arm/status")["refusals"]
    with stranger(rig, "pick_place") as since_ns:
        assert rig.still_after_s(since_ns) <= HALT_S
        status = rig.wait_arm(lambda s: s["state"] == "stopped", 5)
        assert status["refusals"] > before
        assert "publishes on /pick_place beside /client" in status["reason"]
    work_again(rig)


def test_a_second_arm_node_lets_neither_move(rig: Rig) -> None:
    begin(rig)
    command = [sys.executable, "-m", "embodied_vision.nodes.arm", "--ros-args", "-p", "upstream:=['']"]
    second = subprocess.Popen(command, env=dict(rig.cell.environment.variables))
    try:
        rig.wait_arm(lambda s: s["state"] == "stopped" and s["reason"].startswith("/arm publishes on"), 30)
        assert second.poll() is None
    finally:
        second.send_signal(signal.SIGINT)
        second.wait(15)
    work_again(rig)


def test_an_arm_that_was_killed_comes_back_without_a_false_alarm(rig: Rig) -> None:
    begin(rig)
    killed_ns = time.time_ns()
    rig.cell.kill("arm")
    assert rig.still_after_s(killed_ns) <= HALT_S
    status = rig.wait_arm(lambda s: s["state"] == "stopped", START_S)
    assert "started again after a death" in status["reason"]
    rig.wait_joined()
    work_again(rig)
    begin(rig)
    assert np.isfinite(rig.positions).all()
    assert "publishes" not in rig.wait_arm(lambda s: s["state"] == "idle", 30)["reason"]

"""The arm as a process in the simulated cell: it works, it refuses, and it never goes on blindly."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

import embodied_vision_sim  # noqa: F401 - registers the environments
from embodied_vision.errors import RunFailed
from embodied_vision.geometry import tool_down
from embodied_vision.launching.shared_memory import abandoned
from embodied_vision.nodes.conversions import pick_place_to_poses
from embodied_vision.types import PickPlace
from tests.system.rig import ARM, CELL, START_S, Rig, until

pytestmark = pytest.mark.system
TASK = "block-insertion"
STANDS_S = 0.5
"""The arm must stand still so long after whatever it depends on has died."""

BEATING = """
import rclpy
from embodied_vision.nodes.lifecycle import ManagedNode
from embodied_vision.nodes.running import run
run(lambda: ManagedNode("encoder"))
"""


def start_upstream(rig: Rig) -> subprocess.Popen[bytes]:
    """A process that beats as `encoder` does, started as the supervisor does: on no port of a dead one."""
    until(lambda: not abandoned(), 10, "the others to let go of the ports of who was killed")
    return subprocess.Popen([sys.executable, "-c", BEATING], env=dict(rig.cell.environment.variables))


def end(process: subprocess.Popen[bytes]) -> None:
    """End it in order, by force only where that fails."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    parameters = {"arm": {"upstream": ["encoder"], "resume_within": 0.5, "grasp_check": "vacuum"}}
    with Rig(tmp_path_factory.mktemp("arm"), (CELL, ARM), parameters) as rig:
        rig.cell.wait_active(START_S)
        rig.wait_joined()
        yield rig


@pytest.fixture
def upstream(rig: Rig) -> Iterator[subprocess.Popen[bytes]]:
    process = start_upstream(rig)
    rig.wait_arm(lambda s: not s["lost"], 30)
    yield process
    if rig.status("arm/status")["state"] == "stopped":  # a test failed half-way: the next one shall not for that
        rig.client.trigger("arm/resume")
    end(process)
    rig.wait_arm(lambda s: "encoder" in s["lost"], 30)


@pytest.fixture(scope="module")
def oracle() -> Iterator[gymnasium.Env]:  # type: ignore[type-arg]
    env = gymnasium.make("embodied_vision/BlockInsertion-v0", renderer="software")
    yield env
    env.close()


def decision(rig: Rig, env: gymnasium.Env, seed: int) -> PickPlace:  # type: ignore[type-arg]
    """Build the scene on both sides; the expert's decision for it, as if made on a frame of now."""
    env.reset(seed=seed)
    rig.reset(TASK, seed)
    action: PickPlace = env.unwrapped.oracle()  # type: ignore[attr-defined]
    return replace(action, stamp_ns=rig.newest_frame_ns())


def test_a_decision_moves_the_object(rig: Rig, oracle, upstream) -> None:  # type: ignore[no-untyped-def]
    grips, sent = len(rig.grips), len(rig.trajectories)
    action = decision(rig, oracle, 2_000_020)
    rig.begin(action)
    status = rig.wait_arm(lambda s: s["state"] == "idle" and s["decision_id"] == action.decision_id, 30)
    assert status["done"], status
    outcome = rig.client.wait("outcome", lambda o: o["stamp_ns"] > status["last_sent_ns"], 10)
    assert outcome["solved"]
    assert rig.grips[grips:] == [0.0, 1.0]
    assert len(rig.trajectories) - sent > 50


def test_a_grasp_of_nothing_is_told_and_the_arm_comes_home(rig: Rig, oracle, upstream) -> None:  # type: ignore[no-untyped-def]
    action = decision(rig, oracle, 2_000_020)
    corners = [tool_down(x, y, 0.005) for x in (0.4, 0.6) for y in (-0.35, 0.35)]
    things = [pose[:2, 3] for pose in (action.pick, action.place)]
    nothing = max(corners, key=lambda pose: min(np.linalg.norm(pose[:2, 3] - thing) for thing in things))
    grips = len(rig.grips)
    rig.begin(replace(action, pick=nothing))
    status = rig.wait_arm(lambda s: s["state"] == "idle" and s["decision_id"] == action.decision_id, 30)
    assert (status["done"], status["aborted"], status["failed"]) == (False, False, "grasp_missed")
    assert rig.grips[grips:] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("pick", "rule"),
    [
        (tool_down(0.75, 0.5, 0.03), "unreachable"),
        (tool_down(2.0, 0.0, 0.03), "workspace"),
        (tool_down(0.5, 0.0, -0.05), "workspace"),
    ],
)
def test_a_bad_pose_is_refused_and_nothing_is_sent(rig: Rig, upstream, pick, rule: str) -> None:  # type: ignore[no-untyped-def]
    before = rig.status("arm/status")["refusals"]
    until(lambda: len(rig.frames) > 10, 5, "frames")
    sent = len(rig.trajectories)
    action = PickPlace(pick=pick, place=tool_down(0.5, 0.2, 0.05), stamp_ns=rig.newest_frame_ns())
    rig.decide(action)
    status = rig.wait_arm(lambda s: s["refusals"] > before, 10)
    assert (status["state"], status["refused"], status["decision_id"]) == ("idle", rule, action.decision_id)
    until(lambda: rig.health.get("arm", (b"\0", ""))[1].startswith("refused"), 5, "the diagnostic")
    assert len(rig.trajectories) == sent


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pose_that_is_none_is_refused(rig: Rig, upstream, value: float) -> None:  # type: ignore[no-untyped-def]
    before, sent = rig.status("arm/status")["refusals"], len(rig.trajectories)
    pose = tool_down(0.5, 0.0, 0.03)
    message = pick_place_to_poses(PickPlace(pick=pose, place=pose, stamp_ns=rig.newest_frame_ns()))
    message.poses[1].position.y = value
    rig.publish_poses(message)
    assert rig.wait_arm(lambda s: s["refusals"] > before, 10)["refused"] in ("not_a_pose", "non_finite")
    assert len(rig.trajectories) == sent


def test_an_old_observation_is_refused(rig: Rig, upstream) -> None:  # type: ignore[no-untyped-def]
    before, sent = rig.status("arm/status")["refusals"], len(rig.trajectories)
    pose = tool_down(0.5, 0.0, 0.03)
    rig.decide(PickPlace(pick=pose, place=pose, stamp_ns=time.time_ns() - 5_000_000_000))
    assert rig.wait_arm(lambda s: s["refusals"] > before, 10)["refused"] == "stale_observation"
    assert len(rig.trajectories) == sent


def test_upstream_killed_stops_the_arm_and_work_goes_on_after(rig: Rig, oracle, upstream) -> None:  # type: ignore[no-untyped-def]
    action = decision(rig, oracle, 2_000_021)
    rig.begin(action)
    rig.wait_moving()
    killed_ns = time.time_ns()
    upstream.kill()
    assert rig.still_after_s(killed_ns) <= STANDS_S
    assert "encoder" in rig.wait_arm(lambda s: s["state"] == "paused", 5)["reason"]
    again = start_upstream(rig)
    try:
        status = rig.wait_arm(lambda s: s["state"] == "idle", 30)
        assert status["aborted"]
        rig.client.trigger("arm/home", 30)
        fresh = decision(rig, oracle, 2_000_021)
        rig.begin(fresh)
        assert rig.wait_arm(lambda s: s["state"] == "idle" and s["decision_id"] == fresh.decision_id, 30)["done"]
    finally:
        end(again)
    assert rig.wait_arm(lambda s: "encoder" in s["lost"], 10)["state"] == "idle"


def test_a_stop_is_latched_until_resume(rig: Rig, oracle, upstream) -> None:  # type: ignore[no-untyped-def]
    rig.client.find("arm/stop")
    rig.begin(decision(rig, oracle, 2_000_022))
    rig.wait_moving()
    asked_ns = time.time_ns()
    rig.client.trigger("arm/stop")
    assert rig.still_after_s(asked_ns) <= STANDS_S
    before, sent = rig.status("arm/status")["refusals"], len(rig.trajectories)
    rig.decide(replace(oracle.unwrapped.oracle(), stamp_ns=rig.newest_frame_ns()))
    assert rig.wait_arm(lambda s: s["refusals"] > before, 10)["refused"] == "stopped"
    with pytest.raises(RunFailed, match="stopped"):
        rig.client.trigger("arm/home")
    assert len(rig.trajectories) == sent
    rig.client.trigger("arm/resume")
    rig.client.trigger("arm/home", 30)


def test_cameras_that_fall_silent_stop_the_arm(rig: Rig, oracle, upstream) -> None:  # type: ignore[no-untyped-def]
    rig.begin(decision(rig, oracle, 2_000_023))
    rig.wait_moving()
    rig.client.set_parameters("cell", {"camera_enabled": False})
    silent_ns = time.time_ns()
    try:
        assert rig.still_after_s(silent_ns) <= STANDS_S
        assert "camera" in rig.wait_arm(lambda s: s["state"] == "paused", 5)["reason"]
    finally:
        rig.client.set_parameters("cell", {"camera_enabled": True})
    rig.wait_arm(lambda s: s["state"] == "idle", 20)


def test_the_killed_arm_stands_and_comes_back_stopped(rig: Rig, oracle, upstream) -> None:  # type: ignore[no-untyped-def]
    rig.begin(decision(rig, oracle, 2_000_024))
    rig.wait_moving()
    killed_ns = time.time_ns()
    rig.cell.kill("arm", signal.SIGKILL)
    assert rig.still_after_s(killed_ns) <= STANDS_S
    sent = len(rig.trajectories)
    rig.wait_arm(lambda s: s["state"] == "stopped", START_S)
    rig.wait_joined()
    assert len(rig.trajectories) == sent
    rig.insist("arm/resume")
    rig.insist("arm/home")

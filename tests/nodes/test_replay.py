"""The replay node puts an episode back on topics: the same stamps, its own timing, and never live."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, String
from trajectory_msgs.msg import JointTrajectory

from embodied_vision import geometry
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import RunFailed
from embodied_vision.nodes import conversions, qos
from embodied_vision.types import PickPlace
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import camera, frame

START_NS = 1_700_000_000_000_000_000
STAMPS = [START_NS + i * 50_000_000 + 7 * i for i in range(20)]
JOINTS = ["a", "b"]
TOLERANCE_S = 0.25
"""For a machine whose cores are busy elsewhere; a replay without timing of its own is off by a second."""


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """A store with one episode of a second."""
    made = EpisodeStore(tmp_path / "store")
    writer = EpisodeWriter(
        made, task="block-insertion", robot="r", cameras=[camera()], attributes={"joint_names": JOINTS}
    )
    for index, stamp_ns in enumerate(STAMPS):
        writer.append_frame(frame(index % 3, stamp_ns))
        writer.append("joint_state", stamp_ns + 1_000_000, [index, 1.0, 2.0, 3.0, 9.0, 9.0])  # efforts last
    writer.append("joint_trajectory/2", STAMPS[4] + 5, np.arange(14.0))
    writer.append("gripper", STAMPS[5] + 5, [0.0])
    chosen = frame(1, STAMPS[1])
    action = PickPlace(geometry.tool_down(0.5, 0, 0.1), geometry.tool_down(0.5, 0.1, 0.1), stamp_ns=STAMPS[1])
    writer.append_decision(action, [chosen], {"checkpoint_id": "c"})
    writer.close({"reward": 1.0, "solved": True})
    return made


def test_streams_come_back_with_their_stamps_and_their_timing(graph: Graph, store: EpisodeStore) -> None:
    heard: dict[str, list[tuple[float, Any]]] = {}

    def listen(kind: Any, topic: str) -> None:
        heard[topic] = []
        graph.subscribe(kind, topic, lambda m: heard[topic].append((time.monotonic(), m)))

    for kind, topic in (
        (Image, "replay/camera/color/image_raw"),
        (Image, "replay/camera/aligned_depth_to_color/image_raw"),
        (CameraInfo, "replay/camera/color/camera_info"),
        (JointState, "replay/joint_states"),
        (JointTrajectory, "replay/arm/joint_trajectory"),
        (Float64, "replay/gripper/command"),
        (String, "replay/policy/decision"),
        (JointTrajectory, "arm/joint_trajectory"),
        (Float64, "gripper/command"),
    ):
        listen(kind, topic)
    node = graph.start(
        "replay", wait=False, store=str(store.path), rate=0.5, readers=1, settle=1.0, exit_when_done=True
    )
    assert node.wait(60.0)
    assert node.exit_code() == 0, node.last_lines(20)
    infos = heard["replay/camera/color/camera_info"]
    until(lambda: len(heard["replay/joint_states"]) == len(STAMPS), what="the last message has come")
    assert [conversions.stamp_to_ns(m.header.stamp) for _, m in infos] == STAMPS
    clock = np.array([at for at, _ in infos])
    expected = (np.array(STAMPS) - STAMPS[0]) * 1e-9 / 0.5
    np.testing.assert_allclose(clock - clock[0], expected, atol=TOLERANCE_S)

    depths = heard["replay/camera/aligned_depth_to_color/image_raw"]
    assert len(depths) == len(heard["replay/camera/color/image_raw"]) == len(STAMPS)
    np.testing.assert_array_equal(conversions.image_to_depth(depths[4][1]), frame(1).depth)
    joints = [m for _, m in heard["replay/joint_states"]]
    assert [conversions.stamp_to_ns(m.header.stamp) for m in joints] == [s + 1_000_000 for s in STAMPS]
    assert (list(joints[3].name), list(joints[3].position), list(joints[3].velocity)) == (JOINTS, [3, 1], [2, 3])
    trajectory = heard["replay/arm/joint_trajectory"][0][1]
    assert [list(point.positions) for point in trajectory.points] == [[1, 2], [8, 9]]
    assert [list(point.accelerations) for point in trajectory.points] == [[5, 6], [12, 13]]
    assert heard["replay/gripper/command"][0][1].data == 0.0
    decision = conversions.from_json(heard["replay/policy/decision"][0][1], "")
    assert decision["checkpoint_id"] == "c"
    assert decision["pick"] == geometry.tool_down(0.5, 0, 0.1).tolist()
    assert heard["arm/joint_trajectory"] == heard["gripper/command"] == []


def test_a_remap_to_a_live_topic_is_refused(graph: Graph, store: EpisodeStore) -> None:
    commands: list[JointTrajectory] = []
    graph.subscribe(JointTrajectory, "arm/joint_trajectory", commands.append, qos.COMMAND)
    remaps = ["-r", "replay/arm/joint_trajectory:=arm/joint_trajectory"]
    node = graph.start("replay", wait=False, extra=remaps, store=str(store.path), rate=10.0)
    assert node.wait(30.0)
    assert node.exit_code() == 2
    assert "never go live" in node.log.read_text()
    assert commands == []


def test_a_damaged_episode_ends_the_node_with_a_plain_error(graph: Graph, store: EpisodeStore) -> None:
    episode = store.open(store.ids()[0])
    victim = next((episode.path / "data.zarr" / "cameras" / "camera" / "depth").glob("c.*"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 3] ^= 0x10
    victim.write_bytes(data)
    node = graph.start("replay", wait=False, store=str(store.path), rate=50.0, settle=0.0)
    assert node.wait(30.0)
    assert node.exit_code() == 2, node.last_lines()
    log = node.log.read_text()
    assert episode.id in log
    assert "Traceback" not in log


def frame_stamps(graph: Graph) -> list[tuple[float, int]]:
    """When each replayed color frame came, and its stamp; filled as they come."""
    heard: list[tuple[float, int]] = []

    def hear(message: Image) -> None:
        heard.append((time.monotonic(), conversions.stamp_to_ns(message.header.stamp)))

    graph.subscribe(Image, "replay/camera/color/image_raw", hear)
    return heard


def test_a_replay_is_paused_stepped_and_sought_by_service(graph: Graph, store: EpisodeStore) -> None:
    heard, call = frame_stamps(graph), graph.client.trigger
    node = graph.start(
        "replay", store=str(store.path), readers=1, settle=0.5, paused=True, start_at=0.2, exit_when_done=True
    )
    graph.wait("replay/status", lambda status: bool(status["paused"]), node)
    call("replay/step")
    until(lambda: len(heard) == 1, what="one step, one frame")
    call("replay/step")
    until(lambda: len(heard) == 2, what="another frame")
    graph.client.set_parameters("replay", {"seek_to": 0.5})
    assert call("replay/seek").startswith("paused at 0.500 s")
    call("replay/step")
    until(lambda: len(heard) == 3, what="the frame there")
    assert [stamp for _, stamp in heard] == [STAMPS[4], STAMPS[5], STAMPS[10]]

    graph.client.set_parameters("replay", {"rate": 0.25})
    assert call("replay/play").startswith("playing")
    until(lambda: len(heard) == 6, what="it goes on")
    assert call("replay/pause").startswith("paused")
    paused = len(heard)
    assert call("replay/play").startswith("playing")
    with pytest.raises(RunFailed, match="being played"):
        call("replay/play")
    until(lambda: len(heard) > paused, what="it goes on")
    graph.client.set_parameters("replay", {"rate": 1.0})
    assert node.wait(30.0)
    assert node.exit_code() == 0, node.last_lines(20)
    until(lambda: len(heard) == 12, what="the last frame has come")
    assert [stamp for _, stamp in heard[2:]] == STAMPS[10:]
    times = np.array([at for at, _ in heard[7:]])
    expected = (np.array(STAMPS[15:]) - STAMPS[15]) * 1e-9
    np.testing.assert_allclose(np.diff(times)[1:], np.diff(expected)[1:], atol=TOLERANCE_S)


def test_a_loop_keeps_its_timing_and_can_be_ended(graph: Graph, store: EpisodeStore) -> None:
    heard = frame_stamps(graph)
    options = {"start_at": 0.25, "end_at": 0.75, "loop": True, "rate": 2.0, "exit_when_done": True}
    node = graph.start("replay", store=str(store.path), readers=1, settle=0.5, **options)
    until(lambda: len(heard) >= 28, what="two loops and more")
    assert graph.wait("replay/status", lambda status: status["loops"] >= 2, node)["duration_s"] == pytest.approx(0.951)
    graph.client.set_parameters("replay", {"loop": False})
    assert node.wait(30.0)
    assert node.exit_code() == 0, node.last_lines(20)
    count = len(STAMPS[5:15])
    assert [stamp for _, stamp in heard[: 2 * count]] == 2 * STAMPS[5:15]
    firsts = np.array([at for at, stamp in heard if stamp == STAMPS[5]])
    np.testing.assert_allclose(firsts - firsts[0], np.arange(len(firsts)) * 0.25, atol=TOLERANCE_S)


def test_decisions_are_steps_as_well(graph: Graph, store: EpisodeStore) -> None:
    heard = frame_stamps(graph)
    node = graph.start("replay", store=str(store.path), readers=1, settle=0.5, paused=True, step_by="decision")
    graph.wait("replay/status", lambda status: bool(status["paused"]), node)
    graph.client.trigger("replay/step")
    until(lambda: len(heard) == 2, what="everything up to the decision")
    status = graph.wait("replay/status", lambda status: status["position_s"] > 0, node)
    assert status["position_s"] == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(("option", "value"), [("start_at", 5.0), ("step_by", "year")])
def test_what_cannot_be_played_is_refused(graph: Graph, store: EpisodeStore, option: str, value: Any) -> None:
    node = graph.start("replay", wait=False, store=str(store.path), settle=0.0, **{option: value})
    assert node.wait(30.0)
    assert node.exit_code() == 2
    assert str(value) in node.log.read_text()


def test_keys_in_a_terminal(graph: Graph, store: EpisodeStore) -> None:
    """The command line in a pseudo-terminal, played by its keys."""
    heard = frame_stamps(graph)
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    code = "from embodied_vision.cli.main import main; main()"
    command = [sys.executable, "-c", code, "replay", "latest", "--store", str(store.path), "--step", "--rate", "4"]
    running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(graph.variables))
    try:
        status = graph.client.wait("replay/status", lambda s: bool(s["paused"]), 30.0)
        assert status["rate"] == 4.0
        os.write(ours, b".")
        until(lambda: len(heard) >= 1, what="a step")
        os.write(ours, b"\x1b[C\x1b[C")
        until(lambda: len(heard) >= 3, what="two more")
        os.write(ours, b"-")
        graph.client.wait("replay/status", lambda s: s["rate"] == 2.0, 30.0)
        os.write(ours, b" ")
        until(lambda: len(heard) >= 6, what="it plays")
        os.write(ours, b"q")
        assert running.wait(30) == 0
        assert termios.tcgetattr(theirs) == before, "the terminal is as it was"
        assert [stamp for _, stamp in heard[:6]] == STAMPS[:6]
    finally:
        running.kill()
        running.wait()
        os.close(ours)
        os.close(theirs)

"""The replay node puts an episode back on topics: the same stamps, its own timing, and never live."""

from __future__ import annotations

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
        writer.append("joint_state", stamp_ns + 1_000_000, [index, 1.0, 2.0, 3.0])
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

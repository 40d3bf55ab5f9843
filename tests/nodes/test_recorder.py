"""The recorder node as a process: every frame, the decisions losslessly, and nothing lost when it is killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, String
from trajectory_msgs.msg import JointTrajectory

from embodied_vision import geometry
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import RunFailed
from embodied_vision.nodes import conversions, qos
from embodied_vision.types import PickPlace
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import frame

FRAMES = 40
JOINTS = ["joint_1", "joint_2"]


def write_images(folder: Path, count: int) -> None:
    """A folder of color and depth images for the camera node."""
    for kind in ("color", "depth"):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        one = frame(index)
        Picture.fromarray(one.color).save(folder / "color" / f"{index:03d}.png", compress_level=1)
        Picture.fromarray(geometry.quantise_depth(one.depth)).save(folder / "depth" / f"{index:03d}.png")


class Announcer:
    """Says that episodes start and end, as the task node does."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._events = graph.publisher(String, "episode/event", qos.EVENT)

    def start(self, **more: Any) -> str:
        """Start an episode and wait until it is logged."""
        before = self._graph.wait("recorder/status", lambda s: True)["episode"]
        self._say(event="start", task="block-insertion", **more)
        return str(self._graph.wait("recorder/status", lambda s: s["episode"] not in ("", before))["episode"])

    def end(self, **outcome: Any) -> None:
        """End it and wait until it is in the store."""
        self._say(event="end", outcome=outcome)
        self._graph.wait("recorder/status", lambda s: not s["unfinished"])

    def _say(self, **event: Any) -> None:
        self._events.publish(conversions.to_json({**event, "stamp_ns": time.time_ns()}))


def test_every_published_frame_is_logged_with_all_that_goes_with_it(graph: Graph) -> None:
    store = EpisodeStore(graph.run_dir / "store")
    write_images(graph.run_dir / "images", 4)
    recorder = graph.start("recorder", store=str(store.path))
    announcer = Announcer(graph)
    joints = graph.publisher(JointState, "joint_states")
    trajectories = graph.publisher(JointTrajectory, "arm/joint_trajectory", qos.COMMAND)
    gripper = graph.publisher(Float64, "gripper/command", qos.COMMAND)
    decisions = graph.publisher(String, "policy/decision", qos.DECISION)
    joints.publish(conversions.joint_state_message(JOINTS, np.zeros(2), np.zeros(2), 1))
    episode_id = announcer.start(seed=2_000_003)
    graph.publisher(String, "arm/status", qos.STATUS).publish(conversions.to_json({"state": "idle", "decision_id": ""}))

    published: list[int] = []
    graph.subscribe(
        CameraInfo, "camera/color/camera_info", lambda m: published.append(conversions.stamp_to_ns(m.header.stamp))
    )
    graph.start("camera", source=str(graph.run_dir / "images"), rate=20.0, readers=1)
    until(lambda: len(published) >= 3, what="frames come")
    joints.publish(conversions.joint_state_message(JOINTS[::-1], np.array([2.0, 1.0]), np.array([4.0, 3.0]), 77))
    samples = conversions.JointSamples(np.array([0.0, 0.5]), *np.arange(12.0).reshape(3, 2, 2))
    trajectories.publish(conversions.samples_to_trajectory(JOINTS, samples))
    gripper.publish(Float64(data=0.25))
    chosen = published[2]
    action = PickPlace(geometry.tool_down(0.5, 0, 0.1), geometry.tool_down(0.5, 0.1, 0.1, 0.3), stamp_ns=chosen)
    info = {"checkpoint_id": "c", "encoder_id": "e", "frames": [{"camera": "camera", "stamp_ns": chosen}]}
    decisions.publish(conversions.to_json({**action.to_dict(), **info}))
    until(lambda: len(published) >= FRAMES, what="frames come")
    graph.end(next(p for p in graph.processes if p.name == "camera"))
    graph.wait("recorder/status", lambda s: s["episode_frames_received"] == len(published) and s["decisions"], recorder)
    announcer.end(reward=0.5, solved=False)
    status = graph.wait("recorder/status", lambda s: s["last_episode"] == episode_id)
    assert status["frames_received"] == status["frames_logged"] == len(published)
    assert status["frames_dropped"] == status["frames_bad"] == status["decisions_incomplete"] == 0

    episode = store.open(episode_id)
    assert verify(store)[0].ok
    assert episode.task == "block-insertion"
    assert episode.attributes["seed"] == 2_000_003
    assert dict(episode.outcome) == {"reward": 0.5, "solved": False}
    frames = episode.frames("camera")
    assert frames.stamps_ns.tolist() == published
    np.testing.assert_array_equal(frames[7].depth, frame(7 % 4).depth)
    stamps, values = episode.stream("joint_state")
    rows = dict(zip(stamps.tolist(), values.tolist(), strict=True))
    assert rows.pop(1, [0.0] * 4) == [0.0] * 4  # sent before the episode began, by another way: it may come after
    assert rows == {77: [1.0, 2.0, 3.0, 4.0]}
    assert episode.attributes["joint_names"] == JOINTS
    assert episode.stream("joint_trajectory/2")[1].tolist() == [[0.0, 0, 1, 4, 5, 8, 9, 0.5, 2, 3, 6, 7, 10, 11]]
    assert episode.stream("gripper")[1].tolist() == [[0.25]]
    decision = episode.decisions[0]
    assert decision.action.pick.tobytes() == action.pick.tobytes()
    assert episode.begun == (False,)  # the arm was heard, and it began nothing
    assert decision.action.decision_id == action.decision_id
    assert decision.frames[0].stamp_ns == chosen
    np.testing.assert_array_equal(decision.frames[0].color, frame(2).color)


def test_a_killed_recorder_loses_no_episode(graph: Graph) -> None:
    store = EpisodeStore(graph.run_dir / "store")
    write_images(graph.run_dir / "images", 2)
    first = graph.start("recorder", store=str(store.path))
    announcer = Announcer(graph)
    whole = announcer.start()
    announcer.end(reward=1.0, solved=True)
    cut = announcer.start()
    camera = graph.start("camera", source=str(graph.run_dir / "images"), rate=20.0)
    logged = graph.wait("recorder/status", lambda s: s["episode_frames_logged"] >= 10)["episode_frames_logged"]
    first.send(signal.SIGKILL)
    assert first.wait(5.0)
    assert store.ids() == [whole]

    second = graph.start("recorder", store=str(store.path))
    assert store.ids() == [whole, cut]
    assert all(report.ok for report in verify(store))
    assert store.open(cut).outcome["interrupted"] is True
    assert len(store.open(cut).frames("camera")) >= logged
    status = graph.wait("recorder/status", lambda s: s["frames_received"] > 0 and s["frames_logged"] == 0, second)
    assert status["episode"] == "", "the start event of the interrupted episode starts nothing"
    graph.end(camera)
    assert graph.end(second, signal.SIGTERM) == 0


def test_by_hand_and_when_it_is_stopped_in_the_middle(graph: Graph) -> None:
    store = EpisodeStore(graph.run_dir / "store")
    recorder = graph.start("recorder", store=str(store.path), task="photographs")
    by_hand = graph.client.trigger("recorder/start")
    with pytest.raises(RunFailed, match="is being logged"):
        graph.client.trigger("recorder/start")
    assert graph.client.trigger("recorder/stop") == by_hand
    with pytest.raises(RunFailed, match="no episode"):
        graph.client.trigger("recorder/stop")
    images = graph.publisher(Image, "camera/color/image_raw")
    images.publish(Image(encoding="yuv422", width=1, height=1, step=2))
    cut = graph.client.trigger("recorder/start")
    assert graph.end(recorder) == 0
    assert store.ids() == [by_hand, cut]
    assert store.open(by_hand).task == "photographs"
    assert store.open(cut).outcome["aborted"] is True

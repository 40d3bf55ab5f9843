"""What is exported without ROS, ROS itself reads, and it is what the live graph would have said."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from episodes.exchange.rich import JOINTS, write_rich
from rclpy.serialization import deserialize_message

from embodied_vision.episodes import EpisodeStore
from embodied_vision.episodes.exchange.ros_export import EpisodeMessages
from embodied_vision.geometry import depth_to_metres
from embodied_vision.nodes.conversions import (
    camera_to_info,
    depth_to_image,
    from_json,
    joint_state_message,
    optical_frame,
    pick_place_to_poses,
    poses_to_pick_place,
)


def ros_type(name: str) -> Any:
    """The class of a type such as "std_msgs/msg/String"."""
    package, _, kind = name.split("/")
    return getattr(import_module(f"{package}.msg"), kind)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, list[Any]]]:
    store = EpisodeStore(tmp_path_factory.mktemp("store") / "one")
    episode = store.open(write_rich(store))
    messages: dict[str, list[Any]] = {}
    for message in EpisodeMessages(episode):
        if not message.type.startswith("tf2_msgs/"):  # not among the wheels of ROS
            messages.setdefault(message.topic, []).append(deserialize_message(message.data, ros_type(message.type)))
    return episode, messages


def test_images_and_calibration(exported: tuple[Any, dict[str, list[Any]]]) -> None:
    episode, messages = exported
    frames = episode.frames("camera")
    for index, stamp in enumerate(frames.stamps_ns.tolist()):
        assert messages["/camera/color/camera_info"][index] == camera_to_info(frames.camera, stamp)
        assert bytes(messages["/camera/color/image_raw/compressed"][index].data) == frames.encoded_color(index)
        depth = np.minimum(frames.depth_mm(index), 65534)  # the live graph has no 65535
        if np.array_equal(depth, frames.depth_mm(index)):
            wanted = depth_to_image(depth_to_metres(depth), stamp, optical_frame("camera"))
            assert messages["/camera/aligned_depth_to_color/image_raw"][index] == wanted


def test_joints_and_commands(exported: tuple[Any, dict[str, list[Any]]]) -> None:
    episode, messages = exported
    stamps, values = episode.stream("joint_state")
    for message, stamp, row in zip(messages["/joint_states"], stamps.tolist(), values, strict=True):
        wanted = joint_state_message(JOINTS, row[:3], row[3:], stamp)
        assert str(message) == str(wanted)  # NaN differs from itself
    assert [message.data for message in messages["/gripper/command"]] == episode.stream("gripper")[1].ravel().tolist()


def test_decisions(exported: tuple[Any, dict[str, list[Any]]]) -> None:
    episode, messages = exported
    finite = [decision.action for decision in episode.decisions if decision.action.is_finite()]
    assert messages["/pick_place"] == [pick_place_to_poses(action) for action in finite]
    texts = [from_json(message, "policy/decision") for message in messages["/policy/decision"]]
    action = poses_to_pick_place(messages["/pick_place"][0], texts[0])
    assert action.decision_id == finite[0].decision_id
    np.testing.assert_allclose(action.pick, finite[0].pick, atol=1e-12)
    events = [from_json(message, "episode/event") for message in messages["/episode/event"]]
    assert [event["event"] for event in events] == ["start", "end"]
    assert events[1]["outcome"] == dict(episode.outcome)

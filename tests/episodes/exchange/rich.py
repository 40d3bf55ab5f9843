"""An episode with everything that an episode may hold, and what it takes for two to be equal."""

from __future__ import annotations

import numpy as np

from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.episodes.codecs import BloscChunks, JpegChunks
from embodied_vision.episodes.frames import RawFrame
from embodied_vision.episodes.htj2k import Htj2kChunks
from embodied_vision.episodes.schema import ColorCodec
from embodied_vision.types import PickPlace
from episodes.samples import PERIOD_NS, START_NS, make_action, make_camera, make_frame

JOINTS = ["panda_joint2", "panda_joint1", "panda_joint3"]


def write_rich(store: EpisodeStore, color: ColorCodec = "jpeg", task: str = "block-insertion", frames: int = 5) -> str:
    """Two cameras, streams of every kind, decisions with odd values, stamps that go backwards."""
    cameras = [make_camera("camera"), make_camera("wrist-2/left", height=10, width=14)]
    writer = EpisodeWriter(
        store,
        task=task,
        robot="panda_suction",
        cameras=cameras,
        encoder_id="enc",
        policy_id="pol",
        attributes={"seed": 3, "joint_names": JOINTS, "odd": ["ü", float("nan"), {"a": None}]},
        color_codec=color,
        created_ns=START_NS - 12345,
        tags=["keep", "demo"],
    )
    rng = np.random.default_rng(5)
    with writer:
        for number in range(frames):
            for camera in cameras:
                writer.append_frame(make_frame(camera, number))
            for part in range(3):
                stamp = START_NS + number * PERIOD_NS + part
                writer.append("joint_state", stamp, [*rng.normal(size=3), *([np.nan] * 3)])
            points = np.column_stack([np.arange(4) * 0.05, rng.normal(size=(4, 9))])
            points[:, 0] = np.round(points[:, 0] * 1e9) * 1e-9
            writer.append("joint_trajectory/4", START_NS + number * PERIOD_NS, points.ravel())
            writer.append("joint_trajectory/2", START_NS + number * PERIOD_NS + 7, rng.normal(size=20))  # times in fs
            writer.append("gripper", START_NS + number * PERIOD_NS + 9, [number % 2])
            writer.append("reward", START_NS + number * PERIOD_NS + 10, [0.1 * number])
            writer.append("force/wrist-2", START_NS - number * 1000, rng.normal(size=6))  # backwards
            writer.append("2nd", START_NS + number, [np.inf, -0.0, 5e-324])
        writer.append_frame(make_frame(cameras[0], 1))  # a second frame of an earlier stamp
        writer.append_decision(make_action(1), [make_frame(camera, 0) for camera in cameras], {"checkpoint": "abc"})
        strange = np.full((4, 4), np.nan)
        action = PickPlace(strange, strange, primitive="push", scores={"pick": float("nan")}, stamp_ns=START_NS + 5)
        writer.append_decision(action, [], {"pick": "not the pose", "frames": [["camera", 1]]})
        depth = np.full((12, 16), 65535, np.uint16)
        farthest = RawFrame(make_frame(cameras[0], 8).color, depth, cameras[0], START_NS)
        writer.append_decision(make_action(2), [farthest, make_frame(cameras[1], 2)], {"deep": {"er": [1.5]}})
        return writer.close({"reward": 0.4, "solved": False, "aborted": True, "reason": "tëst"})


def assert_equal(one: Episode, other: Episode) -> None:
    """`other` is `one` come back from an export."""
    for name in ("task", "robot", "encoder_id", "policy_id", "created_ns", "closed_ns", "tags"):
        assert getattr(other, name) == getattr(one, name)
    assert dict(other.outcome) == dict(one.outcome)
    attributes = dict(other.attributes)
    imported = attributes.pop("imported")
    assert imported["id"] == one.id
    assert attributes == {key: value for key, value in one.attributes.items() if key != "imported"}
    assert list(other.cameras) == list(one.cameras)
    for name, camera in one.cameras.items():
        assert other.cameras[name].to_dict() == camera.to_dict()
        ours, theirs = one.frames(name), other.frames(name)
        np.testing.assert_array_equal(theirs.stamps_ns, ours.stamps_ns)
        no_message_carries_it = isinstance(ours.color_codec, Htj2kChunks)
        assert theirs.color_codec == (BloscChunks(1) if no_message_carries_it else ours.color_codec)
        for index in range(len(ours)):
            if isinstance(ours.color_codec, JpegChunks):
                assert theirs.encoded_color(index) == ours.encoded_color(index)
            np.testing.assert_array_equal(theirs.color(index), ours.color(index))
            np.testing.assert_array_equal(theirs.depth_mm(index), ours.depth_mm(index))
    assert other.streams == one.streams
    for name in one.streams:
        for ours_, theirs_ in zip(one.stream(name), other.stream(name), strict=True):
            assert theirs_.tobytes() == ours_.tobytes(), name
            assert theirs_.shape == ours_.shape
    assert len(other.decisions) == len(one.decisions)
    for index, (mine, yours) in enumerate(zip(one.decisions, other.decisions, strict=True)):
        np.testing.assert_array_equal(yours.action.pick, mine.action.pick)
        np.testing.assert_array_equal(yours.action.place, mine.action.place)
        assert str(yours.action.to_dict()) == str(mine.action.to_dict())  # NaN differs from itself
        assert dict(yours.info) == dict(mine.info)
        used = zip(one.decisions.used(index), other.decisions.used(index), strict=True)
        for (frames, number), (others, other_number) in used:
            assert others.camera.name == frames.camera.name
            assert others.stamps_ns[other_number] == frames.stamps_ns[number]
            np.testing.assert_array_equal(others.color(other_number), frames.color(number))
            np.testing.assert_array_equal(others.depth_mm(other_number), frames.depth_mm(number))

"""Recordings of others become episodes by a map of their topics; what does not fit is told with topic and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_vision.calibration import read_cameras, write_cameras
from embodied_vision.episodes import Episode, EpisodeStore
from embodied_vision.episodes.exchange import mcap, rosbag2
from embodied_vision.episodes.exchange.topic_map import read_topic_map
from embodied_vision.episodes.verify import verify_episode
from embodied_vision.errors import BadInput
from embodied_vision.paths import PACKAGE
from episodes.exchange import bags
from episodes.samples import PERIOD_NS, START_NS, make_camera

EPSILON = 1e-12


def run(tmp_path: Path, messages: list[tuple[str, int, Any]], content: str = bags.TYPICAL_MAP, **more: Any) -> Any:
    """The imported episodes of a bag of `messages`."""
    bag = bags.write_bag(tmp_path / "bag", messages, more.pop("kind", "sqlite3"))
    store = EpisodeStore(tmp_path / "store")
    topics = bags.write_map(tmp_path / "topics.yaml", content)
    ids = list(rosbag2.import_(bag, store, task=more.pop("task", None), topics=topics))
    assert store.ids() == sorted(ids)
    assert store.staging_ids() == []
    assert all(verify_episode(store, name).ok for name in ids)
    return [store.open(name) for name in ids]


def refused(tmp_path: Path, messages: list[tuple[str, int, Any]], match: str, content: str = bags.TYPICAL_MAP) -> None:
    with pytest.raises(BadInput, match=match):
        run(tmp_path, messages, content)
    store = EpisodeStore(tmp_path / "store")
    assert store.ids() == []
    assert store.staging_ids() == []


@pytest.mark.parametrize("kind", ["sqlite3", "mcap"])
def test_a_typical_bag(tmp_path: Path, kind: str) -> None:
    (episode,) = run(tmp_path, bags.typical(), kind=kind)
    assert (episode.task, episode.robot, dict(episode.outcome)) == ("stacking", "ur5e", {"solved": True})
    camera = episode.cameras["front"]
    np.testing.assert_allclose(camera.K, bags.K)
    np.testing.assert_allclose(camera.T_base_camera, bags.T_BASE_MOUNT @ bags.T_MOUNT_OPTICAL, atol=EPSILON)
    frames = episode.frames("front")
    np.testing.assert_array_equal(frames.stamps_ns, START_NS + np.arange(4) * PERIOD_NS)
    for index in range(4):
        np.testing.assert_array_equal(frames.depth_mm(index), bags.depth_at(index))
        assert np.abs(frames.color(index).astype(int) - bags.color_at(index)).mean() < 12  # JPEG of quality 90
    stamps, values = episode.stream("joint_state")
    np.testing.assert_array_equal(stamps, frames.stamps_ns)
    np.testing.assert_array_equal(values, np.tile([1.0, 2, 3, 10, 20, 30], (4, 1)))
    assert episode.attributes["joint_names"] == ["elbow", "shoulder", "wrist"]
    np.testing.assert_allclose(episode.stream("twist")[1], [[0.1 * n, -0.2] for n in range(4)])
    stamps, values = episode.stream("gripper")  # without a header: when it was logged
    np.testing.assert_array_equal(stamps, frames.stamps_ns + 14_000_000)
    np.testing.assert_array_equal(values, np.full((4, 1), 0.25))
    assert (episode.created_ns, episode.closed_ns) == (START_NS + 10_000_000, stamps[-1])  # as logged
    imported = episode.attributes["imported"]
    assert imported["source"] == "bag"
    assert imported["joint_states_of_others"] == 4
    assert imported["unmatched"] == {"front": {"color": 0, "depth": 0}}


@pytest.mark.parametrize("color", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "png"])
def test_every_encoding_of_color(tmp_path: Path, color: str) -> None:
    (episode,) = run(tmp_path, bags.typical(2, color=color), bags.TYPICAL_MAP + "quality: 100\n")
    wanted = bags.color_at(1)
    if color == "mono8":
        wanted = np.repeat(wanted[..., :1], 3, axis=2)
    assert np.abs(episode.frames("front").color(1).astype(int) - wanted).max() <= 4


def test_a_jpeg_goes_through_as_it_is(tmp_path: Path) -> None:
    (episode,) = run(tmp_path, bags.typical(2, color="jpeg"))
    assert episode.frames("front").encoded_color(1) == bags.jpeg(bags.color_at(1))


@pytest.mark.parametrize("depth", ["16UC1", "32FC1", "png", "compressedDepth"])
def test_every_encoding_of_depth(tmp_path: Path, depth: str) -> None:
    (episode,) = run(tmp_path, bags.typical(2, depth=depth))
    np.testing.assert_array_equal(episode.frames("front").depth_mm(1), bags.depth_at(1))


def test_dropped_frames_are_left_out_and_counted(tmp_path: Path) -> None:
    messages = bags.typical(6)
    depths = [index for index, (topic, _, _) in enumerate(messages) if topic == "/cam/depth"]
    colors = [index for index, (topic, _, _) in enumerate(messages) if topic == "/cam/color"]
    for index in sorted((depths[1], colors[3]), reverse=True):
        del messages[index]
    (episode,) = run(tmp_path, messages)
    np.testing.assert_array_equal(episode.frames("front").stamps_ns, START_NS + np.array([0, 2, 4, 5]) * PERIOD_NS)
    np.testing.assert_array_equal(episode.frames("front").depth_mm(1), bags.depth_at(2))
    assert episode.attributes["imported"]["unmatched"] == {"front": {"color": 1, "depth": 1}}


def test_depth_out_of_the_slop_is_no_match(tmp_path: Path) -> None:
    (episode,) = run(tmp_path, bags.typical(3), bags.TYPICAL_MAP + "slop_s: 0.002\n")
    assert len(episode.frames("front")) == 0
    assert episode.attributes["imported"]["unmatched"] == {"front": {"color": 3, "depth": 3}}


def test_stamps_of_the_log(tmp_path: Path) -> None:
    (episode,) = run(tmp_path, bags.typical(3), bags.TYPICAL_MAP + "stamps: log\n")
    np.testing.assert_array_equal(episode.frames("front").stamps_ns, START_NS + 10_000_000 + np.arange(3) * PERIOD_NS)


def test_a_camera_without_depth_says_so(tmp_path: Path) -> None:
    (episode,) = run(tmp_path, bags.typical(2), bags.TYPICAL_MAP.replace(" depth: /cam/depth,", ""))
    assert len(episode.frames("front")) == 2
    assert not episode.frames("front").depth_mm(0).any()
    assert "no depth" in episode.attributes["imported"]["notes"][0]


def test_calibration_stands_in_for_what_the_bag_lacks(tmp_path: Path) -> None:
    write_cameras((make_camera("front"),), tmp_path / "cal.yaml")
    messages = [entry for entry in bags.typical(2) if entry[0] not in ("/tf_static", "/cam/info")]
    content = bags.TYPICAL_MAP.replace(", info: /cam/info", "") + "calibration: cal.yaml\n"
    (episode,) = run(tmp_path, messages, content)
    np.testing.assert_array_equal(episode.cameras["front"].T_base_camera, make_camera().T_base_camera)
    np.testing.assert_array_equal(episode.cameras["front"].K, make_camera().K)


def test_gaps_cut_a_recording(tmp_path: Path) -> None:
    later = [(topic, ns + 10**10, message) for topic, ns, message in bags.typical(2)][1:]
    content = bags.TYPICAL_MAP + "episodes: {by: gap, gap_s: 5}\nstamps: log\n"
    one, two = run(tmp_path, bags.typical(3) + later, content)
    assert (len(one.frames("front")), len(two.frames("front"))) == (3, 2)
    assert one.created_ns < two.created_ns


EVENTS = """
task: fallback
base_frame: world
cameras: {front: {color: /cam/color, depth: /cam/depth, info: /cam/info}}
episodes:
  {by: event, topic: /episode/event, field: data.event, start: start, end: end, task: data.task, outcome: data.outcome}
"""


def event(ns: int, **content: Any) -> tuple[str, int, Any]:
    return "/episode/event", ns, bags.text(json.dumps(content))


def test_events_cut_a_recording(tmp_path: Path) -> None:
    frames = [entry for entry in bags.typical(8) if entry[0] != "/tf_static"]
    at = [START_NS + number * PERIOD_NS + 5_000_000 for number in range(8)]
    events = [
        event(at[0], event="end", outcome={}),  # of an episode before the recording
        event(at[1], event="start", task="a"),
        event(at[3], event="end", outcome={"solved": True}),
        event(at[4], event="start", task="b"),
        event(at[6], event="start", task="c"),
    ]
    messages = sorted([*frames, *events], key=lambda entry: entry[1])
    episodes = run(tmp_path, [("/tf_static", START_NS, bags.FRAMES), *messages], EVENTS)
    assert [episode.task for episode in episodes] == ["a", "b", "c"]
    assert [len(episode.frames("front")) for episode in episodes] == [2, 2, 2]
    assert dict(episodes[0].outcome) == {"solved": True}
    assert episodes[1].outcome["reason"] == "no end event"
    assert episodes[2].outcome["aborted"] is True


def test_our_own_recording_by_a_map(tmp_path: Path) -> None:
    """The example in config/ is for the topics of the live graph, which our exports have too."""
    from episodes.exchange.rich import write_rich

    store, other = EpisodeStore(tmp_path / "one"), EpisodeStore(tmp_path / "two")
    episode = store.open(write_rich(store))
    mcap.export([episode], tmp_path / "out.mcap", done=lambda _: None)
    content = (
        "base_frame: base\ncameras:\n  camera:\n    color: /camera/color/image_raw/compressed\n"
        "    depth: /camera/aligned_depth_to_color/image_raw\n    info: /camera/color/camera_info\n"
        "streams:\n  pick: {topic: /pick_place, fields: [poses.0.position.x]}\n"
    )
    topics = bags.write_map(tmp_path / "topics.yaml", content)
    (name,) = mcap.import_(tmp_path / "out.mcap", other, task="named", topics=topics)
    imported: Episode = other.open(name)
    assert imported.task == "named"
    assert imported.frames("camera").encoded_color(0) == episode.frames("camera").encoded_color(0)
    np.testing.assert_array_equal(
        imported.stream("pick")[1].ravel(),
        [episode.decisions[0].action.pick[0, 3], episode.decisions[2].action.pick[0, 3]],
    )


def test_types_that_the_recording_defines(tmp_path: Path) -> None:
    from rosbags.rosbag2 import Writer
    from rosbags.rosbag2.enums import StoragePlugin
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    types.register(get_types_from_msg("float32[3] force\nint16 level\n", "my_msgs/msg/Touch"))
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/touch", "my_msgs/msg/Touch", typestore=types)
        message = types.types["my_msgs/msg/Touch"](force=np.array([1, 2, 3], np.float32), level=-4)
        writer.write(connection, START_NS, types.serialize_cdr(message, "my_msgs/msg/Touch"))
    topics = bags.write_map(tmp_path / "t.yaml", "streams: {touch: {topic: /touch, fields: [force, level]}}\n")
    (name,) = rosbag2.import_(tmp_path / "bag", EpisodeStore(tmp_path / "store"), task="t", topics=topics)
    np.testing.assert_array_equal(EpisodeStore(tmp_path / "store").open(name).stream("touch")[1], [[1, 2, 3, -4]])


def changed(old: str, new: str) -> str:
    assert old in bags.TYPICAL_MAP
    return bags.TYPICAL_MAP.replace(old, new)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (changed("/cam/depth", "/nowhere"), "lacks the topics /nowhere.*it has /cam/color"),
        (changed("color: /cam/color", "color: /cmd"), "topic /cmd holds geometry_msgs/msg/TwistStamped.*needs"),
        (changed("{topic: /joint_states, j", "{topic: /cmd, j"), "topic /cmd holds.*JointState"),
        (changed("base_frame: world", "base_frame: nowhere"), "tf_static does not lead.*calibration"),
        (changed(", info: /cam/info", ""), "no camera_info.*calibration"),
        (changed("elbow, shoulder", "elbow, knee"), "topic /joint_states.*lacks.*knee"),
        (changed("twist.linear.x", "twist.linear.w"), "topic /cmd.*'twist.linear.w'.*topic map"),
        (changed("[data]", "[layout.x]"), "topic /gripper.*'layout'"),
        (changed("twist.linear.x", "twist.linear"), "topic /cmd.*Vector3, no numbers"),
        (changed("twist.linear.x", "header.frame_id"), "topic /cmd.*str, no numbers"),
        (changed("twist.linear.x", "__class__"), "topic /cmd.*no field '__class__'"),
        (changed("task: stacking", ""), "--task NAME"),
        (changed("front:", "../front:"), "cannot name a camera"),
        (changed("twist:", "'a\\\\b':"), "cannot name a camera or stream"),
        (changed("robot:", "robott:"), "unknown keys robott"),
        (bags.TYPICAL_MAP + "slop_s: -1", "slop_s is -1"),
        (bags.TYPICAL_MAP + "stamps: clock", "stamps is 'clock'"),
        (bags.TYPICAL_MAP + "episodes: {by: gap}", "lacks gap_s"),
        (bags.TYPICAL_MAP + "calibration: none.yaml", "none.yaml does not exist"),
        ("[1, 2", "is no YAML"),
        ("task: x", "maps nothing"),
        ("[" * 5000, "is no YAML"),
        ("cameras: 3", "cameras is 3"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, content: str, match: str) -> None:
    refused(tmp_path, bags.typical(2), match, content)


def with_message(topic: str, message: Any) -> list[tuple[str, int, Any]]:
    """A bag whose last message on a topic is another one."""
    return [*bags.typical(2), (topic, START_NS + 2 * PERIOD_NS, message)]


LATER = START_NS + 2 * PERIOD_NS


@pytest.mark.parametrize(
    ("topic", "message", "match"),
    [
        ("/cam/color", bags.image(bags.color_at(0), "bayer_rggb8", LATER), "/cam/color.*bayer_rggb8.*one of rgb8"),
        ("/cam/color", bags.image(bags.color_at(0)[:6], "rgb8", LATER), "/cam/color.*16x6.*16x12"),
        ("/cam/depth", bags.image(bags.depth_at(0), "8UC1", LATER), "/cam/depth.*8UC1.*16UC1 in mm"),
        ("/cam/depth", bags.image(bags.depth_at(0)[:, :5], "16UC1", LATER), "/cam/depth.*5x12"),
        ("/cam/color", bags.image(bags.color_at(0), "rgb8", 0), "/cam/color.*stamped 0.*stamps: log"),
        ("/joint_states", bags.joints(["elbow"], [1.0], LATER), "joint_states lacks.*shoulder"),
        ("/joint_states", bags.joints(bags.JOINTS, [1.0], LATER), "joint_states names 3 joints, 1 positions"),
    ],
)
def test_a_wrong_message_discards_the_episode(tmp_path: Path, topic: str, message: Any, match: str) -> None:
    content = bags.TYPICAL_MAP
    messages = with_message(topic, message)
    if topic == "/cam/color":  # its depth comes first, so that the pair is complete
        messages.insert(-1, ("/cam/depth", LATER, bags.image(bags.depth_at(2), "16UC1", LATER)))
    if topic == "/cam/depth":
        messages.insert(-1, ("/cam/color", LATER, bags.image(bags.color_at(2), "rgb8", LATER)))
    refused(tmp_path, messages, match, content)


@pytest.mark.parametrize("broken", [lambda data: data[: len(data) // 2], lambda data: b"nothing", lambda data: b""])
def test_a_broken_compressed_image_discards_the_episode(tmp_path: Path, broken: Any) -> None:
    messages = bags.typical(2, color="jpeg")
    data = broken(bags.jpeg(bags.color_at(2)))
    messages.append(("/cam/depth", LATER, bags.image(bags.depth_at(2), "16UC1", LATER)))
    messages.append(("/cam/color", LATER, bags.compressed(data, "jpeg", LATER)))
    refused(tmp_path, messages, "topic /cam/color")


def test_episodes_before_the_bad_one_stay(tmp_path: Path) -> None:
    later = [(topic, ns + 10**10, message) for topic, ns, message in bags.typical(2)][1:]
    bad = ("/cam/color", START_NS + 2 * 10**10, bags.image(bags.color_at(0), "bayer_rggb8", LATER))
    last = ("/cam/depth", START_NS + 2 * 10**10, bags.image(bags.depth_at(0), "16UC1", LATER))
    bag = bags.write_bag(tmp_path / "bag", [*bags.typical(2), *later, last, bad])
    topics = bags.write_map(tmp_path / "topics.yaml", bags.TYPICAL_MAP + "episodes: {by: gap, gap_s: 2}\n")
    store = EpisodeStore(tmp_path / "store")
    done: list[str] = []
    with pytest.raises(BadInput, match="bayer_rggb8"):
        done.extend(rosbag2.import_(bag, store, task=None, topics=topics))
    assert store.ids() == sorted(done)
    assert len(done) == 2
    assert store.staging_ids() == []


def test_a_foreign_recording_needs_a_map(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "bag", bags.typical(1))
    with pytest.raises(BadInput, match=r"--topics.*/cam/color"):
        list(rosbag2.import_(bag, EpisodeStore(tmp_path / "store"), task="t", topics=None))


def test_the_example_is_for_a_recording_of_our_graph(tmp_path: Path) -> None:
    example = PACKAGE / "config" / "topics.example.yaml"
    color, depth = np.zeros((240, 424, 3), np.uint8), np.full((240, 424), 850, np.uint16)
    double = bags.TYPES["std_msgs/msg/Float64"](data=1.0)
    messages = [
        event(START_NS, event="start", task="block-insertion", stamp_ns=START_NS),
        ("/camera/color/image_raw", START_NS + 1, bags.image(color, "rgb8", START_NS)),
        ("/camera/color/camera_info", START_NS + 2, calibrated_info()),
        ("/camera/aligned_depth_to_color/image_raw", START_NS + 3, bags.image(depth, "16UC1", START_NS)),
        ("/joint_states", START_NS + 4, bags.joints(bags.JOINTS, [1, 2, 3], START_NS)),
        ("/gripper/command", START_NS + 5, double),
        event(START_NS + 6, event="end", outcome={"solved": True, "reward": 1.0}),
    ]
    bag = bags.write_bag(tmp_path / "bag", messages)
    store = EpisodeStore(tmp_path / "store")
    (name,) = rosbag2.import_(bag, store, task=None, topics=example)
    episode = store.open(name)
    assert (episode.task, dict(episode.outcome)) == ("block-insertion", {"solved": True, "reward": 1.0})
    assert len(episode.frames("camera")) == 1
    assert set(episode.streams) == {"joint_state", "gripper"}
    assert read_topic_map(example).topics() == {topic for topic, _, _ in messages}


def calibrated_info() -> Any:
    (camera,) = read_cameras()
    message = bags.info(START_NS, camera.K)
    message.height, message.width = camera.height, camera.width
    return message

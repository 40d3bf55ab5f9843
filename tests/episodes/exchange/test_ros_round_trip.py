"""An episode that goes out as ROS messages and comes back is equal in every value."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import NonSeekingReader, SeekingReader
from rosbags.highlevel import AnyReader

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.exchange import find_format, mcap, rosbag2
from embodied_vision.episodes.exchange.about import Digests
from embodied_vision.episodes.exchange.cdr import Decoder, Message, definition
from embodied_vision.episodes.exchange.ros_export import EpisodeMessages
from embodied_vision.episodes.repair import INTERRUPTED, repair
from embodied_vision.episodes.schema import ColorCodec
from embodied_vision.errors import BadInput, EpisodeError, RunFailed
from episodes.exchange.rich import JOINTS, assert_equal, write_rich
from episodes.samples import START_NS, Child, make_camera, write_episode


@pytest.mark.parametrize("color", ["jpeg", "htj2k", "lossless"])
@pytest.mark.parametrize("how", ["mcap", "mcap folder", "rosbag2 mcap", "rosbag2 sqlite3"])
def test_an_episode_comes_back_equal(tmp_path: Path, how: str, color: ColorCodec) -> None:
    store, other = EpisodeStore(tmp_path / "one"), EpisodeStore(tmp_path / "two")
    episode = store.open(write_rich(store, color))
    form, _, kind = how.partition(" ")
    target = tmp_path / ("out.mcap" if how == "mcap" else "out")
    told: list[str] = []
    if form == "mcap":
        mcap.export([episode], target, done=told.append)
    else:
        rosbag2.export([episode], target, done=told.append, storage=kind)  # type: ignore[arg-type]
    assert told == [episode.id]
    (imported,) = find_format(form).import_(target, other, task=None, topics=None)
    assert imported != episode.id
    assert other.ids() == [imported]
    assert other.staging_ids() == []
    assert_equal(episode, other.open(imported))
    assert other.open(imported).attributes["imported"]["format"] == form


def test_several_episodes_and_what_was_imported_before(tmp_path: Path) -> None:
    stores = [EpisodeStore(tmp_path / name) for name in ("a", "b", "c")]
    first = [write_episode(stores[0], frames=2), write_rich(stores[0], frames=2)]
    mcap.export([stores[0].open(name) for name in first], tmp_path / "out", done=lambda _: None)
    second = list(mcap.import_(tmp_path / "out", stores[1], task=None, topics=None))
    rosbag2.export([stores[1].open(name) for name in second], tmp_path / "bags", done=lambda _: None)
    third = list(rosbag2.import_(tmp_path / "bags", stores[2], task=None, topics=None))
    assert len(third) == 2
    for one, other in zip(first, third, strict=True):
        episode = stores[2].open(other)
        assert episode.attributes["imported"]["before"]["id"] == one
        assert_equal(stores[1].open(episode.attributes["imported"]["id"]), episode)


def test_an_empty_episode_comes_back(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "one")
    with EpisodeWriter(store, task="t", robot="r", cameras=[make_camera()]) as writer:
        episode = store.open(writer.close({}))
    mcap.export([episode], tmp_path / "empty.mcap", done=lambda _: None)
    (imported,) = mcap.import_(tmp_path / "empty.mcap", EpisodeStore(tmp_path / "two"), task=None, topics=None)
    assert_equal(episode, EpisodeStore(tmp_path / "two").open(imported))


def test_the_file_is_what_foxglove_and_ros_expect(tmp_path: Path) -> None:
    """Schema encoding ros2msg, CDR, the profile ros2, topics of the live graph, images as image_transport has them."""
    store = EpisodeStore(tmp_path / "one")
    episode = store.open(write_rich(store))
    path = tmp_path / "out.mcap"
    mcap.export([episode], path, done=lambda _: None)
    with open(path, "rb") as file:
        reader = SeekingReader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        assert summary is not None
        assert {channel.message_encoding for channel in summary.channels.values()} == {"cdr"}
        for schema in summary.schemas.values():
            assert schema.encoding == "ros2msg"
            assert schema.data.decode() == definition(schema.name)
        counts = {
            summary.channels[number].topic: count
            for number, count in summary.statistics.channel_message_counts.items()  # type: ignore[union-attr]
        }
        assert counts["/camera/color/image_raw/compressed"] == len(episode.frames("camera"))
        assert counts["/wrist_2/left/aligned_depth_to_color/image_raw"] == len(episode.frames("wrist-2/left"))
        assert counts["/policy/decision"] == 3
        (metadata,) = reader.iter_metadata()
        assert metadata.metadata["id"] == episode.id
        for _, _, message in reader.iter_messages():
            assert message.log_time == message.publish_time
    with open(path, "rb") as file:
        assert sum(counts.values()) == len(list(NonSeekingReader(file, validate_crcs=True).iter_messages()))


@pytest.mark.parametrize("kind", ["mcap", "sqlite3"])
def test_rosbags_reads_the_bag(tmp_path: Path, kind: rosbag2.Storage) -> None:
    store = EpisodeStore(tmp_path / "one")
    episode = store.open(write_rich(store))
    rosbag2.export([episode], tmp_path / "out", done=lambda _: None, storage=kind)
    frames = episode.frames("camera")
    with AnyReader([tmp_path / "out" / episode.id]) as reader:
        seen: dict[str, list[tuple[int, object]]] = {}
        for connection, stamp, data in reader.messages():
            seen.setdefault(connection.topic, []).append((stamp, reader.deserialize(data, connection.msgtype)))
    color = seen["/camera/color/image_raw/compressed"]
    assert sorted(stamp for stamp, _ in color) == sorted(frames.stamps_ns.tolist())
    first = color[0][1]
    assert bytes(first.data) == frames.encoded_color(0)  # type: ignore[attr-defined]
    depth = seen["/camera/aligned_depth_to_color/image_raw"][0][1]
    assert depth.encoding == "16UC1"  # type: ignore[attr-defined]
    pixels = np.frombuffer(depth.data.tobytes(), "<u2").reshape(12, 16)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(pixels, frames.depth_mm(0))
    joints = seen["/joint_states"][0][1]
    assert joints.name == JOINTS  # type: ignore[attr-defined]
    poses = seen["/tf_static"][0][1].transforms  # type: ignore[attr-defined]
    assert [pose.child_frame_id for pose in poses] == ["camera_optical_frame", "wrist-2/left_optical_frame"]
    assert poses[0].transform.translation.x == episode.cameras["camera"].T_base_camera[0, 3]


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "one")
    with EpisodeWriter(store, task="t", robot="r", cameras=[make_camera()]) as writer:
        writer.append("gripper", START_NS, [1.0])
        good = store.open(writer.close({}))
    with EpisodeWriter(store, task="t", robot="r", cameras=[make_camera()]) as writer:
        writer.append("gripper", -5, [1.0])
        before_1970 = store.open(writer.close({}))
    out = tmp_path / "out"
    out.mkdir()
    for form, name in ((mcap, "some"), (mcap, "one.mcap"), (rosbag2, "some")):
        with pytest.raises(BadInput, match="1970" if name == "some" else "folder"):
            form.export([good, before_1970], out / name, done=lambda _: None)  # type: ignore[attr-defined]
        assert list(out.iterdir()) == []


def test_an_existing_target_is_refused(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "one")
    episode = store.open(write_episode(store, frames=1))
    (tmp_path / "there.mcap").write_text("mine")
    with pytest.raises(BadInput, match="never overwritten"):
        mcap.export([episode], tmp_path / "there.mcap", done=lambda _: None)
    assert (tmp_path / "there.mcap").read_text() == "mine"


def test_names_that_would_share_topics_are_refused(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "one")
    cameras = [make_camera("a"), make_camera("decisions/a")]
    with EpisodeWriter(store, task="t", robot="r", cameras=cameras) as writer:
        episode = store.open(writer.close({}))
    with pytest.raises(BadInput, match="share the topics /decisions/a"):
        mcap.export([episode], tmp_path / "out.mcap", done=lambda _: None)


def files_of_at_most(size: int, work: Callable[[], None]) -> None:
    """Run in a child process whose files may grow to `size` bytes only, as on a full disk."""

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        work()

    with Child(child) as process:
        assert process.wait() == 0


@pytest.mark.parametrize("how", ["mcap", "rosbag2 mcap", "rosbag2 sqlite3"])
def test_a_full_disk_ends_an_export_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    store = EpisodeStore(tmp_path / "one")
    episode = store.open(write_rich(store))
    (tmp_path / "out").mkdir()
    form, _, kind = how.partition(" ")

    def work() -> None:
        export = mcap.export if form == "mcap" else partial(rosbag2.export, storage=kind)  # type: ignore[arg-type]
        with pytest.raises(RunFailed, match=r"cannot be written.*free space"):
            export([episode], tmp_path / "out" / "a", done=lambda _: None)

    files_of_at_most(12_000, work)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_ends_an_import_and_leaves_nothing(tmp_path: Path) -> None:
    store, other = EpisodeStore(tmp_path / "one"), EpisodeStore(tmp_path / "two")
    mcap.export([store.open(write_rich(store))], tmp_path / "out.mcap", done=lambda _: None)

    def work() -> None:
        with pytest.raises(EpisodeError, match="free space"):
            list(mcap.import_(tmp_path / "out.mcap", other, task=None, topics=None))

    files_of_at_most(5_000, work)
    assert other.ids() == []
    assert other.staging_ids() == []


@pytest.mark.parametrize("at", [0.2, 0.6, 0.95])
def test_a_killed_export_leaves_no_target(tmp_path: Path, at: float) -> None:
    store = EpisodeStore(tmp_path / "one")
    episode = store.open(write_rich(store))
    messages = list(EpisodeMessages(episode))
    (tmp_path / "out").mkdir()

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            left = [int(at * len(messages))]

            def add(self: Digests, message: Message) -> None:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            patch.setattr(Digests, "add", add)
            mcap.export([episode], tmp_path / "out" / "a", done=lambda _: None)

    with Child(work) as process:
        assert process.wait() == -signal.SIGKILL
    assert [path.name[:11] for path in (tmp_path / "out").iterdir()] == [".a.partial-"]
    mcap.export([episode], tmp_path / "out" / "a", done=lambda _: None)  # it is in nobody's way


def test_a_killed_import_acknowledges_nothing(tmp_path: Path) -> None:
    store, other = EpisodeStore(tmp_path / "one"), EpisodeStore(tmp_path / "two")
    episode = store.open(write_rich(store))
    mcap.export([episode], tmp_path / "out.mcap", done=lambda _: None)
    count = len(list(EpisodeMessages(episode)))

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            left = [count // 2]

            def add(self: Digests, message: Message) -> None:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            patch.setattr(Digests, "add", add)
            list(mcap.import_(tmp_path / "out.mcap", other, task=None, topics=None))

    with Child(work) as process:
        assert process.wait() == -signal.SIGKILL
    assert other.ids() == []
    (repaired,) = repair(other)  # as of any writer: what was written before, marked as cut off, its origin on it
    half = other.open(repaired.id)
    assert dict(half.outcome) == INTERRUPTED
    assert half.attributes["imported"]["id"] == episode.id
    (name,) = mcap.import_(tmp_path / "out.mcap", other, task=None, topics=None)
    assert_equal(episode, other.open(name))


@pytest.mark.parametrize(
    ("attributes", "dimension", "arrays"),
    [
        ({}, 6, {"position": 3, "velocity": 3, "effort": 0}),
        ({"joint_names": JOINTS}, 9, {"position": 3, "velocity": 3, "effort": 3}),
        ({"joint_names": JOINTS}, 3, {"position": 3, "velocity": 0, "effort": 0}),
        (
            {"contract": {"streams": {"joint_state": {"fields": ["effort", "position"]}}}},
            4,
            {"position": 2, "effort": 2},
        ),
        ({"contract": {"streams": {"joint_state": {"fields": ["position", "other"]}}}}, 4, None),
        ({}, 7, {"position": 7, "velocity": 0, "effort": 0}),
    ],
)
def test_joint_states_as_they_were_logged(
    tmp_path: Path, attributes: dict[str, Any], dimension: int, arrays: dict[str, int] | None
) -> None:
    store, other = EpisodeStore(tmp_path / "one"), EpisodeStore(tmp_path / "two")
    with EpisodeWriter(store, task="t", robot="r", cameras=[], attributes=attributes) as writer:
        writer.append("joint_state", START_NS, np.arange(dimension) + 0.5)
        episode = store.open(writer.close({}))
    messages = [message for message in EpisodeMessages(episode) if message.topic == "/joint_states"]
    if arrays is None:
        assert not messages
    else:
        state = Decoder({}).decode(messages[0])
        assert {name: len(getattr(state, name)) for name in arrays} == arrays
        if "contract" in attributes:
            assert state.position.tolist() == [2.5, 3.5]
    mcap.export([episode], tmp_path / "out.mcap", done=lambda _: None)
    (name,) = mcap.import_(tmp_path / "out.mcap", other, task=None, topics=None)
    assert_equal(episode, other.open(name))

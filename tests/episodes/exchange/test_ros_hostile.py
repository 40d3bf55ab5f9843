"""Recordings that are damaged or made to do harm: right data or an error, in bounded memory, nothing else touched."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
import yaml
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.records import Channel, Chunk, DataEnd, Footer, Header, Message, Schema
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from embodied_vision.episodes import EpisodeStore
from embodied_vision.episodes.exchange import mcap, rosbag2
from embodied_vision.episodes.exchange.about import describe, pack
from embodied_vision.episodes.exchange.cdr import definition, encode
from embodied_vision.episodes.exchange.mcap_file import McapFile
from embodied_vision.errors import BadInput
from episodes.exchange import bags
from episodes.exchange.rich import assert_equal, write_rich
from episodes.forged import bounded
from episodes.samples import START_NS, files_of, make_camera

_FLIPS = int(os.environ.get("EMBODIED_VISION_FLIPS", "60"))
MEMORY = 600 << 20
"""Bytes that an import may take."""


@pytest.fixture
def exported(tmp_path: Path) -> tuple[EpisodeStore, str]:
    store = EpisodeStore(tmp_path / "one")
    return store, write_rich(store, frames=2)


def right_or_refused(run: Callable[[EpisodeStore], Iterator[str]], original: Any, store: EpisodeStore) -> bool:
    """Import what was damaged: it is refused and leaves nothing, or comes back right. Whether it was refused."""
    try:
        (name,) = run(store)
    except BadInput:
        assert store.ids() == []
        assert store.staging_ids() == []
        return True
    assert_equal(original, store.open(name))
    return False


def import_mcap(path: Path) -> Callable[[EpisodeStore], Iterator[str]]:
    return lambda store: mcap.import_(path, store, task=None, topics=None)


def import_bag(path: Path) -> Callable[[EpisodeStore], Iterator[str]]:
    return lambda store: rosbag2.import_(path, store, task=None, topics=None)


@pytest.mark.parametrize("kind", ["mcap", "rosbag2 mcap", "rosbag2 sqlite3"])
def test_a_flipped_bit_is_found_or_does_no_harm(exported: tuple[EpisodeStore, str], tmp_path: Path, kind: str) -> None:
    episode = exported[0].open(exported[1])
    if kind == "mcap":
        mcap.export([episode], tmp_path / "out.mcap", done=lambda _: None)
        paths, run = [tmp_path / "out.mcap"], import_mcap(tmp_path / "out.mcap")
    else:
        rosbag2.export([episode], tmp_path / "out", done=lambda _: None, storage=kind.split()[1])  # type: ignore[arg-type]
        paths, run = files_of(tmp_path / "out"), import_bag(tmp_path / "out" / episode.id)
    rng = np.random.default_rng(7)
    found = 0
    for number in range(_FLIPS // 3):
        path = paths[number % len(paths)]
        good = path.read_bytes()
        position = int(rng.integers(len(good)))
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        found += right_or_refused(run, episode, EpisodeStore(tmp_path / f"s{number}"))
        path.write_bytes(good)
    assert found > _FLIPS // 12  # most flips are in data that count


@pytest.mark.parametrize("kind", ["mcap", "rosbag2 mcap", "rosbag2 sqlite3"])
def test_a_file_that_is_cut_short_is_refused(exported: tuple[EpisodeStore, str], tmp_path: Path, kind: str) -> None:
    episode = exported[0].open(exported[1])
    if kind == "mcap":
        mcap.export([episode], tmp_path / "out.mcap", done=lambda _: None)
        path, run = tmp_path / "out.mcap", import_mcap(tmp_path / "out.mcap")
    else:
        rosbag2.export([episode], tmp_path / "out", done=lambda _: None, storage=kind.split()[1])  # type: ignore[arg-type]
        (path,) = (file for file in files_of(tmp_path / "out") if file.suffix != ".yaml")
        run = import_bag(tmp_path / "out" / episode.id)
    good = path.read_bytes()
    for number, size in enumerate([0, 4, 9, len(good) // 3, len(good) // 2, len(good) - 20, len(good) - 1]):
        path.write_bytes(good[:size])
        refused = right_or_refused(run, episode, EpisodeStore(tmp_path / f"s{number}"))
        assert refused or (kind.endswith("sqlite3") and size > len(good) - 4096)  # a page of its index alone


# ---- what is made to do harm


def refused_in_little_memory(tmp_path: Path, path: Path, match: str, topics: Path | None = None) -> None:
    """The import of a recording is refused; nothing but the store is touched."""
    module = mcap if path.suffix == ".mcap" else rosbag2
    store = EpisodeStore(tmp_path / "store")
    before = {file: file.stat().st_mtime_ns for file in files_of(tmp_path)}

    def work() -> None:
        with pytest.raises(BadInput, match=match):
            list(module.import_(path, store, task="t", topics=topics))

    bounded(work, MEMORY)
    assert store.ids() == []
    assert store.staging_ids() == []
    after = {file: file.stat().st_mtime_ns for file in files_of(tmp_path) if store.path not in file.parents}
    assert after == before


def record(opcode: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BQ", opcode, len(content) if length is None else length) + content


def built(*records: Any) -> bytes:
    builder = RecordBuilder()
    for entry in records:
        entry.write(builder)
    return builder.end()


def file_of(body: bytes) -> bytes:
    """An MCAP file without a summary."""
    return MCAP0_MAGIC + built(Header("ros2", "x")) + body + built(DataEnd(0), Footer(0, 0, 0)) + MCAP0_MAGIC


def chunk(data: bytes, compression: str, size: int) -> bytes:
    return built(Chunk(compression, data, 0, 0, 0, size))


GIANT = 1 << 60
ZEROS = 1 << 30
"""Bytes that a bomb would become: more than `MEMORY`."""


@cache
def zstd_bomb() -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join(packer.compress(bytes(1 << 24)) for _ in range(ZEROS >> 24)) + packer.flush()


@cache
def lz4_bomb() -> bytes:
    packer = lz4.frame.LZ4FrameCompressor()
    return packer.begin() + b"".join(packer.compress(bytes(1 << 24)) for _ in range(ZEROS >> 24)) + packer.flush()


HARMFUL: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "other": lambda: b"not a recording" * 100,
    "no end": lambda: MCAP0_MAGIC,
    "giant record": lambda: file_of(record(0x05, b"abc", GIANT)),
    "giant metadata": lambda: file_of(record(0x0C, struct.pack("<I", 2**31) + b"abc")),
    "giant chunk": lambda: file_of(chunk(b"abc", "zstd", GIANT)),
    "giant plain chunk": lambda: file_of(chunk(b"abc", "", GIANT)),
    "giant within a chunk": lambda: file_of(chunk(record(0x05, b"abc", GIANT), "", 12)),
    "short message": lambda: file_of(chunk(record(0x05, b"abc"), "", 12)),
    "message without a channel": lambda: file_of(built(Message(7, 0, b"abc", 0, 0))),
    "late message": lambda: file_of(
        built(Schema(1, b"", "", "a"), Channel(1, "/a", "cdr", {}, 1)) + built(Message(1, 2**64 - 1, b"abc", 0, 0))
    ),
    "unknown compression": lambda: file_of(chunk(b"abc", "rar", 3)),
    "zstd bomb": lambda: file_of(chunk(zstd_bomb(), "zstd", 1000)),
    "zstd bomb that says so": lambda: file_of(chunk(zstd_bomb(), "zstd", ZEROS)),
    "lz4 bomb": lambda: file_of(chunk(lz4_bomb(), "lz4", 1000)),
    "broken lz4": lambda: file_of(chunk(b"abcdefgh", "lz4", 1000)),
    "no text": lambda: file_of(built(Schema(1, b"\xff", "ros2msg", "a"), Channel(1, "/a", "cdr", {}, 1))),
    "wrong checksum": lambda: file_of(built(Chunk("", record(0x20, b"abc"), 0, 0, 12345, 12))),
    "two types": lambda: file_of(
        built(Schema(1, b"", "", "a"), Schema(2, b"", "", "b"), Channel(1, "/a", "cdr", {}, 1))
        + built(Channel(2, "/a", "cdr", {}, 2))
    ),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_mcap_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.mcap"
    path.write_bytes(HARMFUL[name]())
    refused_in_little_memory(tmp_path, path, "bad.mcap", bags.write_map(tmp_path / "t.yaml"))


def about_of(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> dict[str, str]:
    store = EpisodeStore(tmp_path / "origin")
    about = describe(store.open(write_rich(store, frames=1)))
    about |= {"topics": {"cameras": {}, "streams": {}}, "dimensions": {}, "digests": {}}
    change(about)
    return pack(about)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda about: about.pop("cameras"), "cameras"),
        (lambda about: about.update(task=["a"], cameras=3), "lacks or garbles"),
        (lambda about: about["cameras"][0].update(name="../../x"), "cannot name a camera"),
        (lambda about: about["cameras"][0].update(name="/etc/x"), "cannot name a camera"),
        (lambda about: about.update(outcome=5), "lacks or garbles"),
        (lambda about: about.update(color_codec="gzip"), "gzip"),
        (lambda about: about.update(version=99), "another version"),
        (lambda about: about.update(digests={"/joint_states": [3, "abc"]}), "not those that were exported"),
        (lambda about: about["topics"].update(streams={"../x": "/a"}), "lacks or garbles"),
        (lambda about: about.update(attributes=[1]), "lacks or garbles"),
        (lambda about: about.update(closed_ns=-1), "lacks or garbles.*closed_ns"),
        (lambda about: about.update(closed_ns="late"), "lacks or garbles.*closed_ns"),
        (lambda about: about.update(created_ns=-1), "lacks or garbles.*created_ns"),
        (lambda about: about.update(created_ns=2**70), "lacks or garbles.*created_ns"),
        (lambda about: about["cameras"][0].update(width=2**31, height=2**31), "log smaller ones"),
    ],
)
def test_a_forged_description_is_refused(tmp_path: Path, change: Any, match: str) -> None:
    path = tmp_path / "bad.mcap"
    with open(path, "wb") as file:
        writer = Writer(file)
        writer.start("ros2")
        writer.add_metadata("embodied_vision.episode", about_of(change, tmp_path))
        writer.finish()
    refused_in_little_memory(tmp_path, path, match)


def test_a_stream_of_a_forged_name_is_refused(tmp_path: Path) -> None:
    def change(about: dict[str, Any]) -> None:
        about["topics"]["streams"] = {"../../x": "/a"}
        about["dimensions"] = {"../../x": 1}

    path = tmp_path / "bad.mcap"
    with open(path, "wb") as file:
        writer = Writer(file)
        writer.start("ros2")
        kind = "std_msgs/msg/Float64MultiArray"
        number = writer.register_schema(kind, "ros2msg", definition(kind).encode())
        channel = writer.register_channel("/a", "cdr", number)
        from embodied_vision.episodes.exchange.ros_messages import numbers

        writer.add_message(channel, 1, encode(kind, numbers("x", np.zeros(1))), 1)
        writer.add_metadata("embodied_vision.episode", about_of(change, tmp_path))
        writer.finish()
    refused_in_little_memory(tmp_path, path, "cannot name a camera or stream")


def png_of(width: int, height: int) -> bytes:
    """A PNG file that declares a size and holds a bomb of zeros."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 << 26))), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG file whose header declares another size than it has."""
    data = bytearray(bags.jpeg(bags.color_at(0)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "message",
    [
        bags.compressed(png_of(2**31 - 1, 2**31 - 1), "png", START_NS),
        bags.compressed(png_of(60_000, 60_000), "png", START_NS),
        bags.compressed(jpeg_of(65_000, 65_000), "jpeg", START_NS),
        bags.compressed(b"\xff\xd8" + bytes(1000), "jpeg", START_NS),
    ],
    ids=["giant png", "large png", "large jpeg", "no jpeg"],
)
@pytest.mark.parametrize("later", [False, True])
def test_images_of_a_giant_size_are_refused_before_they_are_decoded(tmp_path: Path, message: Any, later: bool) -> None:
    first = [("/cam/color", START_NS, bags.compressed(bags.jpeg(bags.color_at(0)), "jpeg", START_NS))]
    messages = [
        ("/tf_static", START_NS, bags.FRAMES),
        ("/cam/info", START_NS, bags.info(START_NS)),
        *(first if later else []),
        ("/cam/color", START_NS, message),
    ]
    bag = bags.write_bag(tmp_path / "bag", messages)
    content = "base_frame: world\ncameras: {front: {color: /cam/color, info: /cam/info}}\n"
    refused_in_little_memory(tmp_path, bag, "topic /cam/color", bags.write_map(tmp_path / "t.yaml", content))


@pytest.mark.parametrize(
    ("height", "width", "step"), [(2**31, 16, 48), (12, 2**31, 48), (2**31, 2**31, 2**31), (0, 0, 0)]
)
def test_raw_images_of_a_giant_size_are_refused(tmp_path: Path, height: int, width: int, step: int) -> None:
    message = bags.image(bags.color_at(0), "rgb8", START_NS)
    message.height, message.width, message.step = height, width, step
    calibration = bags.info(START_NS)
    calibration.height, calibration.width = height, width
    messages = [
        ("/tf_static", START_NS, bags.FRAMES),
        ("/cam/info", START_NS, calibration),
        ("/cam/color", START_NS, message),
    ]
    bag = bags.write_bag(tmp_path / "bag", messages)
    content = "base_frame: world\ncameras: {front: {color: /cam/color, info: /cam/info}}\n"
    refused_in_little_memory(tmp_path, bag, "", bags.write_map(tmp_path / "t.yaml", content))


def raw_bag(path: Path, kind: str, topic: str, data: bytes) -> Path:
    """A bag with one message of any bytes."""
    from rosbags.rosbag2 import Writer as BagWriter

    with BagWriter(path, version=8) as writer:
        writer.write(writer.add_connection(topic, kind, typestore=bags.STORE), START_NS, data)
    return path


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\1\0\0", b"\0\1\0\0" + b"\xff" * 64, b"\0\1\0\0" + struct.pack("<IIII", 0, 0, 1, 2**31), b"\7\7\7\7" * 9],
)
def test_bytes_that_are_no_message_are_refused(tmp_path: Path, data: bytes) -> None:
    bag = raw_bag(tmp_path / "bag", "sensor_msgs/msg/JointState", "/joint_states", data)
    topics = bags.write_map(tmp_path / "t.yaml", "joint_state: /joint_states\n")
    refused_in_little_memory(tmp_path, bag, "topic /joint_states", topics)


def test_a_type_that_holds_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.mcap"
    with open(path, "wb") as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start("ros2")
        number = writer.register_schema("a_msgs/msg/Loop", "ros2msg", b"Loop[2] inner\nfloat64[4000000000] x\n")
        writer.add_message(writer.register_channel("/a", "cdr", number), 1, b"\0\1\0\0" + bytes(64), 1)
        writer.finish()
    topics = bags.write_map(tmp_path / "t.yaml", "streams: {a: {topic: /a, fields: [x]}}\n")
    refused_in_little_memory(tmp_path, path, "topic /a.*own definition cannot be used", topics)


def test_transforms_in_a_circle_are_refused(tmp_path: Path) -> None:
    messages = bags.typical(1)
    messages[0] = (
        "/tf_static",
        START_NS,
        bags.transforms([("a", "cam_optical", np.eye(4)), ("cam_optical", "a", np.eye(4))]),
    )
    bag = bags.write_bag(tmp_path / "bag", messages)
    refused_in_little_memory(tmp_path, bag, "does not lead", bags.write_map(tmp_path / "t.yaml"))


# ---- folders


def test_a_link_out_of_a_folder_of_files_is_refused(exported: tuple[EpisodeStore, str], tmp_path: Path) -> None:
    episode = exported[0].open(exported[1])
    mcap.export([episode], tmp_path / "elsewhere.mcap", done=lambda _: None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mcap").symlink_to(tmp_path / "elsewhere.mcap")
    with pytest.raises(BadInput, match="out of the recording"):
        list(mcap.import_(tmp_path / "in", EpisodeStore(tmp_path / "store"), task=None, topics=None))


def metadata_of(bag: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = yaml.safe_load((bag / "metadata.yaml").read_text())
    change(content["rosbag2_bagfile_information"])
    (bag / "metadata.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    "name", ["../secret/secret.db3", "/etc/passwd", "a/b/c.db3", "..", "", "missing.db3", "../secret.db3"]
)
def test_files_outside_of_the_bag_are_refused(tmp_path: Path, name: str) -> None:
    bags.write_bag(tmp_path / "secret", bags.typical(1))
    bag = bags.write_bag(tmp_path / "bag", bags.typical(1))
    metadata_of(bag, lambda about: about.update(relative_file_paths=[name]))
    refused_in_little_memory(tmp_path, bag, "refused|cannot be read", bags.write_map(tmp_path / "t.yaml"))


@pytest.mark.parametrize("where", ["storage", "metadata", "loop", "pipe"])
def test_links_out_of_the_bag_are_refused(tmp_path: Path, where: str) -> None:
    other = bags.write_bag(tmp_path / "other", bags.typical(1))
    bag = bags.write_bag(tmp_path / "bag", bags.typical(1))
    file = bag / ("metadata.yaml" if where == "metadata" else "bag.db3")
    file.unlink()
    if where == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(file if where == "loop" else other / file.name.replace("bag.", "other."))
    refused_in_little_memory(
        tmp_path, bag, "out of the recording|cannot be read|no ordinary file", bags.write_map(tmp_path / "t.yaml")
    )


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n},*a{n}]\n" for n in range(40))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "rosbag2_bagfile_information: 3",
        "rosbag2_bagfile_information: {storage_identifier: [a], relative_file_paths: 3}",
        "rosbag2_bagfile_information: {storage_identifier: rar, relative_file_paths: []}",
        "rosbag2_bagfile_information: {storage_identifier: mcap, relative_file_paths: [], compression_mode: file}",
        "rosbag2_bagfile_information: {storage_identifier: mcap, relative_file_paths: [], custom_data: [1]}",
        "!!python/object/apply:os.system ['touch pwned']",
        "[" * 1_000_000,
        LAUGHS,
        "\x00\x01",
    ],
)
def test_metadata_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    bag = bags.write_bag(tmp_path / "bag", bags.typical(1))
    (bag / "metadata.yaml").write_text(content)
    refused_in_little_memory(tmp_path, bag, "metadata.yaml|compressed", bags.write_map(tmp_path / "t.yaml"))


def sqlite_bag(tmp_path: Path, *statements: str) -> Path:
    bag = bags.write_bag(tmp_path / "bag", bags.typical(1))
    with sqlite3.connect(bag / "bag.db3") as database:
        for statement in statements:
            database.execute(statement)
    return bag


@pytest.mark.parametrize(
    "statements",
    [
        ("ALTER TABLE messages RENAME TO m", "CREATE VIEW messages AS SELECT a.* FROM m a, m b, m c, m d, m e, m f"),
        (
            "DROP TABLE messages",
            "CREATE VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
            "SELECT id, 1 AS topic_id, 1 AS timestamp, zeroblob(1000000000) AS data FROM n",
        ),
        (
            "DROP TABLE messages",
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
            "data BLOB AS (zeroblob(1000000000)))",
            "INSERT INTO messages(topic_id, timestamp) VALUES (1, 1)",
        ),
        ("DROP TABLE topics",),
        ("UPDATE topics SET name = x'ff'",),
        ("UPDATE topics SET type = 7",),
        ("UPDATE messages SET data = 'text'",),
        ("UPDATE messages SET timestamp = 'late'",),
        ("UPDATE messages SET timestamp = -1",),
        ("UPDATE messages SET topic_id = 999",),
        ("UPDATE topics SET serialization_format = 'xml'",),
    ],
)
def test_a_harmful_database_is_refused(tmp_path: Path, statements: tuple[str, ...]) -> None:
    bag = sqlite_bag(tmp_path, *statements)
    refused_in_little_memory(tmp_path, bag, "", bags.write_map(tmp_path / "t.yaml"))


def test_a_bomb_in_a_compressed_message_is_refused(tmp_path: Path) -> None:
    bag = raw_bag(tmp_path / "bag", "std_msgs/msg/String", "/a", zstd_bomb())
    metadata_of(bag, lambda about: about.update(compression_mode="MESSAGE", compression_format="zstd"))
    topics = bags.write_map(tmp_path / "t.yaml", "streams: {a: {topic: /a, fields: [data]}}\n")
    refused_in_little_memory(tmp_path, bag, "more than", topics)


def test_a_message_compressed_bag_is_read(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "bag", bags.typical(2))
    with sqlite3.connect(bag / "bag.db3") as database:
        for number, data in database.execute("SELECT id, data FROM messages").fetchall():
            database.execute("UPDATE messages SET data = ? WHERE id = ?", (zstandard.compress(data), number))
    metadata_of(bag, lambda about: about.update(compression_mode="MESSAGE", compression_format="zstd"))
    store = EpisodeStore(tmp_path / "store")
    (name,) = rosbag2.import_(bag, store, task=None, topics=bags.write_map(tmp_path / "t.yaml"))
    assert len(store.open(name).frames("front")) == 2


def test_metadata_that_is_no_json_is_refused(tmp_path: Path) -> None:
    import hashlib

    for number, text in enumerate(["[" * 100_000, "3", "{", json.dumps({"version": 1})]):
        path = tmp_path / f"{number}.mcap"
        with open(path, "wb") as file:
            writer = Writer(file)
            writer.start("ros2")
            about = {"embodied_vision": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
            writer.add_metadata("embodied_vision.episode", about)
            writer.finish()
        refused_in_little_memory(tmp_path, path, path.name)


def test_topics_with_paths_in_their_names_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "odd.mcap"
    path.write_bytes(file_of(built(Schema(1, b"", "", "a"), Channel(1, "/../../etc/passwd", "cdr", {}, 1))))
    assert list(McapFile(path).topics) == ["/../../etc/passwd"]
    refused_in_little_memory(tmp_path, path, "--topics")


def test_a_camera_of_a_store_keeps_its_size(tmp_path: Path) -> None:
    """An image of another size than the description says is refused, also where everything else is right."""
    store = EpisodeStore(tmp_path / "origin")
    episode = store.open(write_rich(store, frames=1))
    mcap.export([episode], tmp_path / "good.mcap", done=lambda _: None)
    good = McapFile(tmp_path / "good.mcap")
    about = json.loads(good.about["embodied_vision"])
    about["cameras"][0].update(make_camera("camera", 13, 16).to_dict())
    with open(tmp_path / "bad.mcap", "wb") as file:
        writer = Writer(file)
        writer.start("ros2")
        channels = {}
        for topic in good.topics.values():
            schema = writer.register_schema(topic.type, "ros2msg", topic.definition.encode())
            channels[topic.name] = writer.register_channel(topic.name, "cdr", schema)
        for message in good.messages():
            writer.add_message(channels[message.topic], message.log_ns, message.data, message.log_ns)
        writer.add_metadata("embodied_vision.episode", pack(about))
        writer.finish()
    refused_in_little_memory(tmp_path, tmp_path / "bad.mcap", "calibration says")

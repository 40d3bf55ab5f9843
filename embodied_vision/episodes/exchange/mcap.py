"""MCAP: a file an episode, with ROS 2 messages; Foxglove opens it.

A color image is its JPEG file as it lies in the store, or PNG where the store is lossless; depth is `16UC1` in mm,
compressed with its chunk. Any MCAP file with ROS 2 messages is read by a map of its topics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mcap.writer import CompressionType, Writer

from embodied_vision.episodes.exchange import OnEpisode
from embodied_vision.episodes.exchange.about import Digests, Origin, pack
from embodied_vision.episodes.exchange.mcap_file import ABOUT, SUFFIX, McapFile
from embodied_vision.episodes.exchange.ros_export import EpisodeMessages
from embodied_vision.episodes.exchange.ros_import import import_recording
from embodied_vision.episodes.exchange.target import atomic_target
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput


def export(episodes: Sequence[Episode], target: Path, *, done: OnEpisode) -> None:
    """Write episodes to TARGET/ID.mcap, or a single one to the file `target` where that ends in `.mcap`.

    Raises:
        BadInput: the target exists, or several episodes are to go to one file.
        EpisodeError: an episode is damaged.
        RunFailed: the disk is full or fails.
    """
    is_file = target.suffix == SUFFIX
    if is_file and len(episodes) != 1:
        raise BadInput(f"{len(episodes)} episodes cannot go to the one file {target}; give a folder, without {SUFFIX}")
    with atomic_target(target) as path:
        if not is_file:
            path.mkdir()
        for episode in episodes:
            write_file(episode, path if is_file else path / f"{episode.id}{SUFFIX}")
            done(episode.id)


def write_file(episode: Episode, path: Path) -> None:
    """Write one episode to a new file."""
    messages = EpisodeMessages(episode)
    digests = Digests()
    with open(path, "xb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD, enable_data_crcs=True)
        writer.start(profile="ros2", library="embodied_vision")
        schemas: dict[str, int] = {}
        channels: dict[str, int] = {}
        for topic in messages.topics():
            if topic.type not in schemas:
                schemas[topic.type] = writer.register_schema(topic.type, "ros2msg", topic.definition.encode())
            channels[topic.name] = writer.register_channel(topic.name, "cdr", schemas[topic.type])
        for message in messages:
            digests.add(message)
            writer.add_message(channels[message.topic], message.log_ns, message.data, message.log_ns)
        writer.add_metadata(ABOUT, pack({**messages.about, "digests": digests.to_dict()}))
        writer.finish()


def import_(source: Path, store: EpisodeStore, *, task: str | None, topics: Path | None) -> Iterator[str]:
    """Read a `.mcap` file, or all of them in a folder.

    Raises:
        BadInput: no such file, a damaged one, or one of others without a map of its topics; the episode that is
            being read is discarded, those before it stay.
        EpisodeError: the store cannot be written.
    """
    folder = source if source.is_dir() else None
    paths = [source] if folder is None else sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise BadInput(f"{source} holds no {SUFFIX} files; give a file, or a folder of them")
    for path in paths:
        yield from import_recording(McapFile(path, folder), store, Origin("mcap", path.name), task=task, topics=topics)

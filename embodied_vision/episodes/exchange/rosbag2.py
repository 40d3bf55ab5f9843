"""rosbag2: a folder an episode, which `ros2 bag play` plays; the messages are those of the MCAP export."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode, StoragePlugin

from embodied_vision.episodes.exchange import OnEpisode
from embodied_vision.episodes.exchange.about import Digests, Origin, pack
from embodied_vision.episodes.exchange.bag import Bag, is_bag
from embodied_vision.episodes.exchange.cdr import types
from embodied_vision.episodes.exchange.ros_export import STATIC_FRAMES, EpisodeMessages
from embodied_vision.episodes.exchange.ros_import import import_recording
from embodied_vision.episodes.exchange.target import atomic_target
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, RunFailed

Storage = Literal["mcap", "sqlite3"]

_VERSION: Literal[8] = 8
"""Of the metadata: what ROS 2 from Iron on reads; 9 is for Jazzy and later."""
_UNBOUNDED = QosTime(2147483647, 4294967295)
_LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    _UNBOUNDED,
    _UNBOUNDED,
    QosLiveliness.AUTOMATIC,
    _UNBOUNDED,
    False,
)


def export(episodes: Sequence[Episode], target: Path, *, done: OnEpisode, storage: Storage = "mcap") -> None:
    """Write episodes to the bags TARGET/ID.

    Args:
        storage: of the messages; `mcap` is compressed, `sqlite3` what ROS 2 wrote by default before Iron.

    Raises:
        BadInput: the target exists, or the storage is unknown.
        EpisodeError: an episode is damaged.
        RunFailed: the disk is full or fails.
    """
    if storage not in ("mcap", "sqlite3"):
        raise BadInput(f"storage {storage!r} is unknown; give mcap or sqlite3")
    with atomic_target(target) as path:
        path.mkdir()
        for episode in episodes:
            try:
                write_bag(episode, path / episode.id, storage)
            except sqlite3.Error as error:
                raise RunFailed(f"{target} cannot be written ({error}); free space or give another disk") from error
            done(episode.id)


def write_bag(episode: Episode, path: Path, storage: Storage = "mcap") -> None:
    """Write one episode to a new folder."""
    messages = EpisodeMessages(episode)
    digests = Digests()
    writer = Writer(path, version=_VERSION, storage_plugin=StoragePlugin[storage.upper()])
    if storage == "mcap":
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connections = {
            topic.name: writer.add_connection(
                topic.name,
                topic.type,
                typestore=types(),
                offered_qos_profiles=[_LATCHED] if topic.name == STATIC_FRAMES else [],
            )
            for topic in messages.topics()
        }
        for message in messages:
            digests.add(message)
            writer.write(connections[message.topic], message.log_ns, message.data)
        for key, value in pack({**messages.about, "digests": digests.to_dict()}).items():
            writer.set_custom_data(key, value)


def import_(source: Path, store: EpisodeStore, *, task: str | None, topics: Path | None) -> Iterator[str]:
    """Read a bag, or all of them in a folder.

    Raises:
        BadInput: no bag, a damaged one, or one of others without a map of its topics; the episode that is being read
            is discarded, those before it stay.
        EpisodeError: the store cannot be written.
    """
    if is_bag(source):
        bags = [source]
    else:
        bags = sorted(path for path in source.iterdir() if is_bag(path)) if source.is_dir() else []
    if not bags:
        raise BadInput(f"{source} is no rosbag2 folder and holds none; give a folder with a metadata.yaml")
    for path in bags:
        origin = Origin("rosbag2", path.resolve().name)
        yield from import_recording(Bag(path), store, origin, task=task, topics=topics)

"""From a recording to episodes: what this package exported comes back as it was, anything else by a map of topics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embodied_vision.episodes.exchange.about import Origin, unpack
from embodied_vision.episodes.exchange.recording import Recording
from embodied_vision.episodes.exchange.ros_restore import restore
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput


def import_recording(
    recording: Recording, store: EpisodeStore, origin: Origin, *, task: str | None, topics: Path | None
) -> Iterator[str]:
    """Write the episodes of a recording; yields the id of each that is in the store.

    Raises:
        BadInput: a damaged recording, or one of others without a map of its topics.
        EpisodeError: the store cannot be written.
    """
    if topics is not None:
        from embodied_vision.episodes.exchange.mapped import import_mapped
        from embodied_vision.episodes.exchange.topic_map import read_topic_map

        yield from import_mapped(recording, store, read_topic_map(topics), origin, task)
        return
    about = unpack(recording.about, recording.path)
    if about is None:
        raise BadInput(
            f"{recording.path} was not exported from an episode store; say by --topics what its topics are: "
            f"{', '.join(sorted(recording.topics)) or 'it has none'}"
        )
    yield restore(store, recording, about, origin, task)

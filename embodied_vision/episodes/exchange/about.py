"""What an export says of its episode beside the messages, and checksums of those.

The formats carry texts by name: a metadata record in MCAP, `custom_data` in rosbag2's metadata.yaml. One text is
JSON that brings the episode back whole, the others are for people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embodied_vision.episodes import strict
from embodied_vision.episodes.codecs import JpegChunks
from embodied_vision.episodes.exchange.cdr import Message
from embodied_vision.episodes.reader import Episode
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.types import Camera

VERSION = 1
_KEY = "embodied_vision"
_LARGEST = 64 << 20


@dataclass
class Digests:
    """Count and sha256 of the messages of each topic, in their order."""

    counts: dict[str, int] = field(default_factory=dict)
    _hashes: dict[str, Any] = field(default_factory=dict)

    def add(self, message: Message) -> None:
        """Take a message into account."""
        digest = self._hashes.setdefault(message.topic, hashlib.sha256())
        digest.update(message.log_ns.to_bytes(8, "little", signed=True) + len(message.data).to_bytes(8, "little"))
        digest.update(message.data)
        self.counts[message.topic] = self.counts.get(message.topic, 0) + 1

    def to_dict(self) -> dict[str, list[Any]]:
        """[count, sha256] by topic."""
        return {topic: [self.counts[topic], self._hashes[topic].hexdigest()] for topic in sorted(self.counts)}


def color_codec(episode: Episode) -> tuple[str, int]:
    """Name and quality of the color codec, as `EpisodeWriter` takes them, for what is exported: pixels unless JPEG."""
    for name in episode.cameras:
        codec = episode.frames(name).color_codec
        return ("jpeg", codec.quality) if isinstance(codec, JpegChunks) else ("lossless", 90)
    return ("jpeg", 90)


def describe(episode: Episode) -> dict[str, Any]:
    """An episode without its frames, samples and decisions; JSON."""
    codec, quality = color_codec(episode)
    return {
        "version": VERSION,
        **{key: getattr(episode, key) for key in ("id", "task", "robot", "encoder_id", "policy_id")},
        **{key: getattr(episode, key) for key in ("created_ns", "closed_ns", "outcome", "attributes")},
        "tags": list(episode.tags),
        "history": list(episode.history),
        "cameras": [camera.to_dict() for camera in episode.cameras.values()],
        "color_codec": codec,
        "quality": quality,
    }


def pack(about: Mapping[str, Any]) -> dict[str, str]:
    """As texts by name."""
    text = json.dumps(about, allow_nan=False)
    return {
        **{key: str(about[key]) for key in ("id", "task", "robot", "policy_id")},
        "outcome": json.dumps(about["outcome"]),
        _KEY: text,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def unpack(texts: Mapping[str, str], where: object) -> dict[str, Any] | None:
    """What `pack` was given; None for a recording of somebody else.

    Raises:
        EpisodeError: it is damaged.
    """
    if _KEY not in texts:
        return None
    text = texts[_KEY]
    if len(text) > _LARGEST or hashlib.sha256(text.encode()).hexdigest() != texts.get("sha256"):
        raise EpisodeError(f"{where}: what it says of its episode is damaged; copy it again, or import it by --topics")
    try:
        about = strict.parse(text.encode())
    except ValueError as error:
        raise EpisodeError(
            f"{where}: what it says of its episode is no JSON ({error}); import it by --topics"
        ) from error
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise EpisodeError(
            f"{where} was exported by another version of this software; update it, or import it by --topics"
        )
    return about


@dataclass(frozen=True)
class Origin:
    """Where an imported episode comes from; kept in its attribute `imported`."""

    format: str
    source: str


def writer_arguments(about: Mapping[str, Any], origin: Origin, task: str | None) -> dict[str, Any]:
    """Arguments of `EpisodeWriter` for an episode that `describe` described.

    Raises:
        BadInput: something is missing or of the wrong type.
    """
    try:
        attributes = dict(about["attributes"])
        imported = {
            "format": origin.format,
            "source": origin.source,
            **{key: about[key] for key in ("id", "closed_ns", "history")},
        }
        if "imported" in attributes:
            imported["before"] = attributes["imported"]
        return {
            "task": str(about["task"]) or task or "unknown",
            "robot": str(about["robot"]),
            "cameras": [Camera.from_dict(camera) for camera in about["cameras"]],
            "encoder_id": str(about["encoder_id"]),
            "policy_id": str(about["policy_id"]),
            "attributes": {**attributes, "imported": imported},
            "color_codec": about["color_codec"],
            "quality": int(about["quality"]),
            "created_ns": strict.integer(about["created_ns"], "created_ns", 0),
            "tags": [str(tag) for tag in about["tags"]],
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{origin.source}: what it says of its episode lacks or garbles a field ({error!r})") from error

"""Episodes out of somebody else's recording, by a map of its topics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embodied_vision.episodes import strict
from embodied_vision.episodes.exchange.about import Origin
from embodied_vision.episodes.exchange.cdr import Decoder, Message
from embodied_vision.episodes.exchange.images import color_of, depth_of
from embodied_vision.episodes.exchange.recording import LARGEST, Recording
from embodied_vision.episodes.exchange.survey import Survey, survey
from embodied_vision.episodes.exchange.topic_map import CameraTopics, StreamTopic, TopicMap
from embodied_vision.episodes.frames import RawFrame
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput
from embodied_vision.matching import StampMatcher
from embodied_vision.messages import joint_state_to_positions, stamp_to_ns
from embodied_vision.types import Camera

_MOST_WAITING = 32
_SPARE_BYTES = 1 << 20
_UNKNOWN = {"reason": "imported; the recording does not tell how it ended"}
_CUT_OFF = {"solved": False, "aborted": True, "reason": "the recording ended within the episode"}
_NO_END = {"solved": False, "aborted": True, "reason": "no end event"}


def import_mapped(
    recording: Recording, store: EpisodeStore, topic_map: TopicMap, origin: Origin, task: str | None
) -> Iterator[str]:
    """Write the episodes of a recording; yields the id of each that is in the store.

    Raises:
        BadInput: the recording is damaged or is not what the map says; the episode that is being read is discarded,
            those before it stay.
        EpisodeError: the store cannot be written.
    """
    importer = _Importer(recording, store, topic_map, origin, task)
    try:
        yield from importer.run()
    finally:
        importer.discard()


class _Importer:
    def __init__(
        self, recording: Recording, store: EpisodeStore, topic_map: TopicMap, origin: Origin, task: str | None
    ) -> None:
        self._recording, self._store, self._map, self._origin = recording, store, topic_map, origin
        self._task = task or topic_map.task
        if self._task is None and not topic_map.cut.task:
            raise BadInput("the recording does not tell its task; give --task NAME, or `task` in the topic map")
        self._found = survey(recording, topic_map)
        self._decoder = Decoder(recording.topics)
        self._episode: _Episode | None = None

    def run(self) -> Iterator[str]:
        cut, last_ns, count = self._map.cut, None, 0
        wanted = self._map.topics()
        for message in self._recording.messages():
            if message.topic not in wanted:
                continue
            ended: str | None = None
            if cut.by == "event":
                if message.topic == cut.topic:
                    ended = self._event(message)
            else:
                if cut.by == "gap" and last_ns is not None and message.log_ns - last_ns > cut.gap_s * 1e9:
                    ended = self._end(self._outcome())
                last_ns = message.log_ns
                if self._episode is None:
                    self._begin(message.log_ns, self._task)
            if ended is not None:
                count += 1
                yield ended
            if self._episode is not None:
                self._episode.take(message)
        if self._episode is not None:
            count += 1
            yield self._end(_CUT_OFF if cut.by == "event" else self._outcome())
        if not count:
            raise BadInput(
                f"{self._recording.path}: no episode in it; "
                + (f"no {cut.start!r} in {'.'.join(cut.field)} of {cut.topic}" if cut.by == "event" else "no messages")
            )

    def discard(self) -> None:
        """Throw away what was not ended."""
        if self._episode is not None:
            self._episode.writer.discard()
            self._episode = None

    def _outcome(self) -> Mapping[str, Any]:
        return self._map.outcome or _UNKNOWN

    def _event(self, message: Message) -> str | None:
        """Begin or end an episode where the message says so; the id of one that ended."""
        cut, content = self._map.cut, self._decoder.decode(message)
        value = _field(content, cut.field, message.topic)
        ended = None
        if value == cut.start and value is not None:
            if self._episode is not None:
                ended = self._end(_NO_END)
            name = str(_field(content, cut.task, message.topic)) if cut.task else self._task
            self._begin(message.log_ns, name)
        elif value == cut.end and self._episode is not None:
            outcome = _field(content, cut.outcome, message.topic) if cut.outcome else self._outcome()
            ended = self._end(outcome if isinstance(outcome, Mapping) else {"outcome": outcome})
        return ended

    def _begin(self, log_ns: int, task: str | None) -> None:
        assert task is not None
        attributes: dict[str, Any] = {"imported": {"format": self._origin.format, "source": self._origin.source}}
        if self._found.joints:
            attributes["joint_names"] = list(self._found.joints)
        writer = EpisodeWriter(
            self._store,
            task=task,
            robot=self._map.robot,
            cameras=list(self._found.cameras.values()),
            attributes=attributes,
            quality=self._map.quality,
            created_ns=log_ns,
        )
        self._episode = _Episode(writer, self._map, self._found, self._decoder, log_ns)

    def _end(self, outcome: Mapping[str, Any]) -> str:
        assert self._episode is not None
        writer = self._episode.writer
        about = {"format": self._origin.format, "source": self._origin.source, **self._episode.counts()}
        writer.note("imported", {**about, "notes": self._found.notes})
        episode_id = writer.close(outcome, closed_ns=self._episode.last_ns)
        self._episode = None
        return episode_id


class _Camera:
    """The frames of one camera on their way from its topics."""

    def __init__(self, camera: Camera, topics: CameraTopics, topic_map: TopicMap) -> None:
        self.camera, self.topics = camera, topics
        waiting = max(2, min(_MOST_WAITING, LARGEST // max(1, 5 * camera.width * camera.height)))
        self.matcher = StampMatcher(("color", "depth"), topic_map.slop_ns, waiting)
        self.received = {"color": 0, "depth": 0}
        self.written = 0

    def parts(self, message: Message) -> list[str]:
        """What a message is to this camera."""
        return [part for part in ("color", "depth") if message.topic == getattr(self.topics, part)]


class _Episode:
    """One episode that is being written."""

    def __init__(
        self, writer: EpisodeWriter, topic_map: TopicMap, found: Survey, decoder: Decoder, start_ns: int
    ) -> None:
        self.writer, self._map, self._decoder = writer, topic_map, decoder
        self._joints = found.joints
        self.last_ns = start_ns
        """When the latest message was logged."""
        self._cameras = [_Camera(found.cameras[name], topics, topic_map) for name, topics in topic_map.cameras.items()]
        self._other_joints = 0

    def take(self, message: Message) -> None:
        """Write what a message is mapped to.

        Raises:
            BadInput: the message is not what the map says; names the topic.
        """
        self.last_ns = max(self.last_ns, message.log_ns)
        try:
            for camera in self._cameras:
                for part in camera.parts(message):
                    self._take_image(camera, part, message)
            if self._map.joint_state is not None and message.topic == self._map.joint_state.topic:
                self._take_joints(message)
            for name, stream in self._map.streams.items():
                if message.topic == stream.topic:
                    self._take_stream(name, stream, message)
        except BadInput as error:
            text = str(error)
            raise BadInput(text if message.topic in text else f"topic {message.topic}: {text}") from error

    def counts(self) -> dict[str, Any]:
        """What did not become part of the episode."""
        unmatched = {
            camera.camera.name: {part: count - camera.written for part, count in camera.received.items() if count}
            for camera in self._cameras
            if camera.topics.depth is not None
        }
        return {"unmatched": unmatched, "joint_states_of_others": self._other_joints}

    def _stamp(self, message: Message, content: Any, needed: bool) -> int:
        """Stamp of a message in ns. Messages that carry none, and commands with the stamp 0, count when recorded."""
        if self._map.stamps == "header" and hasattr(content, "header"):
            stamp_ns = stamp_to_ns(content.header.stamp)
            if stamp_ns != 0:
                return stamp_ns
            if needed:
                raise BadInput("the header is stamped 0; give `stamps: log` in the topic map, or fix the driver")
        return message.log_ns

    def _take_image(self, camera: _Camera, part: str, message: Message) -> None:
        camera.received[part] += 1
        if len(message.data) > _SPARE_BYTES + 8 * camera.camera.width * camera.camera.height:
            raise BadInput(f"an image of {len(message.data)} bytes, too many for its camera; is the recording damaged?")
        # What waits for its other half waits as it was recorded: a compressed image is small.
        stamp_ns = self._stamp(message, self._decoder.decode(message), needed=True)
        if camera.topics.depth is None:
            self._write_frame(camera, stamp_ns, message, None)
        elif (found := camera.matcher.add(part, stamp_ns, (stamp_ns, message))) is not None:
            self._write_frame(camera, found["color"][0], found["color"][1], found["depth"][1])

    def _write_frame(self, camera: _Camera, stamp_ns: int, color: Message, depth: Message | None) -> None:
        known = camera.camera
        size = known.height, known.width
        image = color_of(self._decoder.decode(color), size)
        millimetres = np.zeros(size, np.uint16) if depth is None else depth_of(self._decoder.decode(depth), size)
        if isinstance(image, bytes):
            self.writer.append_encoded(self.writer.encode_jpeg(known.name, stamp_ns, image, millimetres))
        else:
            self.writer.append_frame(RawFrame(image, millimetres, known, stamp_ns))
        camera.written += 1

    def _take_joints(self, message: Message) -> None:
        content = self._decoder.decode(message)
        if not set(self._joints) & set(content.name):
            self._other_joints += 1  # a second publisher, such as a gripper's
            return
        positions = joint_state_to_positions(content, self._joints)
        velocities = np.full(len(positions), np.nan)
        if len(content.velocity) == len(content.name):
            known = dict(zip(content.name, content.velocity, strict=True))
            velocities = np.array([known[name] for name in self._joints], float)
        stamp_ns = self._stamp(message, content, needed=True)
        self.writer.append("joint_state", stamp_ns, np.concatenate([positions, velocities]))

    def _take_stream(self, name: str, stream: StreamTopic, message: Message) -> None:
        content = self._decoder.decode(message)
        row: list[float] = []
        for path in stream.fields:
            row += _numbers(_field(content, path, message.topic), path, message.topic)
        self.writer.append(name, self._stamp(message, content, needed=False), row)


def _field(content: Any, path: Sequence[str], topic: str) -> Any:
    """A field within fields. A number takes an element of a list; a text that the path goes into is read as JSON."""
    value = content
    for done, part in enumerate(path):
        if isinstance(value, str):
            value = _json(value, topic)
        try:
            if isinstance(value, Mapping):
                value = value[part]
            elif isinstance(value, list | tuple | np.ndarray):
                value = value[int(part)]
            else:
                value = vars(value)[part]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            at = ".".join(path[: done + 1])
            raise BadInput(f"topic {topic}: its messages have no field {at!r}; correct the topic map") from error
    return value.item() if isinstance(value, np.generic) else value


def _json(text: str, topic: str) -> Any:
    try:
        return strict.parse(text.encode(), non_finite=True)
    except ValueError as error:
        raise BadInput(f"topic {topic}: {text[:80]!r} is no JSON ({error}); correct the topic map") from error


def _numbers(value: Any, path: Sequence[str], topic: str) -> list[float]:
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return [float(value)]
    if isinstance(value, list | tuple | np.ndarray):
        return [number for item in value for number in _numbers(item, path, topic)]
    raise BadInput(
        f"topic {topic}: its field {'.'.join(path)!r} holds {type(value).__name__}, no numbers; name fields within it"
    )

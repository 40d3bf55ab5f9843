"""The YAML that says what the topics of somebody else's recording are: docs/exchange.md, config/topics.example.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from embodied_vision.episodes.schema import folder_name
from embodied_vision.errors import BadInput

Path_ = tuple[str, ...]
"""Names of fields, one within the other; a number takes an element of a list."""

_LARGEST = 1 << 20


@dataclass(frozen=True)
class CameraTopics:
    """Topics of one camera.

    Attributes:
        color, depth, info: topics; no depth means that there is none, no info that the calibration file has it.
        frame: of the optical frame in /tf_static; that of the color images when None.
    """

    color: str
    depth: str | None = None
    info: str | None = None
    frame: str | None = None


@dataclass(frozen=True)
class JointTopic:
    """Where joint states come from, and the wanted joints in their order; those of the first message if empty."""

    topic: str
    joints: tuple[str, ...] = ()


@dataclass(frozen=True)
class StreamTopic:
    """Numbers out of the messages of a topic: the fields one after the other make a row."""

    topic: str
    fields: tuple[Path_, ...]


@dataclass(frozen=True)
class Cut:
    """Where one episode ends and the next begins.

    Attributes:
        by: `whole`: the recording is one episode; `gap`: a silence of `gap_s` ends it; `event`: messages do.
        topic, field: what tells an event, and `start` and `end`, its values.
        task, outcome: fields of the event that name the task (at the start) and hold the outcome (at the end).
    """

    by: Literal["whole", "gap", "event"] = "whole"
    gap_s: float = 0.0
    topic: str = ""
    field: Path_ = ()
    start: Any = None
    end: Any = None
    task: Path_ = ()
    outcome: Path_ = ()


@dataclass(frozen=True)
class TopicMap:
    """What the topics of a recording are.

    Attributes:
        cameras, streams: by name in the episode.
        joint_state: where the stream `joint_state` comes from.
        cut: into episodes.
        task, robot: names; None where the command line or the event tells.
        stamps: `header` takes the stamp of the message where it has one, `log` the time of its recording.
        slop_ns: largest difference of stamps of a color and a depth image.
        calibration: YAML for cameras whose intrinsics or pose the recording lacks.
        base_frame: name of the robot's base in /tf_static.
        outcome: of every episode whose end does not tell.
        quality: of color images that were not JPEG.
    """

    cameras: Mapping[str, CameraTopics] = field(default_factory=dict)
    streams: Mapping[str, StreamTopic] = field(default_factory=dict)
    joint_state: JointTopic | None = None
    cut: Cut = Cut()
    task: str | None = None
    robot: str = "unknown"
    stamps: Literal["header", "log"] = "header"
    slop_ns: int = 20_000_000
    calibration: Path | None = None
    base_frame: str = "base"
    outcome: Mapping[str, Any] = field(default_factory=dict)
    quality: int = 90

    def topics(self) -> set[str]:
        """All that are named."""
        named = {stream.topic for stream in self.streams.values()}
        for camera in self.cameras.values():
            named |= {topic for topic in (camera.color, camera.depth, camera.info) if topic is not None}
        if self.joint_state is not None:
            named.add(self.joint_state.topic)
        return named | ({self.cut.topic} if self.cut.by == "event" else set())


def read_topic_map(path: Path) -> TopicMap:
    """Read a topic map.

    Raises:
        BadInput: no such file, or one that cannot be used; says which key is wrong.
    """
    try:
        data = path.read_bytes()[: _LARGEST + 1]
        if len(data) > _LARGEST:
            raise BadInput(f"{path} has more than {_LARGEST} bytes; give the YAML that maps topics")
        content = yaml.safe_load(data)
    except OSError as error:
        raise BadInput(f"topic map {path} cannot be read ({error.strerror}); give the path of a YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"topic map {path} is no YAML ({error}); see config/topics.example.yaml") from error
    return _Reader(path).topic_map(content)


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def topic_map(self, content: Any) -> TopicMap:
        known = "cameras streams joint_state episodes task robot stamps slop_s calibration base_frame outcome quality"
        top = self._mapping(content, "the file", known.split())
        if not any(top.get(key) for key in ("cameras", "streams", "joint_state")):
            self._fail("the file", "maps nothing; give `cameras`, `joint_state` or `streams`")
        calibration = self._optional(top, "calibration", self._text)
        return TopicMap(
            cameras=self._named(top, "cameras", self._camera),
            streams=self._named(top, "streams", self._stream),
            joint_state=self._optional(top, "joint_state", self._joints),
            cut=self._optional(top, "episodes", self._cut) or Cut(),
            task=self._optional(top, "task", self._text),
            robot=self._optional(top, "robot", self._text) or "unknown",
            stamps=self._choice(top, "stamps", ("header", "log")),
            slop_ns=round(self._number(top.get("slop_s", 0.02), "slop_s", 0.0, 10.0) * 1e9),
            calibration=None if calibration is None else self._path.parent / Path(calibration).expanduser(),
            base_frame=self._optional(top, "base_frame", self._text) or "base",
            outcome=self._mapping(top.get("outcome", {}), "outcome", None),
            quality=int(self._number(top.get("quality", 90), "quality", 1, 100)),
        )

    def _camera(self, value: Any, where: str) -> CameraTopics:
        entries = self._mapping(value, where, ["color", "depth", "info", "frame"])
        if "color" not in entries:
            self._fail(where, "lacks `color`, the topic of its images")
        return CameraTopics(**{key: self._text(topic, f"{where}.{key}") for key, topic in entries.items()})

    def _joints(self, value: Any, where: str) -> JointTopic:
        entries = self._mapping({"topic": value} if isinstance(value, str) else value, where, ["topic", "joints"])
        if "topic" not in entries:
            self._fail(where, "lacks `topic`")
        return JointTopic(
            self._text(entries["topic"], where), tuple(self._texts(entries.get("joints", []), f"{where}.joints"))
        )

    def _stream(self, value: Any, where: str) -> StreamTopic:
        entries = self._mapping(value, where, ["topic", "fields"])
        if "topic" not in entries or not entries.get("fields"):
            self._fail(where, "lacks `topic` or `fields`, a list such as [twist.linear.x, twist.angular.z]")
        fields = self._texts(entries["fields"], f"{where}.fields")
        return StreamTopic(self._text(entries["topic"], where), tuple(tuple(path.split(".")) for path in fields))

    def _cut(self, value: Any, where: str) -> Cut:
        entries = self._mapping(
            {"by": value} if isinstance(value, str) else value,
            where,
            ["by", "gap_s", "topic", "field", "start", "end", "task", "outcome"],
        )
        by = self._choice(entries, "by", ("whole", "gap", "event"), where)
        needed = {"whole": [], "gap": ["gap_s"], "event": ["topic", "field", "start", "end"]}[by]
        if missing := [key for key in needed if key not in entries]:
            self._fail(where, f"lacks {', '.join(missing)}, which `by: {by}` needs")
        paths = {
            key: tuple(self._text(entries[key], f"{where}.{key}").split("."))
            for key in ("field", "task", "outcome")
            if key in entries
        }
        return Cut(
            by=by,
            gap_s=self._number(entries.get("gap_s", 0.0), f"{where}.gap_s", 0.0, 1e6),
            topic=self._text(entries.get("topic", "-"), f"{where}.topic"),
            start=entries.get("start"),
            end=entries.get("end"),
            **paths,
        )

    # ---- values

    def _fail(self, where: str, what: str) -> None:
        raise BadInput(f"topic map {self._path}: {where} {what}; see config/topics.example.yaml")

    def _mapping(self, value: Any, where: str, known: list[str] | None) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._fail(where, f"is {value!r:.80}, expected keys with values")
        unknown = [str(key) for key in value if known is not None and key not in known]
        if unknown:
            self._fail(where, f"has the unknown keys {', '.join(unknown)}; known are {', '.join(known or [])}")
        return {str(key): item for key, item in value.items()}

    def _named(self, top: Mapping[str, Any], key: str, read: Callable[[Any, str], Any]) -> dict[str, Any]:
        entries = self._mapping(top.get(key) or {}, key, None)
        for name in entries:
            folder_name(name)
        return {name: read(value, f"{key}.{name}") for name, value in entries.items()}

    def _optional(self, top: Mapping[str, Any], key: str, read: Callable[[Any, str], Any]) -> Any:
        return None if top.get(key) is None else read(top[key], key)

    def _choice(self, top: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str = "") -> Any:
        value = top.get(key, choices[0])
        if value not in choices:
            self._fail(f"{where}.{key}".lstrip("."), f"is {value!r}, expected one of {', '.join(choices)}")
        return value

    def _text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value:
            self._fail(where, f"is {value!r:.80}, expected a text")
        return str(value)

    def _texts(self, value: Any, where: str) -> list[str]:
        if not isinstance(value, list):
            self._fail(where, f"is {value!r:.80}, expected a list of texts")
        return [self._text(item, where) for item in value]

    def _number(self, value: Any, where: str, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self._fail(where, f"is {value!r:.80}, expected a number from {low:g} to {high:g}")
        return float(value)

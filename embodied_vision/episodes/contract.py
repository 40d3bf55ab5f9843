"""The stream contract: which topics make an episode, at which rate, in which units and frames. YAML, no ROS here.

cameras:
  NAME:                   a camera of the calibration
    color: TOPIC          sensor_msgs/msg/Image
    depth: TOPIC          registered to color
    frame: ID             frame_id of the messages; left out: any
    rate: HZ              expected frames a second; 0 or left out: any
    tolerance: SHARE      how much slower it may be; 0.2 when left out
    max_gap: SECONDS      longest time between two stamps; 0 or left out: any
    required: BOOL        whether an episode without it breaks the contract; true for cameras, else false
streams:
  NAME:                   letters, digits, _ and -, in parts divided by /
    topic: TOPIC
    type: PACKAGE/msg/TYPE
    fields: [PATH, ...]   numbers, or messages and lists of numbers, such as wrench.force or data
    units: [UNIT, ...]    one a field
    frame, rate, tolerance, max_gap, required: as above
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from embodied_vision import topics
from embodied_vision.episodes.schema import folder_name
from embodied_vision.errors import BadInput

TOLERANCE = 0.2
"""How much slower than its rate a stream may be where the contract does not say."""

JOINT_STATE = "sensor_msgs/msg/JointState"
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"

_TOPIC = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_TYPE = re.compile(r"[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*")
_PATH = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_RESERVED = ("reward",)
_EXPECTED = ("frame", "rate", "tolerance", "max_gap", "required")


@dataclass(frozen=True)
class Expected:
    """What a source of data promises.

    Attributes:
        name: of the camera or stream.
        frame: frame_id of its messages, "" for any.
        rate: messages a second, 0 for any.
        tolerance: share by which it may be slower.
        max_gap: longest time between two stamps in s, 0 for any.
        required: whether an episode must have it.
    """

    name: str
    frame: str = ""
    rate: float = 0.0
    tolerance: float = TOLERANCE
    max_gap: float = 0.0
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class CameraContract(Expected):
    """Topics of a camera's color and depth images."""

    color: str
    depth: str


@dataclass(frozen=True, kw_only=True)
class StreamContract(Expected):
    """A topic whose messages become rows of a stream.

    Attributes:
        topic: relative or absolute name.
        type: of its messages.
        fields: paths of the numbers, in the order of the row; none for a joint trajectory, which is taken whole.
        units: of each field.
    """

    topic: str
    type: str
    fields: tuple[str, ...] = ()
    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contract:
    """All sources of an episode."""

    cameras: tuple[CameraContract, ...]
    streams: tuple[StreamContract, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON for the episode, inverse of `contract_from`."""
        return {
            "cameras": {source.name: _without_name(source) for source in self.cameras},
            "streams": {source.name: _without_name(source) for source in self.streams},
        }

    def check_cameras(self, calibrated: Iterable[str], where: str) -> None:
        """Every camera has a calibration.

        Raises:
            BadInput: one has none.
        """
        known = sorted(calibrated)
        for source in self.cameras:
            if source.name not in known:
                raise BadInput(
                    f"{where}: cameras.{source.name} is not in the calibration, which has {known}; "
                    "calibrate it or leave it out"
                )


def default_contract(cameras: Iterable[str]) -> Contract:
    """What the graph of this package publishes: every calibrated camera, joint states and commands."""
    return Contract(
        tuple(
            CameraContract(name, color=topics.color(name), depth=topics.depth(name), required=True) for name in cameras
        ),
        (
            StreamContract(
                "joint_state",
                topic="joint_states",
                type=JOINT_STATE,
                fields=("position", "velocity"),
                units=("rad", "rad/s"),
            ),
            StreamContract("joint_trajectory", topic="arm/joint_trajectory", type=JOINT_TRAJECTORY),
            StreamContract("gripper", topic="gripper/command", type="std_msgs/msg/Float64", fields=("data",)),
        ),
    )


def read_contract(path: Path) -> Contract:
    """Read a contract from its YAML file.

    Raises:
        BadInput: the file is missing or unusable; the error names the key.
    """
    if not path.is_file():
        raise BadInput(f"stream contract {path} does not exist; give the path of a YAML like config/recorder.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"stream contract {path} cannot be read: {error}") from error
    return contract_from(content, str(path))


def contract_from(content: Any, where: str) -> Contract:
    """Check the content of a contract.

    Raises:
        BadInput: the first key that cannot be used, and what it may be.
    """
    top = _Entry(content, where, "")
    top.only("cameras", "streams")
    cameras = tuple(_camera(entry) for entry in top.entries("cameras"))
    streams = tuple(_stream(entry) for entry in top.entries("streams"))
    for trajectory in (stream.name for stream in streams if stream.type == JOINT_TRAJECTORY):
        for stream in streams:
            if stream.name.startswith(f"{trajectory}/"):
                top.fail(f"streams.{stream.name}", f"{trajectory}/N are the streams of a trajectory; name it otherwise")
    if not cameras and not streams:
        raise BadInput(f"{where} names neither cameras nor streams; give at least one")
    return Contract(cameras, streams)


def _without_name(source: CameraContract | StreamContract) -> dict[str, Any]:
    content = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(source).items()}
    del content["name"]
    return content


def _camera(entry: _Entry) -> CameraContract:
    entry.only("color", "depth", *_EXPECTED)
    return CameraContract(
        **entry.expected(required=True),
        color=entry.matching("color", _TOPIC, "a topic"),
        depth=entry.matching("depth", _TOPIC, "a topic"),
    )


def _stream(entry: _Entry) -> StreamContract:
    entry.only("topic", "type", "fields", "units", *_EXPECTED)
    if entry.name in _RESERVED:
        entry.fail("", f"{entry.name!r} is a stream of the recorder's own; name it otherwise")
    kind = entry.matching("type", _TYPE, "a message type such as std_msgs/msg/Float64")
    fields = entry.texts("fields")
    for number, path in enumerate(fields):
        if not _PATH.fullmatch(path):
            entry.fail(f"fields[{number}]", f"{path!r} is no path of a field, such as wrench.force.x")
    if kind == JOINT_TRAJECTORY and fields:
        entry.fail("fields", "a joint trajectory is taken whole; leave them out")
    if kind != JOINT_TRAJECTORY and not fields:
        entry.fail("fields", "give the paths of one number or more")
    units = entry.texts("units")
    if units and len(units) != len(fields):
        entry.fail("units", f"{len(units)} units for {len(fields)} fields; give one a field")
    return StreamContract(
        **entry.expected(required=False),
        topic=entry.matching("topic", _TOPIC, "a topic"),
        type=kind,
        fields=fields,
        units=units,
    )


class _Entry:
    """A mapping of the YAML that knows where it stands."""

    def __init__(self, content: Any, where: str, key: str) -> None:
        self._where, self._key = where, key
        self.name = key.rpartition(".")[2]
        if not isinstance(content, Mapping):
            self.fail("", f"{content!r:.80} is no mapping")
        self._content = content

    def fail(self, key: str, problem: str) -> None:
        """Raise the error about one key."""
        name = ".".join(part for part in (self._key, key) if part)
        raise BadInput(f"stream contract {self._where}: {name + ': ' if name else ''}{problem}")

    def only(self, *known: str) -> None:
        """No other keys than these."""
        for key in self._content:
            if key not in known:
                self.fail(str(key), f"unknown key; there are {', '.join(known)}")

    def entries(self, key: str) -> list[_Entry]:
        """The named entries below a key that may be missing."""
        content = self._content.get(key)
        if content is None:
            return []
        below = _Entry(content, self._where, key)
        for name in below._content:
            try:
                folder_name(str(name))
            except BadInput as error:
                below.fail(str(name), str(error))
        return [_Entry(value, self._where, f"{key}.{name}") for name, value in below._content.items()]

    def matching(self, key: str, pattern: re.Pattern[str], what: str) -> str:
        value = self._content.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.fail(key, f"{value!r:.80} is not {what}" if key in self._content else f"missing; give {what}")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(key, f"{value!r:.80} is no list of texts")
        return tuple(value)

    def expected(self, *, required: bool) -> dict[str, Any]:
        frame = self._content.get("frame", "")
        if not isinstance(frame, str):
            self.fail("frame", f"{frame!r:.80} is no frame id; give a text")
        needed = self._content.get("required", required)
        if not isinstance(needed, bool):
            self.fail("required", f"{needed!r:.80} is neither true nor false")
        return {
            "name": self.name,
            "frame": frame,
            "rate": self._number("rate", 0.0, 10_000.0, "Hz"),
            "tolerance": self._number("tolerance", TOLERANCE, 1.0, "as a share"),
            "max_gap": self._number("max_gap", 0.0, 3600.0, "s"),
            "required": needed,
        }

    def _number(self, key: str, default: float, most: float, unit: str) -> float:
        value = self._content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            self.fail(key, f"{value!r:.80} is no number from 0 to {most:g} ({unit})")
        return float(value)

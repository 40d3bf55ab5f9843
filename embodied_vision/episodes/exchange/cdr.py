"""ROS 2 messages in CDR, without ROS: the types of one ROS release, and those that a recording brings along."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.base import TypesysError
from rosbags.typesys.store import Typestore

from embodied_vision.errors import BadInput

_RELEASE = Stores.ROS2_KILTED
_LARGEST_DEFINITION = 1 << 20
_LARGEST_STRUCTURE = 4 << 20
_FLAT = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
"""Large messages that decode without growing; others become many small objects."""


@dataclass(frozen=True)
class Topic:
    """A topic of a recording.

    Attributes:
        name: such as "/joint_states".
        type: such as "sensor_msgs/msg/JointState".
        definition: text of the message definition in the format `ros2msg`, empty where there is none.
    """

    name: str
    type: str
    definition: str = ""


@dataclass(frozen=True)
class Message:
    """A message as it lies in a recording.

    Attributes:
        topic, type: as in `Topic`.
        log_ns: when it was received.
        data: in CDR.
    """

    topic: str
    type: str
    log_ns: int
    data: bytes


@lru_cache(maxsize=1)
def types() -> Typestore:
    """The types of the release."""
    return get_typestore(_RELEASE)


def make(name: str, /, **fields: Any) -> Any:
    """A message object, such as `make("std_msgs/msg/String", data="…")`."""
    return types().types[name](**fields)


def encode(name: str, message: Any) -> bytes:
    """A message of type `name` to CDR."""
    return bytes(types().serialize_cdr(message, name, little_endian=True))


def definition(name: str) -> str:
    """Text of a type's definition with all that it is made of, in the format `ros2msg`."""
    text: str = types().generate_msgdef(name, ros_version=2)[0]
    return text


class Decoder:
    """Decodes messages of any type that the release or the topics' own definitions know.

    Args:
        topics: whose definitions count where the release has no such type.
    """

    def __init__(self, topics: Mapping[str, Topic]) -> None:
        self._topics = topics
        self._own: dict[str, Typestore] = {}

    def decode(self, message: Message) -> Any:
        """A message as an object with the fields of its type.

        Raises:
            BadInput: the type is unknown, or the bytes are no such message.
        """
        if len(message.data) > _LARGEST_STRUCTURE and message.type not in _FLAT:
            raise BadInput(
                f"topic {message.topic}: a {message.type} of {len(message.data)} bytes; at most "
                f"{_LARGEST_STRUCTURE} are read of anything but images; leave the topic out"
            )
        store = self._store(message)
        try:
            return store.deserialize_cdr(message.data, message.type)
        except (SerdeError, struct.error, IndexError, AssertionError, OverflowError) as error:
            raise BadInput(
                f"topic {message.topic}: {len(message.data)} bytes are no {message.type} ({error}); the recording is "
                "damaged or declares another type than it holds"
            ) from error

    def _store(self, message: Message) -> Typestore:
        if message.type in types().fielddefs:
            return types()
        if message.type not in self._own:
            self._own[message.type] = _own_types(self._topics[message.topic])
        return self._own[message.type]


def _own_types(topic: Topic) -> Typestore:
    where = f"topic {topic.name} has the type {topic.type}, which {_RELEASE.value} does not know"
    if not topic.definition:
        raise BadInput(f"{where} and the recording does not define; leave the topic out")
    if len(topic.definition) > _LARGEST_DEFINITION:
        raise BadInput(
            f"{where}; its definition of {len(topic.definition)} characters is not read; leave the topic out"
        )
    store = get_typestore(_RELEASE)
    try:
        found = get_types_from_msg(topic.definition, topic.type)
        store.register({name: fields for name, fields in found.items() if name not in store.fielddefs})
        _check_sizes(store, topic.type, (), set())
        store.get_msgdef(topic.type)
    except (TypesysError, SyntaxError, KeyError, ValueError, RecursionError) as error:
        raise BadInput(f"{where}; its own definition cannot be used ({error!r}); leave the topic out") from error
    return store


def _check_sizes(store: Typestore, name: str, above: tuple[str, ...], checked: set[str]) -> None:
    """Refuse types that hold themselves, and fixed arrays that are larger than any message."""
    if name in above:
        raise ValueError(f"{name} holds itself")
    if name in checked:
        return
    description: Any
    for field, description in store.fielddefs[name][1]:
        kind, about = description
        while kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            if kind == Nodetype.ARRAY and about[1] > 1 << 20:
                raise ValueError(f"{name}.{field} is an array of {about[1]}")
            kind, about = about[0]
        if kind == Nodetype.NAME:
            _check_sizes(store, about, (*above, name), checked)
    checked.add(name)

"""How the streams of an episode become messages and come back: the live graph's own types where the values fit them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.exchange import ros_messages as ros
from embodied_vision.errors import BadInput
from embodied_vision.messages import JointSamples, trajectory_to_samples

Row = NDArray[np.float64]

_JOINT_ARRAYS = ("position", "velocity", "effort")
_TRAJECTORY = re.compile(r"joint_trajectory/([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Form:
    """One way of a stream on a topic.

    Attributes:
        topic, type: where its values go.
        encode: a stamp in ns and a row (D,) to a message.
        decode: a message to the row.
        may_round: not every value comes back as it was.
    """

    topic: str
    type: str
    encode: Callable[[int, Row], Any]
    decode: Callable[[Any], Row]
    may_round: bool = False

    def holds(self, stamps: NDArray[np.int64], values: NDArray[np.float64]) -> bool:
        """Whether all values (T, D) come back bit for bit."""
        return not self.may_round or all(map(self._is_exact, stamps.tolist(), values))

    def _is_exact(self, stamp_ns: int, row: Row) -> bool:
        try:
            back = self.decode(self.encode(stamp_ns, row))
        except BadInput:
            return False
        return back.tobytes() == row.tobytes()


def plain_form(name: str, topic: str) -> Form:
    """Rows of any stream, under its name as the label of the layout."""
    return Form(
        topic,
        ros.NUMBERS,
        lambda _stamp_ns, row: ros.numbers(name, row),
        lambda message: np.asarray(message.data, float),
    )


def graph_form(name: str, dimension: int, attributes: Mapping[str, Any]) -> Form | None:
    """The form that the live graph gives to streams of this name; None for others.

    Args:
        attributes: of the episode: `joint_names`.
    """
    logged = attributes.get("joint_names", [])
    joints = [str(joint) for joint in logged] if isinstance(logged, list) else []

    def names(count: int) -> list[str]:
        return joints if len(joints) == count else [f"joint_{number + 1}" for number in range(count)]

    if name == "joint_state" and (arrays := _joint_arrays(dimension, len(joints), attributes)):
        return _joint_form(arrays, names(dimension // len(arrays)))
    if (match := _TRAJECTORY.fullmatch(name)) and _is_trajectory(points := int(match[1]), dimension):
        return _trajectory_form(points, names((dimension // points - 1) // 3))
    if name in ("gripper", "reward") and dimension == 1:
        topic = "/gripper/command" if name == "gripper" else "/reward"
        return Form(
            topic, ros.NUMBER, lambda _stamp_ns, row: ros.number(row[0]), lambda message: np.array([message.data])
        )
    return None


def _joint_arrays(dimension: int, joints: int, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Which arrays of `JointState` make a row: as the stream contract says, or else in the message's order."""
    try:
        told = tuple(attributes["contract"]["streams"]["joint_state"]["fields"])
    except (KeyError, TypeError):
        told = ()
    if told:
        usable = set(told) <= set(_JOINT_ARRAYS) and len(set(told)) == len(told) and dimension % len(told) == 0
        return told if usable else ()
    for count in (2, 3, 1):
        if dimension % count == 0 and joints in (0, dimension // count):
            return _JOINT_ARRAYS[:count]
    return _JOINT_ARRAYS[:2] if dimension % 2 == 0 else ()


def _joint_form(arrays: tuple[str, ...], names: list[str]) -> Form:
    def encode(stamp_ns: int, row: Row) -> Any:
        return ros.joint_state(names, stamp_ns, **dict(zip(arrays, row.reshape(len(arrays), -1), strict=True)))

    def decode(message: Any) -> Row:
        return np.concatenate([getattr(message, array) for array in arrays])

    return Form("/joint_states", ros.JOINTS, encode, decode)


def _is_trajectory(points: int, dimension: int) -> bool:
    return dimension % points == 0 and dimension // points >= 4 and (dimension // points - 1) % 3 == 0


def _trajectory_form(points: int, names: list[str]) -> Form:
    def encode(_stamp_ns: int, row: Row) -> Any:
        table = row.reshape(points, -1)
        return ros.trajectory(names, JointSamples(table[:, 0], *np.split(table[:, 1:], 3, axis=1)))

    def decode(message: Any) -> Row:
        samples = trajectory_to_samples(message, names)
        return np.column_stack([samples.times_s, *samples[1:]]).ravel()

    return Form("/arm/joint_trajectory", ros.TRAJECTORY, encode, decode, may_round=True)

"""The recorder's ears: subscriptions to everything that its stream contract names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.subscription import MessageInfo

from embodied_vision.episodes.contract import (
    JOINT_STATE,
    JOINT_TRAJECTORY,
    CameraContract,
    Contract,
    Expected,
    StreamContract,
)
from embodied_vision.episodes.frames import RawFrame
from embodied_vision.errors import BadInput
from embodied_vision.matching import StampMatcher
from embodied_vision.messages import stamp_to_ns, trajectory_to_samples
from embodied_vision.nodes import qos
from embodied_vision.nodes.durations import Durations
from embodied_vision.nodes.fields import FieldReader, message_class
from embodied_vision.nodes.image_transport import color_stream, depth_stream
from embodied_vision.nodes.images import AnyImage, image_to_color, image_to_raw_depth
from embodied_vision.nodes.joint_rows import JointRows
from embodied_vision.nodes.lifecycle import ManagedNode
from embodied_vision.nodes.losses import Losses
from embodied_vision.types import Camera

HOPELESS_NS = 2_000_000_000
"""An image whose other half has not come so long after it is given up."""

_JOINT_ARRAYS = ("position", "velocity", "effort")


class Listener(Protocol):
    """What is told of each frame and value that arrived, and of what could not be used."""

    def take_frame(self, frame: RawFrame) -> None:
        """Color and depth of one stamp have come."""

    def take_value(self, stream: str, stamp_ns: int, value: NDArray[np.float64]) -> None:
        """A row (D,) of a stream; D is the same throughout an episode."""

    def take_bad_frame(self, error: BadInput) -> None:
        """A frame that cannot be used."""

    def take_lost(self, source: Expected, count: int, stamp_ns: int) -> None:
        """So many messages were lost on their way before the one of this stamp."""

    def take_incomplete(self, source: Expected, count: int, stamp_ns: int) -> None:
        """So many color images got no depth image, as of this stamp."""

    def seen(self, source: Expected, stamp_ns: int, frame_id: str) -> None:
        """A message of a source has come; a camera's with its color image."""


class Intake:
    """Turns the messages that a contract names into frames and rows.

    Args:
        node: subscribes.
        contract: what to.
        cameras: calibrations by name.
        listener: told of what came.
        durations: counts the time of every callback.

    Raises:
        BadInput: a message type is not installed or lacks a field; the error names the key.
    """

    def __init__(
        self,
        node: ManagedNode,
        contract: Contract,
        cameras: Mapping[str, Camera],
        listener: Listener,
        durations: Durations,
    ) -> None:
        self._node = node
        self._contract = contract
        self._cameras = cameras
        self._listener = listener
        self._durations = durations
        self._joints: dict[str, JointRows] = {}
        self._lengths: dict[str, int] = {}
        self._kinds: dict[str, Any] = {}
        self._readers: dict[str, FieldReader] = {}
        for stream in contract.streams:
            where = f"stream contract: streams.{stream.name}"
            self._kinds[stream.name] = message_class(stream.type, f"{where}.type")
            if stream.type == JOINT_STATE:
                for path in stream.fields:
                    if path not in _JOINT_ARRAYS:
                        raise BadInput(f"{where}.fields: {path!r} is none of {', '.join(_JOINT_ARRAYS)}")
                self._joints[stream.name] = JointRows(stream.fields, stream.topic)
            elif stream.type != JOINT_TRAJECTORY:
                self._readers[stream.name] = FieldReader(self._kinds[stream.name], stream.fields, where)

    @property
    def joint_names(self) -> list[str]:
        """Order of the joints in joint states and trajectories: as the first such stream named them first."""
        return next((rows.names for rows in self._joints.values()), [])

    def begin(self) -> None:
        """An episode begins: streams may have another length than in the last one."""
        self._lengths.clear()

    def subscribe(self, slop_ns: int) -> None:
        """Listen from now on; `slop_ns` is how far the stamps of a color and a depth image may be apart."""
        for camera in self._contract.cameras:
            matcher = StampMatcher(("color", "depth"), slop_ns)
            color, depth = color_stream(self._node, camera.color), depth_stream(self._node, camera.depth)
            for part, (kind, topic) in (("color", color), ("depth", depth)):
                self._node.subscribe_sensor(kind, topic, self._timed(self._image(camera, matcher, part)), qos.LOG)
        for stream in self._contract.streams:
            take = self._trajectory if stream.type == JOINT_TRAJECTORY else self._values
            kind = self._kinds[stream.name]
            silent_s = None if stream.type == JOINT_STATE else math.inf
            self._node.subscribe_sensor(kind, stream.topic, self._timed(take(stream)), qos.LOG, silent_s=silent_s)

    def _timed(self, callback: Callable[..., None]) -> Callable[..., None]:
        return self._durations.timed(callback)

    def _image(
        self, camera: CameraContract, matcher: StampMatcher, part: str
    ) -> Callable[[AnyImage, MessageInfo], None]:
        calibration, losses = self._cameras[camera.name], Losses()

        def take(message: AnyImage, info: MessageInfo) -> None:
            stamp_ns = stamp_to_ns(message.header.stamp)
            if lost := losses.before(info):
                self._listener.take_lost(camera, lost, stamp_ns)
            if part == "color":
                self._listener.seen(camera, stamp_ns, message.header.frame_id)
            parts = matcher.add(part, stamp_ns, message)
            if parts is None:
                return
            if given_up := matcher.forget_before(stamp_ns - HOPELESS_NS):
                self._listener.take_incomplete(camera, given_up, stamp_ns)
            color, depth = parts["color"], parts["depth"]
            try:
                frame = RawFrame(
                    image_to_color(color), image_to_raw_depth(depth), calibration, stamp_to_ns(color.header.stamp)
                )
            except BadInput as error:
                self._listener.take_bad_frame(error)
            else:
                self._listener.take_frame(frame)

        return take

    def _values(self, stream: StreamContract) -> Callable[[Any, MessageInfo], None]:
        reader, losses = self._readers.get(stream.name), Losses()

        def take(message: Any, info: MessageInfo) -> None:
            stamp_ns, frame_id = self._stamp(message, info)
            if lost := losses.before(info):
                self._listener.take_lost(stream, lost, stamp_ns)
            if reader is not None:
                self._give(stream, stream.name, stamp_ns, frame_id, reader.read(message))
                return
            for row_ns, row in self._joints[stream.name].add(message, stamp_ns):
                self._give(stream, stream.name, row_ns, frame_id, row)

        return take

    def _trajectory(self, stream: StreamContract) -> Callable[[Any, MessageInfo], None]:
        losses = Losses()

        def take(message: Any, info: MessageInfo) -> None:
            if lost := losses.before(info):
                self._listener.take_lost(stream, lost, self._sent_ns(info))
            order = [name for name in self.joint_names if name in message.joint_names]
            samples = trajectory_to_samples(message, order or list(message.joint_names))
            rows = np.column_stack([samples.times_s, samples.positions, samples.velocities, samples.accelerations])
            self._give(stream, f"{stream.name}/{len(rows)}", self._sent_ns(info), message.header.frame_id, rows.ravel())

        return take

    def _give(self, stream: StreamContract, name: str, stamp_ns: int, frame_id: str, row: NDArray[np.float64]) -> None:
        if not row.size:
            raise BadInput(f"stream {name!r}: a message without numbers; check its publisher")
        length = self._lengths.setdefault(name, row.size)
        if row.size != length:
            raise BadInput(
                f"stream {name!r}: {row.size} numbers after {length} in this episode; log messages of another length "
                "as a stream of their own"
            )
        self._listener.seen(stream, stamp_ns, frame_id)
        self._listener.take_value(name, stamp_ns, row)

    def _stamp(self, message: Any, info: MessageInfo) -> tuple[int, str]:
        """Stamp and frame of a message; one without a header is stamped with the time when it was sent."""
        header = getattr(message, "header", None)
        if header is None:
            return self._sent_ns(info), ""
        return stamp_to_ns(header.stamp), str(header.frame_id)

    def _sent_ns(self, info: MessageInfo) -> int:
        """When a message was sent, on the clock of all stamps."""
        return self._node.now_ns() if self._node.value("use_sim_time") else int(info["source_timestamp"])

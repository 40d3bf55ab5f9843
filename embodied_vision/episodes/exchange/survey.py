"""What must be known of somebody else's recording before it is written: its cameras and joints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied_vision.calibration import read_cameras
from embodied_vision.episodes.encoded import LARGEST_PX
from embodied_vision.episodes.exchange import ros_messages as ros
from embodied_vision.episodes.exchange.cdr import Decoder, Message
from embodied_vision.episodes.exchange.images import image_size
from embodied_vision.episodes.exchange.recording import Recording
from embodied_vision.episodes.exchange.topic_map import CameraTopics, TopicMap
from embodied_vision.errors import BadInput
from embodied_vision.geometry import vector_to_pose
from embodied_vision.messages import info_to_K
from embodied_vision.types import Camera, FloatArray

_STATIC = "/tf_static"
_IMAGES = (ros.IMAGE, ros.COMPRESSED)


@dataclass
class Survey:
    """What was found.

    Attributes:
        cameras: calibrations by name.
        joints: names, in the order of the stream.
        notes: what a user of the episodes should know.
    """

    cameras: dict[str, Camera] = field(default_factory=dict)
    joints: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


@dataclass
class _Seen:
    size: tuple[int, int] | None = None
    frame: str | None = None
    info: Any = None


def survey(recording: Recording, topic_map: TopicMap) -> Survey:
    """Look through a recording until all that the map asks for is known.

    Raises:
        BadInput: topics that it lacks, of the wrong type, or cameras without intrinsics or pose anywhere.
    """
    _check_topics(recording, topic_map)
    seen = {name: _Seen() for name in topic_map.cameras}
    result = Survey()
    transforms: dict[str, tuple[str, FloatArray]] = {}
    decoder = Decoder(recording.topics)
    wants_joints = topic_map.joint_state is not None and not topic_map.joint_state.joints
    for message in recording.messages():
        if message.topic == _STATIC:
            _take_transforms(decoder.decode(message), transforms)
        if wants_joints and not result.joints and message.topic == topic_map.joint_state.topic:  # type: ignore[union-attr]
            result.joints = tuple(decoder.decode(message).name)
        for name, topics in topic_map.cameras.items():
            _take_camera(decoder, message, topics, seen[name])
        if (result.joints or not wants_joints) and all(
            _is_known(topics, seen[name], transforms, topic_map.base_frame)
            for name, topics in topic_map.cameras.items()
        ):
            break
    if topic_map.joint_state is not None:
        result.joints = topic_map.joint_state.joints or result.joints
    spare = {camera.name: camera for camera in read_cameras(topic_map.calibration)} if topic_map.calibration else {}
    for name, topics in topic_map.cameras.items():
        result.cameras[name] = _camera(name, topics, seen[name], transforms, spare.get(name), topic_map, result.notes)
        if topics.depth is None:
            result.notes.append(f"camera {name} has no depth: it is 0, no return, everywhere")
    return result


def _check_topics(recording: Recording, topic_map: TopicMap) -> None:
    has = f"it has {', '.join(sorted(recording.topics)) or 'no topics'}"
    if missing := sorted(topic_map.topics() - set(recording.topics)):
        raise BadInput(f"{recording.path} lacks the topics {', '.join(missing)} of the topic map; {has}")
    wanted: dict[str, tuple[str, ...]] = {}
    for topics in topic_map.cameras.values():
        wanted[topics.color] = _IMAGES
        wanted |= {topics.depth: _IMAGES} if topics.depth else {}
        wanted |= {topics.info: (ros.INFO,)} if topics.info else {}
    if topic_map.joint_state is not None:
        wanted[topic_map.joint_state.topic] = (ros.JOINTS,)
    for name, types in wanted.items():
        if recording.topics[name].type not in types:
            raise BadInput(
                f"{recording.path}: topic {name} holds {recording.topics[name].type}, the topic map needs "
                f"{' or '.join(types)} there; name another topic"
            )


def _take_camera(decoder: Decoder, message: Message, topics: CameraTopics, seen: _Seen) -> None:
    if message.topic == topics.info and seen.info is None:
        seen.info = decoder.decode(message)
    if message.topic == topics.color and seen.size is None:
        image = decoder.decode(message)
        try:
            seen.size, seen.frame = image_size(image), image.header.frame_id
        except BadInput as error:
            raise BadInput(f"topic {message.topic}: {error}") from error


def _take_transforms(message: Any, transforms: dict[str, tuple[str, FloatArray]]) -> None:
    for entry in message.transforms:
        move, turn = entry.transform.translation, entry.transform.rotation
        pose = vector_to_pose([move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w])
        transforms[entry.child_frame_id.lstrip("/")] = (entry.header.frame_id.lstrip("/"), pose)


def _pose(transforms: Mapping[str, tuple[str, FloatArray]], frame: str, base: str) -> FloatArray | None:
    """Pose (4, 4) of `frame` in `base` along the static transforms; None where they do not lead there."""
    pose: FloatArray = np.eye(4)
    frame, base = frame.lstrip("/"), base.lstrip("/")
    passed: set[str] = set()
    while frame != base:
        if frame not in transforms or frame in passed:
            return None
        passed.add(frame)
        frame, step = transforms[frame]
        pose = step @ pose
    return pose


def _is_known(topics: CameraTopics, seen: _Seen, transforms: Mapping[str, tuple[str, FloatArray]], base: str) -> bool:
    return (
        seen.size is not None
        and (seen.info is not None or topics.info is None)
        and _pose(transforms, topics.frame or seen.frame or "", base) is not None
    )


def _camera(
    name: str,
    topics: CameraTopics,
    seen: _Seen,
    transforms: Mapping[str, tuple[str, FloatArray]],
    spare: Camera | None,
    topic_map: TopicMap,
    notes: list[str],
) -> Camera:
    where = f"camera {name!r}"
    if seen.size is None:
        raise BadInput(f"{where}: no image on {topics.color}; name another topic, or leave the camera out")
    frame = topics.frame or seen.frame or ""
    pose = _pose(transforms, frame, topic_map.base_frame)
    if pose is None:
        if spare is None:
            raise BadInput(
                f"{where}: {_STATIC} does not lead from its frame {frame!r} to {topic_map.base_frame!r}, and no "
                "calibration has it; set `frame` and `base_frame`, or give `calibration`, a YAML with the camera"
            )
        pose = spare.T_base_camera
    if seen.info is None and spare is None:
        raise BadInput(f"{where}: no camera_info and no calibration; map `info`, or give `calibration`, a YAML")
    if seen.info is not None and info_to_K(seen.info)[0, 0] > 0:
        K, size = info_to_K(seen.info), (int(seen.info.height), int(seen.info.width))
        if any(abs(value) > 1e-6 for value in seen.info.d):
            notes.append(f"camera {name}: its images are distorted by {list(seen.info.d)}, which nothing here undoes")
    elif spare is not None:
        K, size = np.asarray(spare.K, float), (spare.height, spare.width)
    else:
        raise BadInput(f"{where}: camera_info on {topics.info} is not calibrated; give `calibration`, a YAML")
    if not 0 < size[0] * size[1] <= LARGEST_PX:
        raise BadInput(f"{where}: images of {size[1]}x{size[0]} on {topics.color}, 1 to {LARGEST_PX} pixels are read")
    if size != seen.size:
        raise BadInput(
            f"{where}: images of {seen.size[1]}x{seen.size[0]} on {topics.color}, calibrated for {size[1]}x{size[0]}; "
            "map the camera_info of these images"
        )
    return Camera(name, size[1], size[0], K, pose)

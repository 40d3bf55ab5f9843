"""Messages ↔ types, at the edge of every node. Stamps and floats survive exactly."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Pose, PoseArray
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodied_vision.errors import BadInput
from embodied_vision.geometry import pose_to_vector, quantise_depth, vector_to_pose
from embodied_vision.messages import BASE_FRAME as BASE_FRAME
from embodied_vision.messages import JointSamples as JointSamples
from embodied_vision.messages import from_json as from_json
from embodied_vision.messages import info_to_K as info_to_K
from embodied_vision.messages import joint_state_to_positions as joint_state_to_positions
from embodied_vision.messages import optical_frame as optical_frame
from embodied_vision.messages import pixels
from embodied_vision.messages import stamp_to_ns as stamp_to_ns
from embodied_vision.messages import trajectory_to_samples as trajectory_to_samples
from embodied_vision.nodes.images import image_to_color as image_to_color
from embodied_vision.nodes.images import image_to_depth as image_to_depth
from embodied_vision.types import Camera, Features, FloatArray, PickPlace

_LARGEST_RATIO = 4096


# ---- time


def ns_to_stamp(stamp_ns: int) -> Time:
    """Int ns ≥ 0 to a stamp."""
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


# ---- JSON in String


def to_json(data: Mapping[str, Any]) -> String:
    """A JSON object as a message; floats survive exactly, NaN is refused."""
    return String(data=json.dumps(data, allow_nan=False, separators=(",", ":")))


# ---- images


def _image(values: NDArray[Any], encoding: str, stamp_ns: int, frame_id: str) -> Image:
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    message = Image(height=values.shape[0], width=values.shape[1], encoding=encoding, is_bigendian=0)
    message.step = values.shape[1] * int(np.prod(values.shape[2:], dtype=int)) * values.dtype.itemsize
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    message.data = array("B")
    message.data.frombytes(little.reshape(-1).view(np.uint8))
    return message


def color_to_image(color: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Image:
    """uint8 (H, W, 3) RGB to an `rgb8` message."""
    return _image(color, "rgb8", stamp_ns, frame_id)


def depth_to_image(depth_m: NDArray[np.float32], stamp_ns: int, frame_id: str) -> Image:
    """float32 (H, W) in m, 0 or NaN where there is no return, to `16UC1` in whole mm."""
    return _image(quantise_depth(depth_m), "16UC1", stamp_ns, frame_id)


def scores_to_image(scores: NDArray[np.float32], stamp_ns: int, frame_id: str = BASE_FRAME) -> Image:
    """A float32 (H, W) map of scores to `32FC1`."""
    return _image(scores.astype(np.float32, copy=False), "32FC1", stamp_ns, frame_id)


# ---- cameras


def camera_to_info(camera: Camera, stamp_ns: int) -> CameraInfo:
    """A pinhole camera without distortion as `camera_info`."""
    message = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = optical_frame(camera.name)
    K = np.asarray(camera.K, float)
    message.k = K.ravel()
    message.r = np.eye(3).ravel()
    message.p = np.hstack([K, np.zeros((3, 1))]).ravel()
    return message


def check_calibration(camera: Camera, message: CameraInfo, tolerance_px: float = 0.5) -> None:
    """Compare a calibration with what the driver says.

    Raises:
        BadInput: size or intrinsics differ by more than `tolerance_px`, or the image is distorted.
    """
    size = (int(message.width), int(message.height))
    if size != (camera.width, camera.height):
        raise BadInput(
            f"camera {camera.name!r}: camera_info says {size[0]}x{size[1]}, the calibration {camera.width}x"
            f"{camera.height}; calibrate at the resolution that runs"
        )
    difference = np.abs(info_to_K(message) - camera.K).max()
    if not difference <= tolerance_px:
        raise BadInput(
            f"camera {camera.name!r}: camera_info's K {np.round(info_to_K(message), 2).tolist()} differs from the "
            f"calibration's {np.round(camera.K, 2).tolist()} by {difference:.2f} px; calibrate again"
        )
    if any(abs(value) > 1e-6 for value in message.d):
        raise BadInput(
            f"camera {camera.name!r}: camera_info says the image is distorted {list(message.d)}; rectify it first"
        )


# ---- features


def features_to_image(features: Features, frame_id: str) -> Image:
    """Features to a `32FC<D>` image of one pixel a patch, stamped as their frame."""
    grid = features.grid.astype(np.float32, copy=False)
    return _image(grid, f"32FC{grid.shape[2]}", features.stamp_ns, frame_id)


def features_to_info(features: Features, K: FloatArray, frame_id: str) -> CameraInfo:
    """`camera_info` of the feature grid: the intrinsics K (3, 3) of the color image in units of patches."""
    rows, columns, _ = features.grid.shape
    down, right = features.stride
    message = CameraInfo(width=columns, height=rows, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.stamp = ns_to_stamp(features.stamp_ns)
    message.header.frame_id = frame_id
    grid_K = np.array(
        [
            [K[0, 0] / right, K[0, 1] / right, (K[0, 2] + 0.5) / right - 0.5],
            [0.0, K[1, 1] / down, (K[1, 2] + 0.5) / down - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    message.k = grid_K.ravel()
    message.r = np.eye(3).ravel()
    message.p = np.hstack([grid_K, np.zeros((3, 1))]).ravel()
    return message


def _ratio(value: float) -> float:
    """The ratio of two whole numbers that `value` stands for: a stride is pixels over patches."""
    return float(Fraction(value).limit_denominator(_LARGEST_RATIO))


def image_to_features(
    message: Image, info: CameraInfo, K: FloatArray, *, encoder_id: str, artefact_id: str
) -> Features:
    """`32FC<D>` and the grid's camera info to features; `K` (3, 3) belongs to the color image.

    Values are not judged: they may hold NaN, which the policy refuses.

    Raises:
        BadInput: not a float image, or its camera info is of another size.
    """
    prefix, _, channels = message.encoding.partition("C")
    if prefix != "32F" or not channels.isdigit() or int(channels) < 1:
        raise BadInput(f"features have the encoding {message.encoding!r}, expected 32FC<D>; is an encoder publishing?")
    if (info.width, info.height) != (message.width, message.height):
        raise BadInput(
            f"features/camera_info says {info.width}x{info.height}, the features are {message.width}x{message.height}; "
            "both must come from one encoder"
        )
    grid_K = info_to_K(info)
    if not (grid_K[0, 0] > 0 and grid_K[1, 1] > 0):
        raise BadInput(f"features/camera_info has the focal lengths {grid_K[0, 0]}, {grid_K[1, 1]}; expected > 0")
    return Features(
        grid=pixels(message, "f4", int(channels)),
        stride=(_ratio(K[1, 1] / grid_K[1, 1]), _ratio(K[0, 0] / grid_K[0, 0])),
        encoder_id=encoder_id,
        artefact_id=artefact_id,
        stamp_ns=stamp_to_ns(message.header.stamp),
    )


# ---- decisions


def _pose_message(pose: FloatArray) -> Pose:
    x, y, z, qx, qy, qz, qw = (float(v) for v in pose_to_vector(pose))
    message = Pose()
    message.position.x, message.position.y, message.position.z = x, y, z
    message.orientation.x, message.orientation.y, message.orientation.z, message.orientation.w = qx, qy, qz, qw
    return message


def pick_place_to_poses(action: PickPlace, frame_id: str = BASE_FRAME) -> PoseArray:
    """Pick then place as the `pick_place` message, stamped as the frames that the decision came from."""
    message = PoseArray(poses=[_pose_message(action.pick), _pose_message(action.place)])
    message.header.stamp = ns_to_stamp(action.stamp_ns)
    message.header.frame_id = frame_id
    return message


def poses_to_pick_place(message: PoseArray, decision: Mapping[str, Any] | None = None) -> PickPlace:
    """A `pick_place` message, with the JSON of `policy/decision` of the same stamp where there is one.

    Raises:
        BadInput: not exactly two poses, a pose that is none, or a decision with another stamp.
    """
    if len(message.poses) != 2:
        raise BadInput(f"pick_place has {len(message.poses)} poses, expected two: pick then place")
    pick, place = (
        vector_to_pose(
            [
                pose.position.x,
                pose.position.y,
                pose.position.z,
                pose.orientation.x,
                pose.orientation.y,
                pose.orientation.z,
                pose.orientation.w,
            ]
        )
        for pose in message.poses
    )
    stamp_ns = stamp_to_ns(message.header.stamp)
    if decision is None:
        return PickPlace(pick=pick, place=place, stamp_ns=stamp_ns)
    if int(decision["stamp_ns"]) != stamp_ns:
        raise BadInput(f"policy/decision is stamped {decision['stamp_ns']}, pick_place {stamp_ns}; match them by stamp")
    return PickPlace(
        pick=pick,
        place=place,
        primitive=decision["primitive"],
        decision_id=decision["decision_id"],
        scores=dict(decision["scores"]),
        stamp_ns=stamp_ns,
    )


# ---- joints


def joint_state_message(
    joint_names: Sequence[str], positions: NDArray[np.float64], velocities: NDArray[np.float64], stamp_ns: int
) -> JointState:
    """Positions and velocities (J,) in rad, rad/s as `joint_states`."""
    message = JointState(name=list(joint_names), position=positions.tolist(), velocity=velocities.tolist())
    message.header.stamp = ns_to_stamp(stamp_ns)
    return message


def samples_to_trajectory(joint_names: Sequence[str], samples: JointSamples) -> JointTrajectory:
    """Samples as a trajectory that starts when it arrives: its header stamp is 0."""
    message = JointTrajectory(joint_names=list(joint_names))
    for time_s, position, velocity, acceleration in zip(*samples, strict=True):
        seconds, nanoseconds = divmod(round(float(time_s) * 1e9), 1_000_000_000)
        message.points.append(
            JointTrajectoryPoint(
                positions=position.tolist(),
                velocities=velocity.tolist(),
                accelerations=acceleration.tolist(),
                time_from_start=Duration(sec=seconds, nanosec=nanoseconds),
            )
        )
    return message

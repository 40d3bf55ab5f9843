"""Messages ↔ types, at the edge of every node. Stamps and floats survive exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Pose, PoseArray
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodied_vision.errors import BadInput
from embodied_vision.geometry import depth_to_metres, pose_to_vector, quantise_depth, vector_to_pose
from embodied_vision.types import Camera, Features, FloatArray, PickPlace

BASE_FRAME = "base"
"""Frame id of poses in the robot base frame."""

_COLOR_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_LARGEST_RATIO = 4096


# ---- time


def stamp_to_ns(stamp: Time) -> int:
    """Stamp to int ns."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> Time:
    """Int ns ≥ 0 to a stamp."""
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


# ---- JSON in String


def to_json(data: Mapping[str, Any]) -> String:
    """A JSON object as a message; floats survive exactly, NaN is refused."""
    return String(data=json.dumps(data, allow_nan=False, separators=(",", ":")))


def from_json(message: String, topic: str) -> dict[str, Any]:
    """The JSON object in a message of `topic`.

    Raises:
        BadInput: it is no JSON object.
    """
    try:
        data = json.loads(message.data)
    except json.JSONDecodeError as error:
        raise BadInput(f"{topic} carries no JSON ({error}): {message.data[:80]!r}; who publishes it?") from error
    if not isinstance(data, dict):
        raise BadInput(f"{topic} carries {message.data[:80]!r}, expected a JSON object; who publishes it?")
    return data


# ---- images


def _rows(message: Image, row_bytes: int) -> NDArray[np.uint8]:
    """Image data as (H, row_bytes) without the padding of `step`; a view where there is none."""
    height, step = int(message.height), int(message.step)
    if step < row_bytes or len(message.data) < step * height:
        raise BadInput(
            f"image {message.encoding} {message.width}x{message.height} from {message.header.frame_id!r} has step "
            f"{step} and {len(message.data)} bytes, too few; check the driver"
        )
    flat = np.frombuffer(message.data, np.uint8, step * height)
    return flat.reshape(height, step)[:, :row_bytes]


def _typed(message: Image, dtype: str, channels: int) -> NDArray[Any]:
    """Image data as native-endian (H, W, channels)."""
    kind = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    width = int(message.width)
    raw = np.ascontiguousarray(_rows(message, width * channels * kind.itemsize))
    return raw.view(kind).reshape(int(message.height), width, channels).astype(np.dtype(dtype), copy=False)


def _image(array: NDArray[Any], encoding: str, stamp_ns: int, frame_id: str) -> Image:
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    message = Image(height=array.shape[0], width=array.shape[1], encoding=encoding, is_bigendian=0)
    message.step = array.shape[1] * int(np.prod(array.shape[2:], dtype=int)) * array.dtype.itemsize
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    message.data = little.tobytes()
    return message


def color_to_image(color: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Image:
    """uint8 (H, W, 3) RGB to an `rgb8` message."""
    return _image(color, "rgb8", stamp_ns, frame_id)


def image_to_color(message: Image) -> NDArray[np.uint8]:
    """`rgb8`, `bgr8`, `rgba8`, `bgra8` or `mono8` to uint8 (H, W, 3) RGB; read-only where nothing had to be moved.

    Raises:
        BadInput: another encoding, or too few bytes.
    """
    channels = _COLOR_CHANNELS.get(message.encoding)
    if channels is None:
        raise BadInput(
            f"color image from {message.header.frame_id!r} has the encoding {message.encoding!r}; "
            f"let the driver publish one of {', '.join(_COLOR_CHANNELS)}"
        )
    pixels: NDArray[np.uint8] = _typed(message, "u1", channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if message.encoding.startswith("bgr"):
        return np.ascontiguousarray(pixels[..., 2::-1])
    return pixels if channels == 3 else np.ascontiguousarray(pixels[..., :3])


def depth_to_image(depth_m: NDArray[np.float32], stamp_ns: int, frame_id: str) -> Image:
    """float32 (H, W) in m, 0 or NaN where there is no return, to `16UC1` in whole mm."""
    return _image(quantise_depth(depth_m), "16UC1", stamp_ns, frame_id)


def image_to_depth(message: Image) -> NDArray[np.float32]:
    """`16UC1` in mm or `32FC1` in m to float32 (H, W) in m of whole mm, 0 where there is no return.

    Raises:
        BadInput: another encoding, or too few bytes.
    """
    if message.encoding in ("16UC1", "mono16"):
        return depth_to_metres(_typed(message, "u2", 1)[..., 0])
    if message.encoding == "32FC1":
        return depth_to_metres(quantise_depth(_typed(message, "f4", 1)[..., 0]))
    raise BadInput(
        f"depth image from {message.header.frame_id!r} has the encoding {message.encoding!r}; "
        "let the driver publish 16UC1 in mm or 32FC1 in m, aligned to color"
    )


def scores_to_image(scores: NDArray[np.float32], stamp_ns: int, frame_id: str = BASE_FRAME) -> Image:
    """A float32 (H, W) map of scores to `32FC1`."""
    return _image(scores.astype(np.float32, copy=False), "32FC1", stamp_ns, frame_id)


# ---- cameras


def optical_frame(camera_name: str) -> str:
    """Frame id of a camera's optical frame."""
    return f"{camera_name}_optical_frame"


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


def info_to_K(message: CameraInfo) -> FloatArray:
    """(3, 3) intrinsics of a `camera_info`."""
    return np.array(message.k, float).reshape(3, 3)


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
        grid=_typed(message, "f4", int(channels)),
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


class JointSamples(NamedTuple):
    """Points of a joint trajectory: times (N,) in s, positions, velocities, accelerations (N, J) in rad, s."""

    times_s: NDArray[np.float64]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    accelerations: NDArray[np.float64]


def joint_state_to_positions(message: JointState, joint_names: Sequence[str]) -> NDArray[np.float64]:
    """Positions (J,) in rad, in the order of `joint_names`.

    Raises:
        BadInput: a joint is missing, or positions are.
    """
    if len(message.position) != len(message.name):
        raise BadInput(
            f"joint_states names {len(message.name)} joints, {len(message.position)} positions; check the driver"
        )
    known = dict(zip(message.name, message.position, strict=True))
    missing = [name for name in joint_names if name not in known]
    if missing:
        raise BadInput(
            f"joint_states lacks {missing}, it has {list(message.name)}; is this the robot of the parameters?"
        )
    return np.array([known[name] for name in joint_names], float)


def joint_state_message(
    joint_names: Sequence[str], positions: NDArray[np.float64], velocities: NDArray[np.float64], stamp_ns: int
) -> JointState:
    """Positions and velocities (J,) in rad, rad/s as `joint_states`."""
    message = JointState(name=list(joint_names), position=positions.tolist(), velocity=velocities.tolist())
    message.header.stamp = ns_to_stamp(stamp_ns)
    return message


def samples_to_trajectory(joint_names: Sequence[str], samples: JointSamples) -> JointTrajectory:
    """Samples as a trajectory that starts now: its header stamp is 0."""
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


def trajectory_to_samples(message: JointTrajectory, joint_names: Sequence[str]) -> JointSamples:
    """A trajectory in the order of `joint_names`; velocities and accelerations that it lacks are 0.

    Raises:
        BadInput: no points, other joints, or points of the wrong length.
    """
    if sorted(message.joint_names) != sorted(joint_names):
        raise BadInput(f"trajectory is for {list(message.joint_names)}, the robot has {list(joint_names)}")
    if not message.points:
        raise BadInput("trajectory has no points")
    order = [list(message.joint_names).index(name) for name in joint_names]

    def stack(name: str) -> NDArray[np.float64]:
        rows = [np.array(getattr(point, name), float) for point in message.points]
        if name != "positions" and all(len(row) == 0 for row in rows):
            return np.zeros((len(rows), len(order)))
        if any(len(row) != len(order) for row in rows):
            raise BadInput(f"trajectory has points with {[len(r) for r in rows]} {name}, expected {len(order)} in each")
        return np.stack(rows)[:, order]

    times = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points]
    return JointSamples(np.array(times), stack("positions"), stack("velocities"), stack("accelerations"))

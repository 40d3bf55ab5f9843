"""What an episode holds as ROS 2 messages: the same types that the live graph speaks, made without ROS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.exchange.cdr import make
from embodied_vision.errors import BadInput
from embodied_vision.geometry import pose_to_vector
from embodied_vision.messages import BASE_FRAME, JointSamples, optical_frame
from embodied_vision.types import Camera, FloatArray, PickPlace

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"
JOINTS = "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
NUMBER = "std_msgs/msg/Float64"
NUMBERS = "std_msgs/msg/Float64MultiArray"
TEXT = "std_msgs/msg/String"
POSES = "geometry_msgs/msg/PoseArray"
FRAMES = "tf2_msgs/msg/TFMessage"

_NONE = np.zeros(0)
_LARGEST_NS = (2**31) * 1_000_000_000


def ns_to_stamp(stamp_ns: int) -> Any:
    """Int ns to a stamp.

    Raises:
        BadInput: a stamp that ROS cannot hold: negative, or after 2038.
    """
    if not 0 <= stamp_ns < _LARGEST_NS:
        raise BadInput(f"stamp {stamp_ns} ns is not within ROS' 0 to {_LARGEST_NS} ns; export to HDF5 instead")
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    return make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)


def _header(stamp_ns: int, frame_id: str = "") -> Any:
    return make("std_msgs/msg/Header", stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)


def compressed(image: bytes, codec: str, stamp_ns: int, frame_id: str) -> Any:
    """An RGB image that is encoded already, as image_transport's compressed topics carry it: "jpeg" or "png"."""
    data = np.frombuffer(image, np.uint8)
    return make(COMPRESSED, header=_header(stamp_ns, frame_id), format=f"rgb8; {codec} compressed bgr8", data=data)


def depth_image(depth_mm: NDArray[np.uint16], stamp_ns: int, frame_id: str) -> Any:
    """uint16 (H, W) in mm as a `16UC1` image."""
    height, width = depth_mm.shape
    data = np.frombuffer(np.ascontiguousarray(depth_mm, "<u2").tobytes(), np.uint8)
    return make(
        IMAGE,
        header=_header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="16UC1",
        is_bigendian=0,
        step=2 * width,
        data=data,
    )


def camera_info(camera: Camera, stamp_ns: int) -> Any:
    """A pinhole camera without distortion."""
    K = np.asarray(camera.K, float)
    region = make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return make(
        INFO,
        header=_header(stamp_ns, optical_frame(camera.name)),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=K.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([K, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def joint_state(
    names: Sequence[str],
    stamp_ns: int,
    *,
    position: FloatArray = _NONE,
    velocity: FloatArray = _NONE,
    effort: FloatArray = _NONE,
) -> Any:
    """Positions, velocities and efforts (J,) in rad, rad/s, Nm, as far as there are any."""
    return make(JOINTS, header=_header(stamp_ns), name=list(names), position=position, velocity=velocity, effort=effort)


def trajectory(names: Sequence[str], samples: JointSamples) -> Any:
    """Samples as a trajectory that starts now: its header stamp is 0.

    Raises:
        BadInput: a time that is no ROS duration.
    """
    points = []
    for time_s, position, velocity, acceleration in zip(*samples, strict=True):
        if not -(2**31) < time_s < 2**31:
            raise BadInput(f"a point of a trajectory at {time_s} s, which no ROS duration holds")
        seconds, nanoseconds = divmod(round(float(time_s) * 1e9), 1_000_000_000)
        duration = make("builtin_interfaces/msg/Duration", sec=seconds, nanosec=nanoseconds)
        points.append(
            make(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=position,
                velocities=velocity,
                accelerations=acceleration,
                effort=np.zeros(0),
                time_from_start=duration,
            )
        )
    return make(TRAJECTORY, header=_header(0), joint_names=list(names), points=points)


def number(value: float) -> Any:
    """One number, such as the gripper's command."""
    return make(NUMBER, data=float(value))


def numbers(label: str, values: NDArray[np.float64]) -> Any:
    """A row (D,) of numbers with the name of what it is."""
    dimension = make("std_msgs/msg/MultiArrayDimension", label=label, size=len(values), stride=len(values))
    return make(
        NUMBERS, layout=make("std_msgs/msg/MultiArrayLayout", dim=[dimension], data_offset=0), data=np.array(values)
    )


def text(data: Mapping[str, Any]) -> Any:
    """A JSON object; floats survive exactly."""
    return make(TEXT, data=json.dumps(data, allow_nan=False, separators=(",", ":")))


def _point(name: str, xyz: FloatArray) -> Any:
    x, y, z = (float(value) for value in xyz)
    return make(f"geometry_msgs/msg/{name}", x=x, y=y, z=z)


def _quaternion(xyzw: FloatArray) -> Any:
    x, y, z, w = (float(value) for value in xyzw)
    return make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def pick_place(action: PickPlace) -> Any:
    """Pick then place, stamped as the frames that the decision came from."""
    poses = []
    for pose in (action.pick, action.place):
        vector = pose_to_vector(pose)
        poses.append(
            make("geometry_msgs/msg/Pose", position=_point("Point", vector[:3]), orientation=_quaternion(vector[3:]))
        )
    return make(POSES, header=_header(action.stamp_ns, BASE_FRAME), poses=poses)


def camera_poses(cameras: Sequence[Camera], stamp_ns: int) -> Any:
    """Where the cameras' optical frames are in the base frame, for `/tf_static`."""
    transforms = []
    for camera in cameras:
        vector = pose_to_vector(camera.T_base_camera)
        transforms.append(
            make(
                "geometry_msgs/msg/TransformStamped",
                header=_header(stamp_ns, BASE_FRAME),
                child_frame_id=optical_frame(camera.name),
                transform=make(
                    "geometry_msgs/msg/Transform",
                    translation=_point("Vector3", vector[:3]),
                    rotation=_quaternion(vector[3:]),
                ),
            )
        )
    return make(FRAMES, transforms=transforms)

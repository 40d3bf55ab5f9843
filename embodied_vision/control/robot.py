"""The arm's kinematics: names, limits, home, forward and inverse kinematics of the tool tip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from embodied_vision.control.description import ROBOTS, read_description
from embodied_vision.control.limits import JointLimits, Vector, read_limits, read_limits_file
from embodied_vision.errors import BadInput
from embodied_vision.types import FloatArray

Matrix = NDArray[np.float64]
Spin = Literal["any", "half", "none"]
ENDLESS_RAD = 2 * np.pi
"""How far a joint that the URDF calls continuous may turn either way; cables seldom allow more."""
ENDLESS_RAD_S = 1e9
"""Stands for the velocity limit of a joint whose URDF gives none, and is taken for no limit."""


def _number(value: Any) -> float:
    """A finite number; ValueError for any other value."""
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{value} is not finite")
    return number


def _numbers(values: Any) -> dict[str, float]:
    return {str(name): _number(value) for name, value in dict(values).items()}


@dataclass(frozen=True, eq=False)
class RobotModel:
    """An arm of revolute joints and its tool tip. Holds scratch memory: one instance a thread.

    Attributes:
        name: of the robot, recorded with episodes.
        tool: name of its tool where arm and tool are described apart, else empty.
        urdf: text of the URDF, tool included; a simulator loads the same.
        joint_names: J names in the order of every joint vector.
        tip_link: link at the tool's tip, z out of the tool.
        home: resting position (J,), rad.
        limits: what each joint may do.
        posture: weights (J,) with which inverse kinematics draws joints to a preferred position.
        spin: turns of the tool about its own axis that change nothing: any, as with a suction cup, half a turn,
            as with a jaw, or none. The last joint turns about that axis unless it is none.
        finger_joints: names of the tool's own joints; kinematics take them as fixed.
        gripper_s: least time given to the tool to close or to open.
        reach_m: least and greatest horizontal distance from the base's axis at which the tool, held straight
            down, works at every height from the table to the height of travel. Scenes are made within it.
        link_clearance_m: least height of elbow and wrist frames above the table.
        package_dirs: folders in which meshes named by package:// are looked for.
        apart: pairs of links that are not checked against each other, because the true arm keeps them apart.
        kinematics: Pinocchio's model of the arm.
        tip_frame: index of the tip's frame in it.
    """

    name: str
    tool: str
    urdf: str
    joint_names: tuple[str, ...]
    tip_link: str
    home: Vector
    limits: JointLimits
    posture: Vector
    spin: Spin
    finger_joints: tuple[str, ...]
    gripper_s: float
    reach_m: tuple[float, float]
    link_clearance_m: float
    package_dirs: tuple[str, ...]
    apart: frozenset[frozenset[str]]
    kinematics: Any
    tip_frame: int
    _data: Any
    _axes: tuple[Matrix, ...]

    @classmethod
    def load(cls, name_or_path: str | Path = "panda_suction") -> RobotModel:
        """Load a shipped robot by the names of arm and tool, or any other by the path of its YAML description.

        Raises:
            BadInput: the description is missing or does not fit its URDF.
        """
        description = read_description(name_or_path)
        path, text = description.path, description.fields
        try:
            tip_link = str(text["tip_link"])
            home_of, posture_of = _numbers(text["home"]), _numbers(text.get("posture", {}))
            near, far = (_number(radius) for radius in text["reach_m"])
            gripper_s, link_clearance_m = (_number(text.get(name, 0.0)) for name in ("gripper_s", "link_clearance_m"))
            apart = frozenset(frozenset(map(str, pair)) for pair in text.get("disable_collisions", ()))
            package_dirs = tuple(str(path.parent / str(folder)) for folder in text.get("package_dirs", ()))
            named_fingers = tuple(map(str, text.get("finger_joints", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"robot description {path} has a missing or wrong field ({error}); compare {ROBOTS}/panda.yaml"
            ) from error
        spin = str(text.get("spin", "none"))
        if spin not in get_args(Spin):
            raise BadInput(f"{path}: spin {spin!r} is unknown; choose one of {', '.join(get_args(Spin))}")
        model = whole_model(description.urdf)
        strangers = sorted(set(named_fingers) - set(model.names))
        if strangers:
            raise BadInput(f"{path}: finger_joints name {strangers}, the URDF has {list(model.names)[1:]}")
        fingers = [
            index
            for index, joint in enumerate(model.joints)
            if "JointModelP" in joint.shortname() or model.names[index] in named_fingers
        ]
        finger_joints = tuple(model.names[index] for index in fingers)
        if fingers:
            model = pin.buildReducedModel(model, fingers, pin.neutral(model))
        joints = tuple(list(model.names)[1:])
        axes = _axes_of(model, path)
        if not model.existFrame(tip_link):
            raise BadInput(f"{path}: the URDF has no link {tip_link!r}; correct `tip_link`")
        if set(home_of) != set(joints):
            raise BadInput(f"{path}: home names {sorted(home_of)}, the URDF has {sorted(joints)}; give each joint once")
        if not (set(posture_of) <= set(joints) and 0 <= near < far and gripper_s >= 0):
            raise BadInput(
                f"{path}: posture names the URDF's joints, reach_m rises, gripper_s is no less than 0; correct it"
            )
        tip = model.getFrameId(tip_link)
        placement = model.frames[tip].placement
        to_tip = axes[-1].T @ placement.translation, axes[-1].T @ placement.rotation
        on_axis = np.abs(to_tip[0][:2]).max() < 1e-9 and to_tip[1][2, 2] > 1 - 1e-12
        if spin != "none" and not (on_axis and model.frames[tip].parentJoint == len(joints)):
            raise BadInput(f"{path}: spin {spin} needs {tip_link!r} on the last joint's axis; set it to none")
        entries = []
        if "joint_limits_file" in text:
            limits_file = path.parent / str(text["joint_limits_file"])
            entries.append((str(limits_file), read_limits_file(limits_file)))
        entries.append((str(path), dict(text.get("joint_limits", {}))))
        velocity = np.array(model.velocityLimit, float).ravel()
        velocity[velocity >= ENDLESS_RAD_S] = np.inf
        limits = read_limits(
            joints,
            np.array(model.lowerPositionLimit),
            np.array(model.upperPositionLimit),
            velocity,
            entries,
            finger_joints,
        )
        home = np.array([home_of[joint] for joint in joints])
        for joint, angle, low, high in zip(joints, home, limits.lower, limits.upper, strict=True):
            if not low <= angle <= high:
                raise BadInput(f"{path}: home of {joint} is {angle:g} rad, outside its limits {low:g} to {high:g}")
        return cls(
            name=description.name,
            tool=description.tool,
            urdf=description.urdf,
            joint_names=joints,
            tip_link=tip_link,
            home=home,
            limits=limits,
            posture=np.array([posture_of.get(joint, 0.0) for joint in joints]),
            spin=cast(Spin, spin),
            finger_joints=finger_joints,
            gripper_s=gripper_s,
            reach_m=(near, far),
            link_clearance_m=link_clearance_m,
            package_dirs=package_dirs,
            apart=apart,
            kinematics=model,
            tip_frame=tip,
            _data=model.createData(),
            _axes=axes,
        )

    def forward(self, q: Vector) -> Matrix:
        """Tip pose (4, 4) in the base frame at joint position (J,)."""
        pin.forwardKinematics(self.kinematics, self._data, q)
        return np.array(pin.updateFramePlacement(self.kinematics, self._data, self.tip_frame).homogeneous)

    def jacobian(self, q: Vector) -> Matrix:
        """(6, J): tip velocity (linear, then angular, both in the tip's own frame) a unit joint velocity."""
        return np.array(pin.computeFrameJacobian(self.kinematics, self._data, q, self.tip_frame, pin.LOCAL)).reshape(
            6, -1
        )

    def inverse(self, T: FloatArray, seed_q: Vector) -> Vector:
        """Joint position (J,) whose tip pose is T (4, 4), continued from the seed (J,) where it can be.

        Raises:
            Refused: rule `unreachable`, no position within the limits has that tip pose.
        """
        from embodied_vision.control.inverse import solve_pose

        return solve_pose(self, T, seed_q)

    def joint_frames(self, q: Matrix) -> tuple[Matrix, Matrix]:
        """Rotations (N, J, 3, 3) and origins (N, J, 3) of the joints' moving frames in the base frame for q (N, J)."""
        rotation = np.broadcast_to(np.eye(3), (len(q), 3, 3))
        origin = np.zeros((len(q), 3))
        cos, sin = np.cos(q), np.sin(q)
        rotations, origins = [], []
        for index, placement in enumerate(list(self.kinematics.jointPlacements)[1:]):
            axis = self._axes[index]
            origin = origin + rotation @ placement.translation
            rotation = rotation @ (placement.rotation @ axis)
            c, s = cos[:, index, None], sin[:, index, None]
            x, y = rotation[:, :, 0], rotation[:, :, 1]
            rotation = np.stack([c * x + s * y, c * y - s * x, rotation[:, :, 2]], axis=2) @ axis.T
            origins.append(origin)
            rotations.append(rotation)
        return np.stack(rotations, axis=1), np.stack(origins, axis=1)

    def tip_positions(self, rotations: Matrix, origins: Matrix) -> Matrix:
        """Tip positions (N, 3) in the base frame for what `joint_frames` returned."""
        return origins[:, -1] + rotations[:, -1] @ self.kinematics.frames[self.tip_frame].placement.translation

    def link_positions(self, q: Matrix) -> Matrix:
        """(N, J + 1, 3): origins of the joint frames and, last, the tip in the base frame for q (N, J)."""
        rotations, origins = self.joint_frames(q)
        return np.concatenate([origins, self.tip_positions(rotations, origins)[:, None]], axis=1)


def whole_model(urdf: str) -> Any:
    """Pinocchio's model of a URDF with all its joints; continuous joints turn `ENDLESS_RAD` either way.

    Raises:
        BadInput: it is no valid URDF.
    """
    robot = ElementTree.fromstring(urdf)
    for joint in robot.iter("joint"):
        if joint.get("type") == "continuous":
            joint.set("type", "revolute")
            limit = joint.find("limit")
            if limit is None:
                limit = ElementTree.SubElement(joint, "limit", effort="0", velocity=repr(ENDLESS_RAD_S))
            limit.set("lower", repr(-ENDLESS_RAD))
            limit.set("upper", repr(ENDLESS_RAD))
    try:
        return pin.buildModelFromXML(ElementTree.tostring(robot, encoding="unicode"))
    except ValueError as error:
        raise BadInput(
            f"the URDF of {robot.get('name')!r} cannot be used: {error}; `check_urdf` tells where"
        ) from error


def _axes_of(model: Any, path: Path) -> tuple[Matrix, ...]:
    """Rotations (3, 3) of each joint's frame that lay z along the axis it turns about.

    Raises:
        BadInput: the joints are no chain, or one of them does not turn.
    """
    if list(model.parents)[1:] != list(range(len(model.parents) - 1)):
        raise BadInput(
            f"{path}: the joints {list(model.names)[1:]} branch; name those of the tool in `finger_joints`, "
            "and describe one arm a file"
        )
    data = model.createData()
    pin.computeJointJacobians(model, data, pin.neutral(model))
    axes = []
    for index, joint in enumerate(list(model.joints)[1:], start=1):
        motion = pin.getJointJacobian(model, data, index, pin.LOCAL).reshape(6, -1)[:, index - 1]
        if joint.nq != 1 or np.abs(motion[:3]).max() > 1e-12:
            raise BadInput(
                f"{path}: joint {model.names[index]} is of kind {joint.shortname()}; an arm's joints turn, "
                "and a tool's are named in `finger_joints`"
            )
        axes.append(_lay_z_along(motion[3:]))
    return tuple(axes)


def _lay_z_along(axis: Vector) -> Matrix:
    """The smallest rotation (3, 3) that turns z to a unit vector."""
    if axis[2] < -1 + 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    x, y, z = axis
    return np.eye(3) + (cross := np.array([[0, 0, x], [0, 0, y], [-x, -y, 0]])) + cross @ cross / (1 + z)

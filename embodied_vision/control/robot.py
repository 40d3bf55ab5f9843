"""The arm's kinematics: names, limits, home, forward and inverse kinematics of the tool tip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from embodied_vision.control.description import ROBOTS, read_description
from embodied_vision.control.limits import JointLimits, Vector, read_limits
from embodied_vision.errors import BadInput
from embodied_vision.types import FloatArray

Matrix = NDArray[np.float64]
Spin = Literal["any", "half", "none"]


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
        finger_joints: names of the tool's sliding joints; kinematics take them as fixed.
        gripper_s: least time given to the tool to close or to open.
        reach_m: least and greatest horizontal distance from the base's axis at which the tool, held straight
            down, works at every height from the table to the height of travel. Scenes are made within it.
        link_clearance_m: least height of elbow and wrist frames above the table.
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
    _model: Any
    _data: Any
    _tip: int

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
            home_of = dict(text["home"])
            entries = dict(text["joint_limits"])
            near, far = (float(radius) for radius in text["reach_m"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"robot description {path} has a missing or wrong field ({error}); compare {ROBOTS}/panda.yaml"
            ) from error
        spin = str(text.get("spin", "none"))
        if spin not in get_args(Spin):
            raise BadInput(f"{path}: spin {spin!r} is unknown; choose one of {', '.join(get_args(Spin))}")
        model = pin.buildModelFromXML(description.urdf)
        fingers = [index for index, joint in enumerate(model.joints) if "JointModelP" in joint.shortname()]
        finger_joints = tuple(model.names[index] for index in fingers)
        if fingers:
            model = pin.buildReducedModel(model, fingers, pin.neutral(model))
        kinds = {joint.shortname() for joint in list(model.joints)[1:]}
        if kinds != {"JointModelRZ"}:
            raise BadInput(
                f"{path}: joints of kind {sorted(kinds)}; only revolute joints about their z axis are handled"
            )
        joints = tuple(list(model.names)[1:])
        if not model.existFrame(tip_link):
            raise BadInput(f"{path}: the URDF has no link {tip_link!r}; correct `tip_link`")
        if set(home_of) != set(joints):
            raise BadInput(f"{path}: home names {sorted(home_of)}, the URDF has {sorted(joints)}; give each joint once")
        posture_of = text.get("posture", {})
        tip = model.getFrameId(tip_link)
        placement = model.frames[tip].placement
        on_axis = np.abs(placement.translation[:2]).max() < 1e-9 and placement.rotation[2, 2] > 1 - 1e-12
        if spin != "none" and not (on_axis and model.frames[tip].parentJoint == len(joints)):
            raise BadInput(f"{path}: spin {spin} needs {tip_link!r} on the last joint's axis; set it to none")
        return cls(
            name=description.name,
            tool=description.tool,
            urdf=description.urdf,
            joint_names=joints,
            tip_link=tip_link,
            home=np.array([float(home_of[j]) for j in joints]),
            limits=read_limits(
                joints,
                np.array(model.lowerPositionLimit),
                np.array(model.upperPositionLimit),
                np.array(model.velocityLimit).ravel(),
                entries,
            ),
            posture=np.array([float(posture_of.get(j, 0.0)) for j in joints]),
            spin=cast(Spin, spin),
            finger_joints=finger_joints,
            gripper_s=float(text.get("gripper_s", 0.0)),
            reach_m=(near, far),
            link_clearance_m=float(text.get("link_clearance_m", 0.0)),
            _model=model,
            _data=model.createData(),
            _tip=tip,
        )

    def forward(self, q: Vector) -> Matrix:
        """Tip pose (4, 4) in the base frame at joint position (J,)."""
        pin.forwardKinematics(self._model, self._data, q)
        return np.array(pin.updateFramePlacement(self._model, self._data, self._tip).homogeneous)

    def jacobian(self, q: Vector) -> Matrix:
        """(6, J): tip velocity (linear, then angular, both in the tip's own frame) a unit joint velocity."""
        return np.array(pin.computeFrameJacobian(self._model, self._data, q, self._tip, pin.LOCAL))

    def inverse(self, T: FloatArray, seed_q: Vector) -> Vector:
        """Joint position (J,) whose tip pose is T (4, 4), continued from the seed (J,) where it can be.

        Raises:
            Refused: rule `unreachable`, no position within the limits has that tip pose.
        """
        from embodied_vision.control.inverse import solve_pose

        return solve_pose(self, T, seed_q)

    def link_positions(self, q: Matrix) -> Matrix:
        """(N, J + 1, 3): origins of the joint frames and, last, the tip in the base frame for q (N, J)."""
        rotation = np.broadcast_to(np.eye(3), (len(q), 3, 3))
        origin = np.zeros((len(q), 3))
        cos, sin = np.cos(q), np.sin(q)
        origins = []
        for index, placement in enumerate(list(self._model.jointPlacements)[1:]):
            origin = origin + rotation @ placement.translation
            origins.append(origin)
            rotation = rotation @ placement.rotation
            c, s = cos[:, index, None], sin[:, index, None]
            x, y = rotation[:, :, 0], rotation[:, :, 1]
            rotation = np.stack([c * x + s * y, c * y - s * x, rotation[:, :, 2]], axis=2)
        origins.append(origin + rotation @ self._model.frames[self._tip].placement.translation)
        return np.stack(origins, axis=1)

"""The simulated arm: position-controlled joints that follow sampled trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import NamedTemporaryFile

import numpy as np
import pybullet
from numpy.typing import NDArray

from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import BadInput
from embodied_vision.types import FloatArray
from embodied_vision_sim.rounding import JOINT_STEP, VELOCITY_STEP, rounded

POSITION_GAIN = 0.2
VELOCITY_GAIN = 1.0


class Arm:
    """The arm of a robot model in one PyBullet client, standing at its home pose.

    Attributes:
        body: PyBullet body id.
        model: kinematics and limits that the URDF was loaded with.
        links: link indices by name.
        tip_link: link index of the tool's tip.
    """

    def __init__(self, client: int, model: RobotModel) -> None:
        self._client = client
        self.model = model
        with NamedTemporaryFile("w", suffix=".urdf", encoding="utf-8") as file:
            file.write(model.urdf)
            file.flush()
            self.body: int = pybullet.loadURDF(
                file.name, useFixedBase=True, flags=pybullet.URDF_USE_INERTIA_FROM_FILE, physicsClientId=client
            )
        self.links: dict[str, int] = {}
        joints: dict[str, int] = {}
        for index in range(pybullet.getNumJoints(self.body, physicsClientId=client)):
            info = pybullet.getJointInfo(self.body, index, physicsClientId=client)
            joints[info[1].decode()] = index
            self.links[info[12].decode()] = index
        self._joints = [joints[name] for name in model.joint_names]
        self._effort_limits = [
            pybullet.getJointInfo(self.body, joint, physicsClientId=client)[10] for joint in self._joints
        ]
        # PyBullet keeps one limit a body: no joint outruns the fastest one, whatever is commanded.
        fastest = float(np.max(model.limits.velocity))
        pybullet.changeDynamics(self.body, -1, maxJointVelocity=fastest, physicsClientId=client)
        self.tip_link = self.links[model.tip_link]
        self.place(np.asarray(model.home, float))

    def place(self, q: FloatArray, qd: FloatArray | None = None) -> None:
        """Put the joints (J,) in rad at `q` at once, at rest or with velocities (J,) in rad/s, and hold them there."""
        q = rounded(q, JOINT_STEP)
        qd = np.zeros_like(q) if qd is None else rounded(qd, VELOCITY_STEP)
        for joint, value, velocity in zip(self._joints, q.tolist(), qd.tolist(), strict=True):
            pybullet.resetJointState(self.body, joint, value, velocity, physicsClientId=self._client)
        self.set_targets(q, qd)

    def set_targets(self, q: FloatArray, qd: FloatArray) -> None:
        """Follow positions (J,) in rad with velocities (J,) in rad/s from the next step on.

        Raises:
            BadInput: wrong length or non-finite values.
        """
        for _ in self.follow(np.asarray(q)[None], np.asarray(qd)[None]):
            pass

    def follow(self, q: FloatArray, qd: FloatArray) -> Iterator[None]:
        """Set targets (N, J) in rad and rad/s, one row each time before it yields.

        Raises:
            BadInput: wrong length or non-finite values, before anything is set.
        """
        size = len(self._joints)
        if q.shape[1:] != (size,) or qd.shape != q.shape or not (np.isfinite(q).all() and np.isfinite(qd).all()):
            raise BadInput(
                f"joint targets {q} with velocities {qd} are not {size} finite numbers each; send all joints"
            )
        gains, speed_gains = [POSITION_GAIN] * size, [VELOCITY_GAIN] * size
        for positions, velocities in zip(
            rounded(q, JOINT_STEP).tolist(), rounded(qd, VELOCITY_STEP).tolist(), strict=True
        ):
            pybullet.setJointMotorControlArray(
                self.body,
                self._joints,
                pybullet.POSITION_CONTROL,
                targetPositions=positions,
                targetVelocities=velocities,
                forces=self._effort_limits,
                positionGains=gains,
                velocityGains=speed_gains,
                physicsClientId=self._client,
            )
            yield

    def state(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Positions in rad, velocities in rad/s and motor efforts in Nm, each (J,)."""
        states = pybullet.getJointStates(self.body, self._joints, physicsClientId=self._client)
        q, qd, _, effort = zip(*states, strict=True)
        return np.array(q), np.array(qd), np.array(effort)

    def tip_pose(self) -> FloatArray:
        """Pose (4, 4) of the tool's tip in the base frame, z out of the tool."""
        state = pybullet.getLinkState(
            self.body, self.tip_link, computeForwardKinematics=True, physicsClientId=self._client
        )
        pose = np.eye(4)
        pose[:3, :3] = np.reshape(pybullet.getMatrixFromQuaternion(state[5]), (3, 3))
        pose[:3, 3] = state[4]
        return pose

"""A suction cup: a rigid seal between cup and object, made within millimetres, lost when pulled off or sheared off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pybullet

from embodied_vision_sim.robot import Arm

REACH_M = 0.005
SEAL_FORCE_N = 25.0
"""What a cup of 2 cm across holds at a vacuum of 80 kPa."""
STIFFNESS_N_M = 1000.0
DAMPING_N_S_M = 30.0
OBJECT_GROUP = 2
"""Collision filter group of everything that a cup may touch; the arm itself is in group 1."""


class Suction:
    """The cup at an arm's tip.

    Attributes:
        on: whether the vacuum is on.
        holding: body id of the object held, or None.
    """

    def __init__(self, client: int, arm: Arm, can_hold: Callable[[int], bool]) -> None:
        self._client = client
        self._arm = arm
        self._can_hold = can_hold
        self._constraint = -1
        # The bellows gives way instead of hammering on what it touches.
        pybullet.changeDynamics(
            arm.body,
            arm.links["suction"],
            contactStiffness=STIFFNESS_N_M,
            contactDamping=DAMPING_N_S_M,
            physicsClientId=client,
        )
        self.on = False
        self.holding: int | None = None

    def set(self, opening: float) -> None:
        """Suck below ½, let go at once from there on."""
        self.on = opening < 0.5
        if not self.on:
            self._release()

    def update(self) -> None:
        """Once after every physics step: seal on what the cup touches, break where the load is too high."""
        if self.holding is not None:
            x, y, z = pybullet.getConstraintState(self._constraint, physicsClientId=self._client)[:3]
            # Along the tool's axis what hangs pulls with −z; what presses on the cup does not open it.
            if np.hypot(np.hypot(x, y), max(0.0, -z)) > SEAL_FORCE_N:
                self._release()
                self.on = False
        elif self.on:
            touched = self._touched()
            if touched is not None:
                self._hold(touched)

    def _touched(self) -> int | None:
        tip = self._arm.tip_pose()
        start, end = tip[:3, 3] - REACH_M * tip[:3, 2], tip[:3, 3] + REACH_M * tip[:3, 2]
        ((body, _, _, _, _),) = pybullet.rayTestBatch(
            [start.tolist()], [end.tolist()], collisionFilterMask=OBJECT_GROUP, physicsClientId=self._client
        )
        return body if body >= 0 and self._can_hold(body) else None

    def _hold(self, body: int) -> None:
        link = pybullet.getLinkState(
            self._arm.body, self._arm.tip_link, computeForwardKinematics=True, physicsClientId=self._client
        )
        to_tip = pybullet.invertTransform(link[0], link[1])
        pose = pybullet.getBasePositionAndOrientation(body, physicsClientId=self._client)
        position, orientation = pybullet.multiplyTransforms(*to_tip, *pose)
        self._constraint = pybullet.createConstraint(
            parentBodyUniqueId=self._arm.body,
            parentLinkIndex=self._arm.tip_link,
            childBodyUniqueId=body,
            childLinkIndex=-1,
            jointType=pybullet.JOINT_FIXED,
            jointAxis=(0, 0, 0),
            parentFramePosition=position,
            parentFrameOrientation=orientation,
            childFramePosition=(0, 0, 0),
            physicsClientId=self._client,
        )
        self._set_contact(body, False)
        self.holding = body

    def _release(self) -> None:
        if self.holding is None:
            return
        pybullet.removeConstraint(self._constraint, physicsClientId=self._client)
        self._set_contact(self.holding, True)
        self._constraint, self.holding = -1, None

    def _set_contact(self, body: int, enabled: bool) -> None:
        # A held object belongs to the cup: contacts between the two would fight the seal.
        for link in range(-1, self._arm.tip_link + 1):
            pybullet.setCollisionFilterPair(self._arm.body, body, link, -1, int(enabled), physicsClientId=self._client)

"""A parallel-jaw gripper: two force-limited fingers that hold by friction alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pybullet
from numpy.typing import NDArray

from embodied_vision_sim.robot import Arm

FINGERS = ("left_finger", "right_finger")
FORCE_N = 20.0
"""With which each finger presses at most."""
SPEED_M_S = 0.2
COUPLING_N = 500.0
"""What the gear between the fingers transmits: they stay symmetric whatever one of them runs into."""
FRICTION, SPIN_FRICTION_M, ROLL_FRICTION_M = 1.25, 0.02, 0.002
"""Rubber pads. A finger touches along an area, which resists turning; a contact point alone would not."""
ARM_GROUP, ALL_GROUPS = 1, 0xFF


class ParallelJaw:
    """The two fingers at an arm's tip.

    Nothing is ever attached: an object is held by contact and friction with both fingers, and slips when the load
    is too high.

    Attributes:
        stroke_m: greatest distance between the fingers.
        finger_m: edges (3,) of a finger in the tip's axes: width, thickness, length.
        palm_m: edges (2,) of the palm above the fingers, along the tip's x and y.
    """

    def __init__(self, client: int, arm: Arm, can_hold: Callable[[int], bool]) -> None:
        self._client = client
        self._body = arm.body
        self._can_hold = can_hold
        links: dict[str, int] = {}
        travel: dict[str, float] = {}
        for index in range(pybullet.getNumJoints(arm.body, physicsClientId=client)):
            info = pybullet.getJointInfo(arm.body, index, physicsClientId=client)
            links[info[12].decode()], travel[info[12].decode()] = index, float(info[9])
        self._fingers = [links[name] for name in FINGERS]
        self._travel_m = travel[FINGERS[0]]
        self.stroke_m = 2 * self._travel_m
        self.finger_m = self._edges(self._fingers[0])
        self.palm_m = self._edges(links["palm"])[:2]
        for finger in self._fingers:
            pybullet.changeDynamics(
                arm.body,
                finger,
                lateralFriction=FRICTION,
                spinningFriction=SPIN_FRICTION_M,
                rollingFriction=ROLL_FRICTION_M,
                physicsClientId=client,
            )
            pybullet.resetJointState(arm.body, finger, self._travel_m, 0.0, physicsClientId=client)
        gear = pybullet.createConstraint(
            arm.body,
            self._fingers[0],
            arm.body,
            self._fingers[1],
            jointType=pybullet.JOINT_GEAR,
            jointAxis=(0, 1, 0),
            parentFramePosition=(0, 0, 0),
            childFramePosition=(0, 0, 0),
            physicsClientId=client,
        )
        pybullet.changeConstraint(gear, gearRatio=-1, erp=0.2, maxForce=COUPLING_N, physicsClientId=client)
        self.set(1.0)

    def set(self, opening: float) -> None:
        """Drive the fingers to a share of the stroke, 0 closed … 1 open, until they get there or press on something."""
        closing = opening < 0.5
        for finger in self._fingers:
            # Anchors keep what is held from creeping by millimetres, as a solver's friction does; on fingers that
            # open, old contacts would stick, so they are forgotten: a new filter makes PyBullet find them afresh.
            pybullet.changeDynamics(self._body, finger, frictionAnchor=int(closing), physicsClientId=self._client)
            if not closing:
                pybullet.setCollisionFilterGroupMask(
                    self._body, finger, ARM_GROUP, ALL_GROUPS, physicsClientId=self._client
                )
            pybullet.setJointMotorControl2(
                self._body,
                finger,
                pybullet.POSITION_CONTROL,
                targetPosition=min(max(opening, 0.0), 1.0) * self._travel_m,
                force=FORCE_N,
                maxVelocity=SPEED_M_S,
                physicsClientId=self._client,
            )

    def update(self) -> None:
        """Nothing to do after a physics step: the motors run on."""

    @property
    def width_m(self) -> float:
        """Distance between the fingers."""
        states = pybullet.getJointStates(self._body, self._fingers, physicsClientId=self._client)
        return float(sum(state[0] for state in states))

    @property
    def holding(self) -> int | None:
        """Body id of the object that touches both fingers, or None."""
        touched = [
            {
                point[2]
                for point in pybullet.getContactPoints(
                    bodyA=self._body, linkIndexA=finger, physicsClientId=self._client
                )
            }
            for finger in self._fingers
        ]
        return min((body for body in touched[0] & touched[1] if self._can_hold(body)), default=None)

    def _edges(self, link: int) -> NDArray[np.float64]:
        ((_, _, _, edges, *_),) = pybullet.getCollisionShapeData(self._body, link, physicsClientId=self._client)
        return np.array(edges)

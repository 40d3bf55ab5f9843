"""Whether an arm on its path comes too near to itself or to a keep-out box: exact distances, nothing missed between.

Along the path no point of the arm moves farther between two positions than the sum over joints of turn times reach. So
where a position has a distance, the path is clear for as long as it has not moved that far, and the next distance is
taken there (conservative advancement; Mirtich, "Impulse-based dynamic simulation of rigid body systems", 1996).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import coal
import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from embodied_vision.control.bodies import Body, read_bodies
from embodied_vision.control.limits import Vector
from embodied_vision.control.robot import Matrix, RobotModel
from embodied_vision.control.surroundings import KeepOut
from embodied_vision.errors import BadInput


@dataclass(frozen=True)
class Contact:
    """Two things nearer to each other than they may be.

    Attributes:
        sample: index of the position on the path.
        first: link of the arm.
        second: another link, or the name of a keep-out.
        with_keep_out: whether `second` is a keep-out.
        distance_m: between them; negative where they overlap.
        needed_m: what the distance had to be there, for the path's step included.
    """

    sample: int
    first: str
    second: str
    with_keep_out: bool
    distance_m: float
    needed_m: float


class ContactCheck:
    """Distances between the parts of an arm and to keep-outs. Holds scratch memory: one instance a thread.

    Attributes:
        bodies: the arm's parts.
        reach_m: (J,) no point that a joint moves is farther from its axis, whatever the others do.
    """

    def __init__(self, model: RobotModel, clearance_m: float, keep_out: Sequence[KeepOut] = ()) -> None:
        """Set up the pairs that are checked: all bodies against keep-outs, and those of links that are neither
        neighbours on the chain nor in `model.apart` against each other.

        Raises:
            BadInput: at home the arm is nearer to itself than `clearance_m`, or `model.apart` names a link that has
                no body.
        """
        self._clearance_m = clearance_m
        self.bodies = read_bodies(model)
        self.reach_m = _reaches(model, self.bodies)
        self._geometry = pin.GeometryModel()
        self._pairs: list[tuple[str, str, bool]] = []
        strangers = sorted(set().union(*model.apart) - {body.link for body in self.bodies})
        if strangers:
            raise BadInput(f"disable_collisions of {model.name} names {strangers}; there are no such links with bodies")
        arm = [self._add(body.link, body.joint, body.shape, body.placement) for body in self.bodies]
        for i, one in enumerate(self.bodies):
            for k, other in enumerate(self.bodies[:i]):
                if abs(one.joint - other.joint) > 1 and frozenset((one.link, other.link)) not in model.apart:
                    self._pair(arm[i], arm[k], (one.link, other.link, False))
        for box in keep_out:
            number = self._add(box.name, 0, coal.Box(*box.size), box.pose)
            for i, one in enumerate(self.bodies):
                if one.joint > 0:
                    self._pair(arm[i], number, (one.link, box.name, True))
        self._kinematics = model.kinematics
        self._data = self._kinematics.createData()
        self._distances = pin.GeometryData(self._geometry)
        at_home, (first, second, with_keep_out) = self.nearest(model.home)
        if at_home <= clearance_m and not with_keep_out:
            raise BadInput(
                f"{first} and {second} of {model.name} are {at_home:.4f} m apart at home, the guard wants "
                f"{clearance_m} m; correct their collision shapes or home, or name the pair in `disable_collisions` of "
                "the robot's file if the true arm keeps them apart"
            )

    def nearest(self, q: Vector) -> tuple[float, tuple[str, str, bool]]:
        """Least distance, m, at q (J,), negative where parts overlap, and which pair has it: link, other, keep-out?"""
        if not self._pairs:
            return np.inf, ("", "", False)
        pin.updateGeometryPlacements(self._kinematics, self._data, self._geometry, self._distances, q)
        pair = int(pin.computeDistances(self._geometry, self._distances))
        return float(self._distances.distanceResults[pair].min_distance), self._pairs[pair]

    def travel(self, q: Matrix, stray: Vector) -> NDArray[np.float64]:
        """(N - 1,) m: no point of the arm moves farther between neighbouring positions of q (N, J).

        Args:
            q: positions along the path.
            stray: (N - 1, J) or (J,), how far the path may leave the straight line between them, rad.
        """
        return (np.abs(np.diff(q, axis=0)) + 2 * stray) @ self.reach_m

    def first(self, q: Matrix, stray: Vector) -> Contact | None:
        """The first position on a path q (N, J) where something is nearer than it may be; arguments as `travel`."""
        clearance_m = self._clearance_m
        if not self._pairs:
            return None
        gone = np.concatenate([[0.0], np.cumsum(self.travel(q, stray))])
        at = 0
        distance, pair = self.nearest(q[0])
        needed = clearance_m
        while distance > needed and at < len(q) - 1:
            clear_to = int(np.searchsorted(gone, gone[at] + distance - clearance_m, side="right")) - 1
            following = min(max(clear_to, at + 1), len(q) - 1)
            former, (distance, pair) = distance, self.nearest(q[following])
            # A step longer than the distance before it is clear if the distances at both ends cover it.
            step = float(gone[following] - gone[at])
            needed = clearance_m if clear_to > at else max(clearance_m, step + 2 * clearance_m - former)
            at = following
        return None if distance > needed else Contact(at, *pair, distance, needed)

    def _add(self, name: str, joint: int, shape: object, pose: Matrix) -> int:
        label = f"{name} {self._geometry.ngeoms}"
        placed = pin.GeometryObject(label, joint, pin.SE3(np.asarray(pose, float)), shape)
        return int(self._geometry.addGeometryObject(placed))

    def _pair(self, one: int, other: int, names: tuple[str, str, bool]) -> None:
        self._geometry.addCollisionPair(pin.CollisionPair(one, other))
        self._pairs.append(names)


def _reaches(model: RobotModel, bodies: Sequence[Body]) -> Vector:
    """(J,) greatest distance of any point that a joint moves from the joint's origin, falling along the chain."""
    reach = np.zeros(len(model.joint_names) + 1)
    offsets = [float(np.linalg.norm(placement.translation)) for placement in model.kinematics.jointPlacements]
    tip = float(np.linalg.norm(model.kinematics.frames[model.tip_frame].placement.translation))
    for number in range(len(model.joint_names), 0, -1):
        own = [body.extent_m for body in bodies if body.joint == number]
        beyond = tip if number == len(model.joint_names) else offsets[number + 1] + reach[number + 1]
        reach[number] = max([beyond, *own])
    return reach[1:]

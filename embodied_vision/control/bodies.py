"""The solid parts of an arm and its tool, from the `<collision>` elements of the URDF.

Boxes, cylinders and spheres stay what they are; a mesh becomes its convex hull. What sits on a joint of the tool
becomes the hull of all its places between open and closed, so that the gripper's state need not be known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import coal
import numpy as np
import pinocchio as pin
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from embodied_vision.control.limits import Vector
from embodied_vision.control.robot import Matrix, RobotModel, whole_model
from embodied_vision.errors import BadInput

CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
PRISM_SIDES = 16
"""Sides of the prism around a cylinder that sits on a joint of the tool."""
FLAT_M = 1e-4
"""Half the thickness that is given to what is flat."""
FINGER_STEPS = 17
"""Places of a tool's joint between its limits whose hull stands for all of them."""


@dataclass(frozen=True, eq=False)
class Body:
    """A convex solid that moves with one joint.

    It is the convex hull of its points, each grown to a disc about `axis` and then to a ball.

    Attributes:
        link: that it belongs to.
        joint: number of the joint that it moves with, from 1; 0 is the base.
        shape: for distances, in a frame of its own.
        placement: (4, 4), of that frame in the joint's.
        points: (V, 3) in the joint's frame.
        axis: (3,) unit vector, normal of the discs in the joint's frame.
        disc_m, ball_m: radii.
    """

    link: str
    joint: int
    shape: Any
    placement: Matrix
    points: Matrix
    axis: Vector
    disc_m: float = 0.0
    ball_m: float = 0.0

    @property
    def extent_m(self) -> float:
        """No point of it is farther from the joint's origin."""
        return float(np.linalg.norm(self.points, axis=1).max()) + self.disc_m + self.ball_m

    def lowest(self, rotations: Matrix, origins: Matrix) -> NDArray[np.float64]:
        """Height (N,) of its lowest point for rotations (N, 3, 3) and origins (N, 3) of its joint's frame."""
        up = rotations[:, 2]
        slant = 1.0 - np.square(up @ self.axis)
        rim = self.disc_m * np.sqrt(np.maximum(slant, 0.0)) + self.ball_m
        return (up @ self.points.T).min(axis=1) + origins[:, 2] - rim


def read_bodies(model: RobotModel) -> tuple[Body, ...]:
    """All solid parts of a robot, base included. Links without `<collision>` have none.

    Raises:
        BadInput: a mesh is not found, or a shape is of a kind that is not known.
    """
    whole = whole_model(model.urdf)
    try:
        geometry = pin.buildGeomFromUrdfString(
            whole, model.urdf, pin.GeometryType.COLLISION, package_dirs=list(model.package_dirs)
        )
    except ValueError as error:
        raise BadInput(
            f"collision shapes of {model.name}: {error}; name the folder that holds the package in `package_dirs`"
        ) from error
    wanted = sum(len(link.findall("collision")) for link in ElementTree.fromstring(model.urdf).iter("link"))
    if len(geometry.geometryObjects) != wanted:
        raise BadInput(
            f"the URDF of {model.name} has {wanted} <collision> elements, {len(geometry.geometryObjects)} can be read; "
            "use boxes, cylinders, spheres and meshes"
        )
    return tuple(_body(model, whole, part) for part in geometry.geometryObjects)


def links_without_bodies(model: RobotModel, bodies: tuple[Body, ...]) -> tuple[str, ...]:
    """Names of links that look like something but have no `<collision>`: nothing can be checked for them."""
    solid = {body.link for body in bodies}
    links = ElementTree.fromstring(model.urdf).iter("link")
    return tuple(
        name for link in links if link.find("visual") is not None and (name := str(link.get("name"))) not in solid
    )


def _body(model: RobotModel, whole: Any, part: Any) -> Body:
    link = whole.frames[part.parentFrame].name
    joint = part.parentJoint
    while whole.names[joint] in model.finger_joints:
        joint = whole.parents[joint]
    number = model.joint_names.index(whole.names[joint]) + 1 if joint else 0
    if joint != part.parentJoint:
        return _swept(model, whole, part, joint, link, number)
    place = part.placement.homogeneous
    points, disc_m, ball_m = _points(part.geometry, link)
    shape = part.geometry if disc_m or ball_m or isinstance(part.geometry, coal.Box) else _hull(points)
    points = points @ place[:3, :3].T + place[:3, 3]
    return Body(link, number, shape, place, points, place[:3, 2], disc_m, ball_m)


def _swept(model: RobotModel, whole: Any, part: Any, joint: int, link: str, number: int) -> Body:
    """The hull of a part of the tool over the stroke of the tool's joints, in the frame of the carrying joint."""
    points, disc_m, ball_m = _points(part.geometry, link)
    if disc_m:
        angles = np.arange(PRISM_SIDES) * (2 * np.pi / PRISM_SIDES)
        radius = disc_m / np.cos(np.pi / PRISM_SIDES)
        rim = radius * np.stack([np.cos(angles), np.sin(angles), np.zeros(PRISM_SIDES)], axis=1)
        points = (points[:, None] + rim).reshape(-1, 3)
    data, low, high = whole.createData(), whole.lowerPositionLimit, whole.upperPositionLimit
    places = []
    for share in np.linspace(0.0, 1.0, FINGER_STEPS):
        q = pin.neutral(whole)
        for name in model.finger_joints:
            index = whole.idx_qs[whole.getJointId(name)]
            q[index] = low[index] + share * (high[index] - low[index])
        pin.forwardKinematics(whole, data, q)
        frame = (data.oMi[joint].inverse() * data.oMi[part.parentJoint] * part.placement).homogeneous
        places.append(points @ frame[:3, :3].T + frame[:3, 3])
    path = np.stack(places)
    # Between two places a point leaves the chord by an eighth of the second difference, if its joint turns.
    bulge = float(np.linalg.norm(np.diff(path, n=2, axis=0), axis=2).max()) / 8
    bulge = bulge if bulge > 1e-9 else 0.0
    swept = _corners(path.reshape(-1, 3))
    shape = _hull(swept)
    shape.setSweptSphereRadius(ball_m + bulge)
    return Body(link, number, shape, np.eye(4), swept, np.array([0.0, 0.0, 1.0]), 0.0, ball_m + bulge)


def _points(shape: Any, link: str) -> tuple[Matrix, float, float]:
    """Points of a shape in its own frame, and the radii of the discs and balls about them, m."""
    if isinstance(shape, coal.Box):
        return CORNERS * shape.halfSide, 0.0, 0.0
    if isinstance(shape, coal.Cylinder):
        return np.array([[0, 0, -shape.halfLength], [0, 0, shape.halfLength]]), float(shape.radius), 0.0
    if isinstance(shape, coal.Sphere):
        return np.zeros((1, 3)), 0.0, float(shape.radius)
    if isinstance(shape, coal.BVHModelOBBRSS):
        return _corners(np.array(shape.vertices(), float)), 0.0, 0.0
    raise BadInput(f"link {link!r} has a collision shape {type(shape).__name__}; use box, cylinder, sphere or mesh")


def _corners(points: Matrix) -> Matrix:
    """The points (V, 3) at the corners of the hull of points (N, 3); a flat one is given a little thickness."""
    try:
        return np.array(points[ConvexHull(points).vertices])
    except QhullError:
        thick = (points[:, None] + FLAT_M * CORNERS).reshape(-1, 3)
        return np.array(thick[ConvexHull(thick).vertices])


def _hull(corners: Matrix) -> Any:
    """Coal's shape of what `_corners` returned: coal itself does not survive flat points."""
    vectors = coal.StdVec_Vec3s()
    for corner in corners:
        vectors.append(corner)
    return coal.Convex.convexHull(vectors, True, "Qt")

"""Parts of the arm are what the URDF draws, and nothing comes too near to them along a path, also between positions."""

from __future__ import annotations

from pathlib import Path

import coal
import numpy as np
import pinocchio as pin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from embodied_vision.control.bodies import Body, links_without_bodies, read_bodies
from embodied_vision.control.contact import ContactCheck
from embodied_vision.control.description import shipped_arms, shipped_tools
from embodied_vision.control.planning import plan_joint
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.surroundings import KeepOut
from embodied_vision.errors import BadInput
from embodied_vision.geometry import tool_down
from tests.control.samples import MODEL
from tests.control.test_robot import write_robot

CLEAR_M = 0.005
ROBOTS = [f"{arm}_{tool}" for arm in shipped_arms() for tool in shipped_tools()]


def box(x: float, y: float, z: float, size: tuple[float, float, float], yaw: float = 0.0) -> KeepOut:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    pose[:3, 3] = x, y, z
    return KeepOut("box", pose, np.array(size))


def surface_points(shape: object, rng: np.random.Generator, count: int = 400) -> np.ndarray:
    """Points (N, 3) on and in a box or cylinder, written without the code that is tested."""
    unit = rng.uniform(-1, 1, (count, 3))
    unit[: count // 2] = np.sign(unit[: count // 2])
    if hasattr(shape, "halfSide"):
        return unit * shape.halfSide
    angle = rng.uniform(0, 2 * np.pi, count)
    round_ = np.stack([np.cos(angle), np.sin(angle)], axis=1) * shape.radius  # type: ignore[attr-defined]
    return np.column_stack([round_, unit[:, 2] * shape.halfLength])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ROBOTS)
def test_bodies_contain_what_is_seen_of_the_arm(name: str) -> None:
    model = RobotModel.load(name)
    bodies = read_bodies(model)
    assert links_without_bodies(model, bodies) == ()
    whole = pin.buildModelFromXML(model.urdf)
    seen = pin.buildGeomFromUrdfString(whole, model.urdf, pin.GeometryType.VISUAL)
    data, places = whole.createData(), pin.GeometryData(seen)
    rng = np.random.default_rng(0)
    q = pin.randomConfiguration(whole)
    arm = q[[whole.idx_qs[whole.getJointId(joint)] for joint in model.joint_names]]
    rotations, origins = model.joint_frames(arm[None])
    pin.updateGeometryPlacements(whole, data, seen, places, q)
    for index, part in enumerate(seen.geometryObjects):
        place = places.oMg[index]
        points = surface_points(part.geometry, rng) @ place.rotation.T + place.translation
        link = whole.frames[part.parentFrame].name
        near = [gaps(body, rotations, origins, points) for body in bodies if body.link == link]
        assert np.min(near, axis=0).max() < 1e-6, link


def gaps(body: Body, rotations: np.ndarray, origins: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far points (N, 3) lie outside of a body, m."""
    frame = np.eye(4)
    if body.joint:
        frame[:3, :3], frame[:3, 3] = rotations[0, body.joint - 1], origins[0, body.joint - 1]
    frame = frame @ body.placement
    place = coal.Transform3s(frame[:3, :3], frame[:3, 3])
    found = []
    for point in points:
        at = coal.Transform3s()
        at.setTranslation(point)
        found.append(
            coal.distance(body.shape, place, coal.Sphere(1e-9), at, coal.DistanceRequest(), coal.DistanceResult())
        )
    return np.array(found)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_the_lowest_point_is_the_lowest_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.uniform(MODEL.limits.lower, MODEL.limits.upper)
    rotations, origins = MODEL.joint_frames(q[None])
    for body in read_bodies(MODEL):
        if body.joint == 0:
            continue
        frame = rotations[0, body.joint - 1], origins[0, body.joint - 1]
        points = surface_points(body.shape, rng, 4000) @ body.placement[:3, :3].T + body.placement[:3, 3]
        found = (points @ frame[0].T + frame[1])[:, 2].min()
        lowest = body.lowest(rotations[:, body.joint - 1], origins[:, body.joint - 1])[0]
        assert lowest - 1e-9 <= found <= lowest + 2e-3


def test_joint_frames_are_pinocchios() -> None:
    rng = np.random.default_rng(3)
    for name in ("panda_suction", "ur5e_suction"):
        model = RobotModel.load(name)
        q = rng.uniform(model.limits.lower, model.limits.upper, (5, len(model.home)))
        rotations, origins = model.joint_frames(q)
        data = model.kinematics.createData()
        for i, each in enumerate(q):
            pin.forwardKinematics(model.kinematics, data, each)
            for joint in range(len(model.home)):
                np.testing.assert_allclose(rotations[i, joint], data.oMi[joint + 1].rotation, atol=1e-12)
                np.testing.assert_allclose(origins[i, joint], data.oMi[joint + 1].translation, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_no_point_moves_farther_than_the_bound_of_travel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check = ContactCheck(MODEL, CLEAR_M)
    q = rng.uniform(MODEL.limits.lower, MODEL.limits.upper)
    path = np.stack([q, q + rng.normal(0, 0.05, 7)])
    rotations, origins = MODEL.joint_frames(path)
    bound = check.travel(path, np.zeros(7))[0]
    for body in check.bodies:
        if body.joint:
            points = (
                np.einsum("nij,vj->nvi", rotations[:, body.joint - 1], body.points) + origins[:, body.joint - 1, None]
            )
            assert np.linalg.norm(points[1] - points[0], axis=1).max() <= bound + 1e-12


def test_a_box_that_the_arm_does_not_reach_is_no_contact() -> None:
    check = ContactCheck(MODEL, CLEAR_M, [box(2.0, 0, 0.5, (0.2, 0.2, 1.0))])
    path = plan_joint(MODEL, MODEL.home, MODEL.inverse(tool_down(0.5, 0.2, 0.1), MODEL.home)).positions
    assert check.first(path, np.zeros(7)) is None


def test_a_thin_plate_between_two_far_positions_is_found() -> None:
    """The plate touches neither of the two positions: only the way between them leads through it."""
    start = MODEL.inverse(tool_down(0.5, -0.2, 0.2), MODEL.home)
    end = start.copy()
    end[0] += 0.8
    plate = box(0.5 * np.cos(0.02), 0.0, 0.2, (0.5, 0.001, 0.3))
    check = ContactCheck(MODEL, CLEAR_M, [plate])
    for q in (start, end):
        assert check.nearest(q)[0] > 0.05
    contact = check.first(np.linspace(start, end, 400), np.zeros(7))
    assert contact is not None
    assert contact.with_keep_out
    coarse = check.first(np.stack([start, end]), np.zeros(7))
    assert coarse is not None, "two positions so far apart cannot be told clear"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_what_is_told_clear_is_clear_at_every_position(seed: int) -> None:
    """Against brute force: every position of a path is looked at."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(-1, 1), rng.uniform(0.35, 0.9)
    keep_out = [
        box(radius * np.cos(angle), radius * np.sin(angle), rng.uniform(0.1, 0.8), tuple(rng.uniform(0.01, 0.3, 3)))
    ]
    check = ContactCheck(MODEL, CLEAR_M, keep_out)
    ends = rng.uniform(MODEL.limits.lower, MODEL.limits.upper, (2, 7))
    path = np.linspace(*ends, 600)
    least = min(check.nearest(q)[0] for q in path)
    contact = check.first(path, np.zeros(7))
    step = check.travel(path, np.zeros(7)).max()
    if contact is None:
        assert least > CLEAR_M
    else:
        assert least <= CLEAR_M + step


def test_an_arm_that_touches_itself_at_home_is_told(tmp_path: Path) -> None:
    model = RobotModel.load(write_robot(tmp_path, disable_collisions=[]))
    folded = ContactCheck(model, CLEAR_M)
    assert folded.nearest(model.home)[0] < 0.03
    with pytest.raises(BadInput, match=r"panda_link\d and panda_link\d .* at home.*disable_collisions"):
        ContactCheck(model, 0.05)


def test_a_pair_of_unknown_links_is_told(tmp_path: Path) -> None:
    model = RobotModel.load(write_robot(tmp_path, disable_collisions=[["panda_link1", "elbow"]]))
    with pytest.raises(BadInput, match="elbow"):
        ContactCheck(model, CLEAR_M)


def mesh_robot(tmp_path: Path, mesh: str, **changes: object) -> RobotModel:
    urdf = f"""<robot name="one"><link name="base"/>
    <link name="arm"><visual><geometry><mesh filename="{mesh}"/></geometry></visual>
    <collision><geometry><mesh filename="{mesh}" scale="0.5 0.5 0.5"/></geometry></collision></link>
    <joint name="turn" type="revolute"><parent link="base"/><child link="arm"/><origin xyz="0 0 1"/><axis xyz="0 1 0"/>
    <limit lower="-3" upper="3" velocity="1" effort="1"/></joint></robot>"""
    (tmp_path / "one.urdf").write_text(urdf)
    limits = {
        "turn": {"has_acceleration_limits": True, "max_acceleration": 1.0, "has_jerk_limits": True, "max_jerk": 9.0}
    }
    path = write_robot(
        tmp_path,
        urdf=str(tmp_path / "one.urdf"),
        tool=None,
        tip_link="arm",
        home={"turn": 0.0},
        posture=None,
        joint_limits=limits,
        disable_collisions=None,
        **changes,
    )
    return RobotModel.load(path)


def write_tetrahedron(path: Path) -> None:
    corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 2)]
    lines = ["solid t"]
    for skipped in range(4):
        triangle = [corner for index, corner in enumerate(corners) if index != skipped]
        lines += [
            "facet normal 0 0 0",
            "outer loop",
            *("vertex {} {} {}".format(*c) for c in triangle),
            "endloop",
            "endfacet",
        ]
    path.write_text("\n".join([*lines, "endsolid t"]))


def test_a_mesh_becomes_its_hull_at_its_scale(tmp_path: Path) -> None:
    folder = tmp_path / "meshes" / "parts"
    folder.mkdir(parents=True)
    write_tetrahedron(folder / "t.stl")
    model = mesh_robot(tmp_path, "package://parts/t.stl", package_dirs=["meshes"])
    (body,) = read_bodies(model)
    assert sorted(map(tuple, body.points.tolist())) == [(0, 0, 0), (0, 0, 1), (0, 0.5, 0), (0.5, 0, 0)]
    rotations, origins = model.joint_frames(np.array([[np.pi]]))
    np.testing.assert_allclose(body.lowest(rotations[:, 0], origins[:, 0]), 0.0, atol=1e-9)


def test_a_flat_mesh_becomes_a_thin_body(tmp_path: Path) -> None:
    write_tetrahedron(tmp_path / "t.stl")
    flat = (tmp_path / "t.stl").read_text().replace("vertex 0 0 2", "vertex 0 0 0")
    (tmp_path / "t.stl").write_text(flat)
    (body,) = read_bodies(mesh_robot(tmp_path, str(tmp_path / "t.stl")))
    assert np.ptp(body.points, axis=0) == pytest.approx([0.5002, 0.5002, 0.0002])


def test_a_mesh_that_is_not_there_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"parts/t\.stl.*package_dirs"):
        read_bodies(mesh_robot(tmp_path, "package://parts/t.stl"))


def test_a_shape_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    write_tetrahedron(tmp_path / "t.stl")
    model = mesh_robot(tmp_path, str(tmp_path / "t.stl"))
    (tmp_path / "one.urdf").write_text(
        (tmp_path / "one.urdf").read_text().replace('scale="0.5 0.5 0.5"/>', "/><torus/>").replace("<mesh", "<donut", 2)
    )
    with pytest.raises(BadInput, match="collision"):
        read_bodies(RobotModel.load(tmp_path / "robot.yaml"))
    assert model.joint_names == ("turn",)


def test_fingers_count_at_every_width() -> None:
    model = RobotModel.load("panda_parallel_jaw")
    left = next(body for body in read_bodies(model) if body.link == "left_finger")
    assert left.joint == 7
    across = left.points @ pinocchio_axis(model)
    assert np.ptp(across) == pytest.approx(0.05 + 0.008, abs=1e-9)


def pinocchio_axis(model: RobotModel) -> np.ndarray:
    """(3,) direction in which the left finger slides, in the frame of the last joint."""
    whole = pin.buildModelFromXML(model.urdf)
    data = whole.createData()
    pin.forwardKinematics(whole, data, pin.neutral(whole))
    finger = whole.getJointId("left_finger_joint")
    carrier = whole.parents[finger]
    return np.array((data.oMi[carrier].inverse() * data.oMi[finger]).rotation[:, 1])

"""Geometry by property: a wrong sign or half a cell here costs every policy its precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_vision.errors import BadInput
from embodied_vision.geometry import (
    cell_to_xy,
    deproject,
    depth_to_metres,
    fuse_scene,
    look_at,
    pose_to_vector,
    project,
    quantise_depth,
    sample_grid,
    tool_down,
    vector_to_pose,
    xy_to_cell,
    yaw_of,
)
from embodied_vision.types import RGBD, Camera, Features, FloatArray, Workspace

K = np.array([[340.0, 0.0, 211.5], [0.0, 340.0, 119.5], [0.0, 0.0, 1.0]])
coordinate = st.floats(-2, 2)
angle = st.floats(-3.1, 3.1)


def camera(eye: tuple[float, float, float] = (1.0, 0.0, 0.85), name: str = "camera") -> Camera:
    return Camera(name, 424, 240, K, look_at(eye, (0.5, 0.0, 0.0)))


def see(cam: Camera, boxes: list[tuple[float, float, float, float, tuple[int, int, int]]]) -> RGBD:
    """Ray-cast a grey table at z = 0 and boxes (x, y, half edge, top, color): an independent camera."""
    v, u = np.mgrid[: cam.height, : cam.width]
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], -1)
    rays = rays @ cam.T_base_camera[:3, :3].T
    origin = cam.T_base_camera[:3, 3]
    depth = -origin[2] / rays[..., 2]
    color = np.full((*u.shape, 3), 120, np.uint8)
    for x, y, half, top, rgb in boxes:
        low, high = np.array([x - half, y - half, 0.0]), np.array([x + half, y + half, top])
        with np.errstate(divide="ignore"):
            near_far = np.stack([(low - origin) / rays, (high - origin) / rays])
        enter, leave = near_far.min(0).max(-1), near_far.max(0).min(-1)
        hit = (enter < leave) & (enter < depth)
        depth = np.where(hit, enter, depth)
        color[hit] = rgb
    return RGBD(color, depth_to_metres(quantise_depth(depth)), cam, 7)


@given(coordinate, coordinate, coordinate, angle)
def test_tool_down_points_down_and_keeps_its_yaw(x: float, y: float, z: float, yaw: float) -> None:
    pose = tool_down(x, y, z, yaw)
    assert pose[:3, 2] == pytest.approx([0, 0, -1], abs=1e-12)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert yaw_of(pose) == pytest.approx(yaw, abs=1e-9)
    assert vector_to_pose(pose_to_vector(pose)) == pytest.approx(pose, abs=1e-9)


@pytest.mark.parametrize("bad", [[0.0] * 7, [np.nan, 0, 0, 0, 0, 0, 1], [0.0] * 6])
def test_bad_pose_vectors_are_named(bad: list[float]) -> None:
    with pytest.raises(BadInput, match="pose vector"):
        vector_to_pose(bad)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.3, 1.5), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_deproject_inverts_project(ex: float, ey: float, ez: float, px: float, py: float) -> None:
    pose = look_at((ex, ey, ez), (ex * 0.3 + 0.1, ey * 0.3, 0.0))
    depth = np.full((240, 424), 0.7, np.float32)
    points = deproject(depth, K, pose)
    row, column = int(120 + py * 500), int(212 + px * 900)
    pixels, distance = project(points[row, column][None].astype(float), K, pose)
    assert pixels[0] == pytest.approx([column, row], abs=1e-2)
    assert distance[0] == pytest.approx(0.7, abs=1e-5)


def test_look_at_sees_its_target_upright() -> None:
    pose = look_at((1.0, 0.0, 0.85), (0.5, 0.0, 0.0))
    pixels, _ = project(np.array([[0.5, 0, 0], [0.5, 0.1, 0.0], [0.5, 0, 0.1]]), K, pose)
    assert pixels[0] == pytest.approx([211.5, 119.5], abs=1e-6)
    assert pixels[1, 0] > pixels[0, 0], "seen from the front, the robot's left is on the right"
    assert pixels[2, 1] < pixels[0, 1], "up in the world is up in the image"


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_cells_and_metres_are_inverse(x: float, y: float) -> None:
    workspace = Workspace()
    assert cell_to_xy(xy_to_cell((x, y), workspace), workspace) == pytest.approx((x, y), abs=1e-12)


def test_an_index_is_the_centre_of_its_cell() -> None:
    workspace = Workspace()
    assert workspace.shape == (128, 256)
    assert cell_to_xy((0, 0), workspace) == pytest.approx((0.244 + 0.002, -0.512 + 0.002))


@given(st.lists(st.floats(0.0, 60.0), min_size=1, max_size=20))
def test_quantised_depth_is_within_half_a_millimetre(values: list[float]) -> None:
    depth = np.array([values])
    assert np.abs(depth_to_metres(quantise_depth(depth)) - depth).max() <= 0.0005 + 1e-5


def test_depth_without_a_return_becomes_zero() -> None:
    assert quantise_depth(np.array([[np.nan, np.inf, -1.0, 70.0]])).tolist() == [[0, 0, 0, 0]]


@given(st.floats(0.3, 0.7), st.floats(-0.4, 0.4), st.floats(0.02, 0.08))
def test_a_box_lies_in_the_map_where_it_stands(x: float, y: float, top: float) -> None:
    workspace = Workspace()
    scene = fuse_scene([see(camera(), [(x, y, 0.03, top, (255, 0, 0))])], [], workspace)
    red = (scene.color[..., 0] == 255) & (scene.height > top - 0.004)
    where = cell_to_xy(np.argwhere(red).mean(0), workspace)
    assert where == pytest.approx((x, y), abs=workspace.cell)
    assert np.median(scene.height[red]) == pytest.approx(top, abs=0.0015)
    assert np.median(scene.height[scene.valid & (scene.color[..., 0] == 120)]) == pytest.approx(0, abs=0.0015)


def test_a_second_camera_sees_behind_the_box() -> None:
    box = [(0.4, 0.1, 0.05, 0.15, (255, 0, 0))]
    front, back = camera(), camera((0.0, 0.0, 0.85), "back")
    one = fuse_scene([see(front, box)], [], Workspace())
    two = fuse_scene([see(front, box), see(back, box)], [], Workspace())
    assert two.valid.sum() > one.valid.sum() + 200


def test_features_follow_their_pixels_into_the_map() -> None:
    cam = camera()
    frame = see(cam, [])
    v, u = np.mgrid[0:30, 0:53] * 8.0 + 3.5
    features = Features(np.stack([u, v], -1).astype(np.float32), (8.0, 8.0), "id", "id", frame.stamp_ns)
    assert sample_grid(features, np.array([[100.0, 50.0]])) == pytest.approx(np.array([[100.0, 50.0]]), abs=1e-3)
    workspace = Workspace()
    scene = fuse_scene([frame], [features], workspace)
    assert scene.features is not None
    for row, column in ((20, 60), (100, 200), (64, 128)):
        x, y = cell_to_xy((row, column), workspace)
        expected, _ = project(np.array([[x, y, 0.0]]), cam.K, cam.T_base_camera)
        assert scene.features[row, column] == pytest.approx(expected[0], abs=2.0)


def test_features_of_another_frame_are_refused() -> None:
    frame = see(camera(), [])
    stale = Features(np.zeros((30, 53, 2), np.float32), (8.0, 8.0), "id", "id", frame.stamp_ns - 1)
    with pytest.raises(BadInput, match="do not belong"):
        fuse_scene([frame], [stale], Workspace())
    with pytest.raises(BadInput, match="no frames"):
        fuse_scene([], [], Workspace())


def test_an_empty_depth_image_gives_an_empty_map() -> None:
    cam = camera()
    blind = RGBD(np.zeros((240, 424, 3), np.uint8), np.zeros((240, 424), np.float32), cam, 1)
    scene = fuse_scene([blind], [], Workspace())
    assert not scene.valid.any()
    assert not scene.height.any()


def shape_mismatch() -> list[FloatArray]:
    return [np.zeros((240, 423, 3), np.uint8), np.zeros((240, 424, 3), np.float32)]


@pytest.mark.parametrize("color", shape_mismatch())
def test_a_wrong_sized_image_names_camera_and_remedy(color: FloatArray) -> None:
    with pytest.raises(BadInput, match=r"camera 'camera': color is .* check the driver"):
        RGBD(color, np.zeros((240, 424), np.float32), camera(), 1)  # type: ignore[arg-type]

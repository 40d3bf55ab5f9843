"""Turns, half cells and mirrors of the grasp head: each of these wrong would still train, and never lift."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision import geometry
from embodied_vision.learning.grasp_dataset import depth_weights, mirrored, view_of
from embodied_vision.policies import grasp_maps, maps
from embodied_vision.policies.grasp_maps import BIN
from embodied_vision.policies.grasp_network import GraspConfig, GraspNet
from embodied_vision.policies.grasp_policy import GraspPolicy
from embodied_vision.types import RGBD, Camera, Features, PickPlace
from policies import grasp_world
from policies.grasp_world import MIDDLE, bar

YAWS = st.floats(0.0, math.pi)
SHIFTS = st.tuples(st.floats(-0.07, 0.07), st.floats(-0.09, 0.09)).map(np.array)


def policy() -> GraspPolicy:
    made = GraspPolicy(grasp_world.random_checkpoint(config=GraspConfig()), None)
    made._network = grasp_world.AcrossTheBar()  # type: ignore[assignment]
    return made


def best(yaw: float, shift: np.ndarray) -> PickPlace:
    one = policy()
    return one.proposals(one.judge_scene(bar(MIDDLE + shift, yaw)), 1)[0]


@settings(max_examples=15, deadline=None)
@given(YAWS, SHIFTS)
def test_where_and_however_the_bar_lies_the_jaw_closes_across_it(yaw: float, shift: np.ndarray) -> None:
    action = best(yaw, shift)
    assert np.linalg.norm(action.pick[:2, 3] - MIDDLE - shift) < 1.5 * BIN.cell
    closing = action.pick[:2, 1]  # the tip's y axis
    length = np.array([math.cos(yaw), math.sin(yaw)])
    assert abs(closing @ length) < math.sin(math.radians(12))  # angles tried are 15° apart
    assert action.pick[2, 2] == pytest.approx(-1)
    assert action.pick[2, 3] == pytest.approx(grasp_world.TOP_M - 0.03)
    assert action.place[2, 3] == grasp_world.LIFT_M
    np.testing.assert_array_equal(action.place[:2], action.pick[:2])


@settings(max_examples=8, deadline=None)
@given(YAWS, SHIFTS, st.sampled_from([math.pi / 12, math.pi / 4, math.pi / 2]))
def test_the_grasp_turns_with_the_scene(yaw: float, shift: np.ndarray, turn: float) -> None:
    before, after = best(yaw, np.zeros(2)), best(yaw + turn, shift)
    moved = after.pick[:2, 3] - before.pick[:2, 3]
    assert np.linalg.norm(moved - shift) < 2.5 * BIN.cell
    turned = math.remainder(geometry.yaw_of(after.pick) - geometry.yaw_of(before.pick) - turn, math.pi)
    assert abs(turned) < math.radians(16)  # one of the angles tried


@settings(max_examples=25, deadline=None)
@given(st.floats(-math.pi, math.pi), st.tuples(st.floats(-5, 5), st.floats(-5, 5)), st.sampled_from([None, 0, 1]))
def test_a_view_shows_the_fingers_left_and_right_of_the_tip(
    yaw: float, offset: tuple[float, float], axis: int | None
) -> None:
    cell = np.array([40.3, 51.8])
    pose = geometry.tool_down(*geometry.cell_to_xy(cell, BIN), 0.05, yaw)
    rows, columns = np.indices(BIN.shape)
    stack = []
    for reach_m in (0.0, 0.028, -0.028):  # the tip, and a place of either finger along the tip's y axis
        at = geometry.xy_to_cell(pose[:2, 3] + reach_m * pose[:2, 1], BIN)
        stack.append(np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 4))
    view, point = view_of(torch.from_numpy(np.array(stack)).float(), cell, yaw, np.array(offset), 48)
    if axis is not None:
        view, point = mirrored(view, point, axis)
    seen = [_middle(part) for part in view.double().numpy()]
    assert seen[0] == pytest.approx(point, abs=0.1)
    sides = sorted(seen[1:], key=lambda at: at[1])
    assert sides[0] == pytest.approx(point - np.array([0, 7]), abs=0.1)
    assert sides[1] == pytest.approx(point + np.array([0, 7]), abs=0.1)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, math.pi), st.integers(20, 60), st.integers(20, 80))
def test_what_is_turned_back_lies_where_it_was(angle: float, row: int, column: int) -> None:
    rows, columns = np.indices(BIN.shape)
    blob = torch.from_numpy(np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)).float()
    size = grasp_maps.view_size(BIN, 8)
    views = maps.turn(blob[None], grasp_maps.middle(BIN), np.array([angle]), size)
    back = grasp_maps.turned_back(views, np.array([angle]), BIN)
    assert back.shape == (1, 1, *BIN.shape)
    assert float((back[0, 0] - blob).abs().max()) < 0.12
    assert np.unravel_index(int(back.argmax()), BIN.shape) == pytest.approx((row, column), abs=1)


def test_a_crop_is_judged_as_the_whole_map_is() -> None:
    net = GraspNet.seeded(GraspConfig(widths=(8, 8)), 0).eval()
    stack = maps.stack_scene(bar(MIDDLE, 0.3), maps.Normalisation.identity(0))[None, :, :, :96]
    whole, part = net(stack), net(stack[:, :, 16:64, 24:72])
    torch.testing.assert_close(part[:, :, 20:28, 20:28], whole[:, :, 36:44, 44:52], atol=1e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 0.12), st.floats(0.005, 0.15))
def test_every_height_of_the_tip_counts_for_the_depths_nearest_to_it(top_m: float, tip_m: float) -> None:
    depths, floor_m = (0.015, 0.03, 0.045), 0.008
    scene = bar(MIDDLE, 0.0, top_m)
    cell = geometry.xy_to_cell(MIDDLE, BIN)[None]
    (weights,) = depth_weights(scene, cell, np.array([tip_m]), depths, floor_m)
    heights = np.maximum(floor_m, np.float64(np.float32(top_m)) - np.array(depths))
    assert weights.sum() <= 1 + 1e-9
    assert ((weights > 0) == (np.abs(heights - tip_m) < 0.015)).all()
    for k, height in enumerate(heights):
        (exact,) = depth_weights(scene, cell, np.array([height]), depths, floor_m)
        assert exact[k] == pytest.approx(exact.max())
        assert exact.sum() == pytest.approx(1)


def _middle(blob: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(blob.shape)
    return np.array([(rows * blob).sum(), (columns * blob).sum()]) / blob.sum()


# Frames


def camera(size: int) -> Camera:
    K = np.array([[1.25 * size, 0, (size - 1) / 2], [0, 1.25 * size, (size - 1) / 2], [0, 0, 1.0]])
    return Camera("camera", size, size, K, geometry.look_at((0.9, 0, 0.66), (0.52, 0, 0.03)))


def table(size: int) -> RGBD:
    seen = camera(size)
    rays = geometry.deproject(np.ones((size, size), np.float32), seen.K, seen.T_base_camera) - seen.T_base_camera[:3, 3]
    depth = (-seen.T_base_camera[2, 3] / rays[..., 2]).astype(np.float32)
    return RGBD(np.full((size, size, 3), 90, np.uint8), depth, seen, 3)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_finer_frame_shows_the_same_plane(factor: int) -> None:
    fine = grasp_maps.finer(table(96), factor)
    assert fine.depth.shape == (96 * factor, 96 * factor)
    points = geometry.deproject(fine.depth, fine.camera.K, fine.camera.T_base_camera)[4:-4, 4:-4]
    assert np.abs(points[..., 2]).max() < 0.0005


def test_a_finer_frame_does_not_span_the_gap_between_surfaces() -> None:
    shot = table(96)
    shot.depth[30:60, 30:60] -= 0.06
    fine = grasp_maps.finer(shot, 3).depth
    steps = np.sort(np.abs(np.diff(fine, axis=1)).ravel())
    assert not ((steps > 0.01) & (steps < 0.05)).any()  # 1 cm: what the slant makes of a pixel at most
    assert (steps > 0.05).sum() == 2 * 90


def test_half_of_a_frame_shows_points_of_the_whole() -> None:
    shot = table(96)
    half = grasp_maps.halved(shot)
    whole = geometry.deproject(shot.depth, shot.camera.K, shot.camera.T_base_camera)
    part = geometry.deproject(half.depth, half.camera.K, half.camera.T_base_camera)
    np.testing.assert_allclose(part, whole[::2, ::2], atol=1e-5)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_the_map_is_full_and_features_lie_where_they_were_seen(size: int) -> None:
    """The features name the pixel that they belong to; the map's cells must then show what projects to them."""
    shot, stride = table(size), size / 16
    v, u = (np.indices((16, 16)) + 0.5) * stride - 0.5
    features = Features(np.stack([u, v], -1).astype(np.float32), (stride, stride), "pixels", "numpy", 3)
    scene = grasp_maps.fuse([shot], [features], BIN)
    assert scene.valid.mean() > 0.97
    assert scene.features is not None
    cells = np.argwhere(scene.valid)
    xyz = np.c_[geometry.cell_to_xy(cells, BIN), np.zeros(len(cells))]
    pixels, _ = geometry.project(xyz, shot.camera.K, shot.camera.T_base_camera)
    inside = (pixels > stride / 2).all(1) & (pixels < size - 1 - stride / 2).all(1)
    error_m = (scene.features[scene.valid][inside] - pixels[inside]) * 0.75 / shot.camera.K[0, 0]
    assert np.abs(error_m.mean(0)).max() < 0.0012
    assert np.abs(error_m).max() < 0.012

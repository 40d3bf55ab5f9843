"""Views, their cache, and pairs of crops that must show the same points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.encoders.augment import photometric, random_crop
from embodied_vision.encoders.correspondence import Drawing, ground, interest, sample_batch, sample_pair
from embodied_vision.encoders.views import ViewCache, ViewSet, dome_camera, points_at, visible_from
from embodied_vision.errors import EncoderError, RunFailed
from embodied_vision.geometry import deproject, project
from embodied_vision.types import RGBD

from .conftest import MakeSets, make_view_set


def test_dome_cameras_see_the_middle_of_the_workspace_from_all_sides() -> None:
    rng = np.random.default_rng(0)
    cameras = [dome_camera(rng) for _ in range(200)]
    for camera in cameras:
        pixels, depth = project(np.array([[0.5, 0.0, 0.0]]), camera.K, camera.T_base_camera)
        assert depth[0] > 0.4
        assert (pixels[0] > 0).all()
        assert (pixels[0] < [camera.width, camera.height]).all()
        assert camera.T_base_camera[2, 3] > 0.2
        np.testing.assert_allclose(camera.T_base_camera[:3, :3].T @ camera.T_base_camera[:3, :3], np.eye(3), atol=1e-9)
    sides = {tuple(np.sign(camera.T_base_camera[:2, 3] - [0.5, 0.0])) for camera in cameras}
    assert len(sides) == 4


def test_points_at_agrees_with_the_geometry(make_sets: MakeSets) -> None:
    frame = make_sets(1)[0].frames[0]
    pixels = np.array([(3, 5), (100, 60), (64, 48)], float)
    dense = deproject(frame.depth, frame.camera.K, frame.camera.T_base_camera)
    expected = dense[pixels[:, 1].astype(int), pixels[:, 0].astype(int)]
    np.testing.assert_allclose(points_at(frame, pixels), expected, atol=1e-5)


def test_a_hidden_point_is_not_visible(make_sets: MakeSets) -> None:
    """A point 3 cm behind what a pixel shows projects to it, but the frame does not see it."""
    frame = make_sets(1)[0].frames[0]
    pixels = np.array([(60.0, 50.0), (30.0, 40.0)])
    points = points_at(frame, pixels)
    eye = frame.camera.T_base_camera[:3, 3]
    behind = points + 0.03 * (points - eye) / np.linalg.norm(points - eye, axis=1, keepdims=True)
    placed, seen = visible_from(np.concatenate([points, behind]), frame)
    np.testing.assert_allclose(placed, np.concatenate([pixels, pixels]), atol=1e-6)
    assert seen.tolist() == [True, True, False, False]


def test_points_behind_the_camera_or_outside_are_not_visible(make_sets: MakeSets) -> None:
    frame = make_sets(1)[0].frames[0]
    eye, forward = frame.camera.T_base_camera[:3, 3], frame.camera.T_base_camera[:3, 2]
    side = frame.camera.T_base_camera[:3, 0]
    _, seen = visible_from(np.stack([eye - forward, eye + forward + 3 * side, eye]), frame)
    assert not seen.any()


def test_crop_puts_image_pixels_where_it_says() -> None:
    """A bright dot lands in the crop at the place that `locate` names."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(20):
        image = np.zeros((96, 128, 3), np.uint8)
        dot = np.array([rng.integers(20, 108), rng.integers(20, 76)])
        image[dot[1] - 1 : dot[1] + 2, dot[0] - 1 : dot[0] + 2] = 255
        crop = random_crop(rng, image, dot.astype(float), 64)
        placed, inside = crop.locate(dot[None].astype(float))
        if inside[0]:
            weight = crop.color[..., 0].astype(float)
            v, u = np.mgrid[:64, :64]
            centre = np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()
            np.testing.assert_allclose(placed[0], centre, atol=0.4)
            hits += 1
    assert hits > 10


def test_photometric_keeps_shape_and_order_of_colors() -> None:
    """Red stays redder than green stays red: hue moves by degrees only."""
    rng = np.random.default_rng(0)
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, :8], image[:, 8:] = (200, 60, 50), (60, 160, 60)
    outcomes = [photometric(rng, image) for _ in range(50)]
    for out in outcomes:
        assert out.dtype == np.uint8
        assert out.shape == image.shape
        red, green = out[:, :7].mean((0, 1)), out[:, 9:].mean((0, 1))
        assert red.argmax() == 0
        assert green.argmax() == 1
    assert np.std([out.mean() for out in outcomes]) > 5


def test_both_crops_of_a_pair_show_the_same_points(make_sets: MakeSets) -> None:
    rng = np.random.default_rng(0)
    drawn = 0
    for views in make_sets(4):
        pair = sample_pair(rng, views, Drawing(crop_px=64, points=40))
        if pair is None:
            continue
        drawn += 1
        assert pair.first.pixels.shape == pair.second.pixels.shape == (len(pair.points_m), 2)
        for view in (pair.first, pair.second):
            assert ((view.pixels >= 0) & (view.pixels <= 63)).all()
            assert view.color.shape == (64, 64, 3)
        # the same surface keeps its hue under any shade: compare which channel is strongest where it is clear
        a, b = pair.first.shades, pair.second.shades
        clear = (np.ptp(a, axis=1) > 0.25) & (np.ptp(b, axis=1) > 0.25)
        assert (a[clear].argmax(1) == b[clear].argmax(1)).mean() > 0.95
    assert drawn >= 3


def test_without_poses_both_crops_come_from_one_image(make_sets: MakeSets) -> None:
    views = make_sets(1)[0]
    blind = ViewSet(tuple(replace(f, depth=np.zeros_like(f.depth)) for f in views.frames))
    for pair in sample_batch(np.random.default_rng(0), [blind], 4, Drawing(64, 40, poses=False)):
        assert pair.first.frame == pair.second.frame
        np.testing.assert_array_equal(pair.first.in_image, pair.second.in_image)
        assert np.isnan(pair.points_m).all()
        assert not np.allclose(pair.first.pixels, pair.second.pixels)


def test_views_say_where_in_their_image_the_points_lie(make_sets: MakeSets) -> None:
    views = make_sets(1)[0]
    pair = sample_batch(np.random.default_rng(1), [views], 1, Drawing(64, 40))[0]
    for view in pair.views:
        frame = views.frames[view.frame]
        placed, _ = project(pair.points_m, frame.camera.K, frame.camera.T_base_camera)
        np.testing.assert_allclose(placed, view.in_image, atol=1e-6)


def test_ground_is_the_table_and_nothing_on_it(make_sets: MakeSets) -> None:
    views = make_sets(1)[0]
    assert views.bodies is not None
    table = ground(views.frames[0])
    body = views.bodies[0]
    assert table[body == 0].mean() > 0.98
    assert table[body > 0].mean() < 0.15  # the lowest edges of the boxes' sides


def test_points_are_drawn_where_there_is_detail(make_sets: MakeSets) -> None:
    views = make_sets(1)[0]
    assert views.bodies is not None
    weight, body = interest(views.frames[0]), views.bodies[0]
    assert weight[body > 0].mean() > 2 * weight[body == 0].mean()
    tiles = 90 * (np.indices(body.shape) // 6).sum(0) % 180
    patterned = np.where((body == 0)[..., None], tiles[..., None], views.frames[0].color).astype(np.uint8)
    weight = interest(replace(views.frames[0], color=patterned))
    assert weight[body > 0].mean() > 2 * weight[body == 0].mean()
    blind = replace(views.frames[0], depth=np.zeros_like(views.frames[0].depth))
    assert not interest(blind).any()


def test_wrong_poses_are_reported(make_sets: MakeSets) -> None:
    """Two cameras that claim to look away from each other share no points."""
    views = make_sets(1)[0]
    pose = views.frames[1].camera.T_base_camera.copy()
    pose[2, 3] += 5.0
    moved = RGBD(
        views.frames[1].color,
        np.zeros_like(views.frames[1].depth),
        replace(views.frames[1].camera, T_base_camera=pose),
        0,
    )
    blind = ViewSet((moved, moved))
    with pytest.raises(EncoderError, match="check the cameras' poses"):
        sample_batch(np.random.default_rng(0), [blind], 2, Drawing(crop_px=64, points=32))


def test_cache_returns_what_was_put_in(tmp_path: Path) -> None:
    cache = ViewCache(tmp_path / "frames", {"from": "here"})
    sets = [make_view_set(0), ViewSet(make_view_set(1).frames)]
    assert list(cache.extend(sets)) == [1, 2]
    again = ViewCache(tmp_path / "frames", {"from": "here"})
    assert len(again) == 2
    for i, expected in enumerate(sets):
        actual = again[i]
        for a, b in zip(actual.frames, expected.frames, strict=True):
            np.testing.assert_array_equal(a.color, b.color)
            np.testing.assert_allclose(a.depth, b.depth, atol=5e-4)
            np.testing.assert_array_equal(a.camera.T_base_camera, b.camera.T_base_camera)
            assert a.stamp_ns == b.stamp_ns
    labelled = again[0].bodies
    assert labelled is not None
    np.testing.assert_array_equal(labelled[1], sets[0].bodies[1])  # type: ignore[index]
    assert again[0].names == sets[0].names
    assert again[1].bodies is None


def test_half_written_set_does_not_count(tmp_path: Path) -> None:
    cache = ViewCache(tmp_path / "frames", {})
    cache.append(make_view_set(0))
    part = tmp_path / "frames" / "000001.part"
    part.mkdir()
    (part / "color_0.npy").write_bytes(b"half")
    again = ViewCache(tmp_path / "frames", {})
    assert len(again) == 1
    again.append(make_view_set(1))
    assert len(again) == 2
    assert not part.exists()


def test_cache_from_another_source_is_refused(tmp_path: Path) -> None:
    ViewCache(tmp_path / "frames", {"scenes": 3})
    with pytest.raises(EncoderError, match=r"holds frames from \{'scenes': 3\}"):
        ViewCache(tmp_path / "frames", {"scenes": 4})


def test_damaged_frame_is_named(tmp_path: Path) -> None:
    cache = ViewCache(tmp_path / "frames", {})
    cache.append(make_view_set(0))
    path = tmp_path / "frames" / "000000" / "color_0.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(EncoderError, match="000000 cannot be read"):
        cache[0]


def test_a_full_disk_and_a_damaged_description_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ViewCache(tmp_path / "frames", {})
    cache.append(make_view_set(0))

    def full(path: Path, values: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(RunFailed, match=r"frames cannot be written .*No space left.* run the same again"):
            cache.append(make_view_set(1))
    assert len(ViewCache(tmp_path / "frames", {})) == 1
    cache.append(make_view_set(1))
    assert len(cache) == 2

    (tmp_path / "frames" / "source.json").write_text("{")
    with pytest.raises(EncoderError, match=r"source\.json cannot be read"):
        ViewCache(tmp_path / "frames", {})

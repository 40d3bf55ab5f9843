"""The region holds every patch that the map reads, and networks compute it alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied_vision.encoders import load_encoder
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.encoders.export import parity, sample_images
from embodied_vision.encoders.region import (
    Part,
    Region,
    RegionEncoder,
    encode_frame,
    encode_seen,
    fill_up,
    part_of,
    window_around,
)
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import deproject, look_at, sample_grid
from embodied_vision.types import RGBD, Camera, Features, Workspace

WORKSPACE = Workspace(x=(0.3, 0.6), y=(-0.15, 0.15), z=(-0.01, 0.1))


def camera(eye: tuple[float, float, float] = (1.2, 0.0, 0.8), size: tuple[int, int] = (240, 320)) -> Camera:
    K = np.array([[0.9 * size[1], 0, size[1] / 2 - 0.5], [0, 0.9 * size[1], size[0] / 2 - 0.5], [0, 0, 1]])
    return Camera("camera", size[1], size[0], K, look_at(eye, (0.45, 0.02, 0.0)))


EYES = [(1.2, 0.0, 0.8), (0.45, 0.0, 0.6), (-0.4, 0.9, 0.2), (0.45, 0.021, 0.05), (3.0, -2.0, 0.02)]


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("stride", [(8.0, 8.0), (17.14, 22.86)])
def test_all_that_the_map_reads_is_in_the_region(eye: tuple[float, float, float], stride: tuple[float, float]) -> None:
    """From random depths, as the map itself reads: a grid that is not a number outside the region never gets in."""
    one = camera(eye)
    grid = (int(np.ceil(240 / stride[0])), int(np.ceil(320 / stride[1])))
    wanted = Region(WORKSPACE, 0.0).patches(one, grid, stride)
    values = np.where(wanted[..., None], np.float32(1), np.float32(np.nan))
    rng = np.random.default_rng(0)
    for _ in range(20):
        depth = rng.uniform(0.02, 4.0, (240, 320)).astype(np.float32)
        points = deproject(depth, one.K, one.T_base_camera)
        inside = np.ones(depth.shape, bool)
        for axis, (low, high) in enumerate((WORKSPACE.x, WORKSPACE.y, WORKSPACE.z)):
            inside &= (points[..., axis] >= low) & (points[..., axis] <= high)
        v, u = np.nonzero(inside)
        read = sample_grid(Features(values, stride, "", "", 0), np.stack([u, v], 1).astype(float))
        assert np.isfinite(read).all()


def test_the_region_is_no_larger_than_it_has_to_be() -> None:
    one = camera((0.45, 0.021, 1.0))
    small = Region(WORKSPACE, 0.0).patches(one, (30, 40), (8.0, 8.0))
    wide = Region(WORKSPACE, 0.1).patches(one, (30, 40), (8.0, 8.0))
    assert 0.05 < small.mean() < 0.35
    assert (wide >= small).all()
    assert wide.sum() > small.sum()
    away = Camera("away", 320, 240, one.K, look_at((1.2, 0, 0.8), (3, 0, 0.8)))
    assert not Region(WORKSPACE).patches(away, (30, 40), (8.0, 8.0)).any()


def test_regions_are_told_apart_by_what_they_leave() -> None:
    assert Region(WORKSPACE).name != Region().name != Region(margin=0.03).name
    assert Region.from_dict(Region(WORKSPACE, 0.05).to_dict()) == Region(WORKSPACE, 0.05)
    assert Region().covers(Workspace())
    assert Region(WORKSPACE, 0.02).covers(Workspace((0.28, 0.62), (-0.17, 0.17), (-0.03, 0.12)))
    assert not Region(WORKSPACE, 0.02).covers(Workspace((0.28, 0.62), (-0.17, 0.18), (-0.03, 0.12)))
    assert not Region(WORKSPACE).covers(Workspace())
    for margin in (-0.1, float("nan"), 1e9):
        with pytest.raises(EncoderError, match="margin"):
            Region(WORKSPACE, margin)


@pytest.mark.parametrize("size", [None, (8, 10), (16, 20)])
@pytest.mark.parametrize("step", [1, 2])
def test_windows_hold_what_is_wanted(size: tuple[int, int] | None, step: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        wanted = np.zeros((16, 20), bool)
        top, left = rng.integers(0, 14), rng.integers(0, 18)
        wanted[top : top + rng.integers(1, 6), left : left + rng.integers(1, 6)] = True
        window = window_around(wanted, (16, 20), step, halo=1, size=size)
        if window is None:
            assert size == (8, 10)
            continue
        assert window.top % step == window.left % step == window.rows % step == window.columns % step == 0
        assert 0 <= window.top <= window.top + window.rows <= 16
        assert 0 <= window.left <= window.left + window.columns <= 20
        assert size is None or (window.rows, window.columns) == size
        rows, columns = np.nonzero(wanted)
        assert window.top <= rows.min() <= rows.max() < window.top + window.rows
        assert window.left <= columns.min() <= columns.max() < window.left + window.columns


def test_a_network_takes_the_nearest_patches_as_well() -> None:
    wanted = np.zeros((6, 6), bool)
    wanted[2:4, 2:4] = True
    chosen = fill_up(wanted, 12)
    assert chosen is not None
    assert (np.diff(chosen) > 0).all()
    assert set(np.flatnonzero(wanted)) < set(chosen)
    ring = np.zeros((6, 6), bool)
    ring[1:5, 1:5] = True
    assert set(chosen) <= set(np.flatnonzero(ring))
    assert fill_up(wanted, 3) is None


def test_a_window_of_the_image_gives_nearly_the_features_of_the_whole() -> None:
    encoder, one = load_encoder(), camera((0.45, 0.021, 1.0))
    image = sample_images((240, 320), 1)[0]
    seen = load_encoder("default+region=0.3:0.6,-0.15:0.15,-0.01:0.1+margin=0.0")
    assert isinstance(seen, RegionEncoder)
    assert seen.encoder_id == f"{encoder.encoder_id}-{Region(WORKSPACE, 0.0).name}"
    wanted = Region(WORKSPACE, 0.0).patches(one, (30, 40), (8.0, 8.0))
    part, whole = encode_seen(seen, image, one, 7), encoder.encode(image)
    assert (part.stamp_ns, part.stride, part.grid.shape) == (7, whole.stride, whole.grid.shape)
    assert (part.grid[~wanted] == 0).all()
    assert parity(part.grid[wanted], whole.grid[wanted]).cosine > 0.99


def test_without_a_camera_the_whole_image_is_encoded_and_told() -> None:
    encoder = CompactEncoder.random(0)
    seen, image = RegionEncoder(encoder, Region(WORKSPACE)), sample_images((48, 64), 1)[0]
    features = seen.encode(image, 3)
    np.testing.assert_array_equal(features.grid, encoder.encode(image).grid)
    assert features.artefact_id == f"{encoder.artefact_id}-whole"
    assert features.encoder_id == seen.encoder_id
    with pytest.raises(EncoderError, match=r"image of 64x48 px.*calibrated for 320x240"):
        seen.encode_seen(image, camera())


def test_a_camera_that_sees_nothing_of_it_costs_nothing() -> None:
    away = Camera("away", 64, 48, camera().K, look_at((1.2, 0, 0.8), (3, 0, 0.8)))
    frame = RGBD(sample_images((48, 64), 1)[0], np.zeros((48, 64), np.float32), away, 5)
    features = encode_frame(RegionEncoder(CompactEncoder.random(0), Region(WORKSPACE)), frame)
    assert not features.grid.any()
    assert features.stamp_ns == 5
    with pytest.raises(EncoderError, match="cameras away see nothing of the workspace"):
        part_of(CompactEncoder.random(0), Region(WORKSPACE), [frame.color], [away])


def test_what_an_exported_network_takes_is_always_as_much() -> None:
    encoder, image = CompactEncoder.random(0), sample_images((240, 320), 1)[0]
    part = part_of(encoder, Region(WORKSPACE), [image], [camera((0.45, 0.021, 1.0))])
    assert Part.from_dict(part.to_dict()) == part
    shapes = set()
    for x in np.linspace(0.41, 0.49, 5):
        taken = part.take(encoder.front, image, camera((x, 0.021, 1.0)))
        assert taken is not None
        shapes.add(taken.pixels.shape)
    assert len(shapes) == 1
    assert part.take(encoder.front, image, camera((0.45, 0.021, 0.2))) is None, "too near"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("default+region=no", "region=no is not understood"),
        ("default+region=0:1,0:1", "not understood"),
        ("default+region=1:0,0:1,0:1", "not understood"),
        ("default+region=nan:1,0:1,0:1", "not understood"),
        ("default+region=yes+margin=-1", "margin -1.0 m"),
        ("default+margin=0.1", "takes no option margin"),
        ("default+region=yes+tile=64", "neither tile nor dense"),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, words: str) -> None:
    with pytest.raises(EncoderError, match=words):
        load_encoder(name)


def test_an_encoder_of_whole_images_says_so(tmp_path: Path) -> None:
    class Whole:
        encoder_id, artefact_id, dimension = "whole", "numpy", 3

        def encode(self, color: np.ndarray, stamp_ns: int = 0) -> Features:
            raise AssertionError

    with pytest.raises(EncoderError, match="export it with --region"):
        RegionEncoder(Whole(), Region())

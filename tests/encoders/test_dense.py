"""Tiles give the features of their crops; denser grids the features of an image that moved."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embodied_vision.encoders import Encoder, load_encoder
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.encoders.dense import ShiftedEncoder, TiledEncoder
from embodied_vision.encoders.export import sample_images
from embodied_vision.encoders.registry import split_options
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import sample_grid
from embodied_vision.types import Features


class Position:
    """The mean position in px of each patch, its features; wide patches of a resized image."""

    encoder_id, artefact_id, dimension = "position-1", "numpy", 3

    def __init__(self, cells: int = 4) -> None:
        self._cells, self.seen = cells, []

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        n, (rows, columns) = self._cells, color.shape[:2]
        assert rows % n == 0
        assert columns % n == 0
        self.seen.append(color.shape)
        grid = color.reshape(n, rows // n, n, columns // n, 3).mean((1, 3)).astype(np.float32)
        return Features(grid, (rows / n, columns / n), self.encoder_id, self.artefact_id, stamp_ns)


def positions(rows: int, columns: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:rows, :columns]
    return np.stack([y, x, np.zeros_like(x)], 2).astype(np.uint8)


@pytest.mark.parametrize("size", [(24, 24), (48, 80), (130, 97), (250, 199)])
@pytest.mark.parametrize("overlap", [0, 6, 12])
def test_every_cell_describes_its_own_place(size: tuple[int, int], overlap: int) -> None:
    inner = Position()
    features = TiledEncoder(inner, 24, overlap).encode(positions(*size), 7)
    assert features.stride == (6.0, 6.0)
    assert features.stamp_ns == 7
    assert features.grid.shape[:2] == (-(-size[0] // 6), -(-size[1] // 6))
    whole = features.grid[: size[0] // 6, : size[1] // 6]
    y, x = np.mgrid[: whole.shape[0], : whole.shape[1]]
    np.testing.assert_allclose(whole[..., 0], 6 * y + 2.5)
    np.testing.assert_allclose(whole[..., 1], 6 * x + 2.5)
    assert set(inner.seen) == {(24, 24, 3)}


@pytest.mark.parametrize("count", range(1, 60))
@pytest.mark.parametrize("overlap", [0, 8, 40])
def test_tiles_cover_everything_and_overlap_as_asked(count: int, overlap: int) -> None:
    tiled = TiledEncoder(Position(8), 64, overlap)
    spans = tiled._spans(count)
    assert spans[0][1] == 0
    assert spans[-1][2] == count
    for start, first, last in spans:
        assert 0 <= start <= first < last <= max(count, start + 8)
        assert last - start <= 8 or last == count < 8
    for (one, _, last), (other, first, _) in pairwise(spans):
        assert last == first
        assert 8 * (one + 8 - other) >= overlap
        assert first - other >= overlap // 16, "features come from the middle of a tile"


def test_a_4k_image_has_the_features_of_its_crops_in_bounded_memory() -> None:
    encoder = CompactEncoder.random(0)
    tiled = TiledEncoder(encoder, 512, 128)
    image = sample_images((2160, 3840), 1)[0]
    tiled.encode(image[:600, :600])
    tracemalloc.start()
    features = tiled.encode(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert features.grid.shape == (270, 480, 32)
    assert peak < features.grid.nbytes + 40 * 512 * 512 * 3
    for top, left in ((0, 0), (384, 768)):  # tiles begin at every 384 px
        crop = encoder.encode(image[top : top + 512, left : left + 512]).grid
        cells = features.grid[top // 8 + 8 : top // 8 + 56, left // 8 + 8 : left // 8 + 56]
        np.testing.assert_array_equal(cells, crop[8:56, 8:56])


def test_tiles_of_a_network_that_sees_near_alone_are_those_of_the_whole_image() -> None:
    """Away from the tiles' borders by more than its receptive field."""
    encoder = CompactEncoder.random(0)
    image = sample_images((480, 640), 1)[0]
    whole, tiled = encoder.encode(image).grid, TiledEncoder(encoder, 320, 256).encode(image).grid
    assert np.abs(whole - tiled).max() < 1e-3


@pytest.mark.parametrize("factor", [2, 3])
def test_a_denser_grid_describes_the_parts_of_the_patches(factor: int) -> None:
    image = positions(48, 96)
    features = ShiftedEncoder(Position(), factor).encode(image, 3)
    assert features.stride == (12 / factor, 24 / factor)
    assert features.grid.shape == (4 * factor, 4 * factor, 3)
    v, u = np.mgrid[20:28, 40:56]  # away from the border, where the image is repeated
    points = np.stack([u.ravel(), v.ravel()], 1).astype(float)
    np.testing.assert_allclose(sample_grid(features, points)[:, :2], points[:, ::-1], atol=0.51)


def test_a_denser_grid_of_one_encoder_holds_what_the_moved_image_has() -> None:
    encoder = CompactEncoder.random(0)
    image = sample_images((64, 80), 1)[0]
    dense = ShiftedEncoder(encoder, 2).encode(image)
    assert dense.grid.shape == (16, 20, 32)
    moved = np.pad(image, ((0, 2), (0, 2), (0, 0)), mode="edge")[2:, 2:]  # a quarter of a patch
    np.testing.assert_array_equal(dense.grid[1::2, 1::2], encoder.encode(np.ascontiguousarray(moved)).grid)


def test_options_follow_a_name(tmp_path: Path) -> None:
    assert split_options("facebook/dinov2-small+size=448+layers=-1,-4") == (
        "facebook/dinov2-small",
        {"size": "448", "layers": "-1,-4"},
    )
    assert split_options("a+b/c=d") == ("a+b/c=d", {})
    plain = load_encoder()
    image = sample_images((96, 128), 1)[0]
    for name, kind in (("default+tile=64", TiledEncoder), ("default+tile=64+overlap=16+dense=2", ShiftedEncoder)):
        encoder = load_encoder(name)
        assert isinstance(encoder, kind)
        assert isinstance(encoder, Encoder)
        assert encoder.encoder_id.startswith(plain.encoder_id + "-")
        assert encoder.encoder_id != plain.encoder_id
        assert (encoder.dimension, encoder.artefact_id) == (plain.dimension, plain.artefact_id)
        assert encoder.encode(image).encoder_id == encoder.encoder_id


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("default+tile=many", "tile=many is not understood"),
        ("default+tile=60", "60 px becomes 8 x 8 patches.*multiple of 8, such as 64"),
        ("default+tile=64+overlap=64", "leaves nothing"),
        ("default+tile=0", "positive tile"),
        ("default+tile=64+overlap=-1", "overlap from 0"),
        ("default+dense=1", "give 2 or more"),
        ("default+size=448", "takes no option size"),
        ("default+runtime=openvino", "takes no option runtime"),
        ("default+overlap=8", "takes no option overlap"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(name: str, words: str) -> None:
    with pytest.raises(EncoderError, match=words):
        load_encoder(name)

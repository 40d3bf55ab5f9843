"""Tiles give the features of their crops; denser grids the features of an image that moved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import transformers
from numpy.typing import NDArray

from embodied_vision.encoders import Encoder, load_encoder
from embodied_vision.encoders.compact import Architecture, CompactEncoder
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


LIGHT = Architecture(stem=16, fine=8, middle=8, coarse=8, blocks=(1, 1, 1), dimension=8)
"""Little work, and activations of a whole large image that are many times its features."""


def _tiles_of(cell: int, starts: list[int], cells: int) -> list[int]:
    """First cells of the tiles in which a cell lies farthest from the border; two where it lies as far in both."""
    inside = {start: min(cell - start, start + cells - 1 - cell) for start in starts if start <= cell < start + cells}
    return [start for start, depth in inside.items() if depth == max(inside.values())]


@pytest.mark.parametrize(("kind", "px"), [("compact", 8), ("transformers", 32)])
def test_a_4k_image_has_the_features_of_its_crops(kind: str, px: int, tmp_path: Path) -> None:
    """Each of its cells those of the crop in which it lies deepest, bit for bit."""
    if kind == "compact":
        encoder: Encoder = CompactEncoder.random(0, LIGHT)
    else:
        config = transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=256, patch_size=px
        )
        transformers.Dinov2Model(config).save_pretrained(tmp_path)
        processor = {"size": {"height": 256, "width": 256}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
        encoder = load_encoder(f"{tmp_path}+size=512")
    tile, overlap = 512, 128
    image = sample_images((2160, 3840), 1)[0]
    features = TiledEncoder(encoder, tile, overlap).encode(image).grid
    rows, columns = shape = (-(-2160 // px), 3840 // px)
    assert features.shape == (*shape, encoder.dimension)
    cells, step = tile // px, (tile - overlap) // px
    starts = [sorted({min(start, n - cells) for start in range(0, n - cells + step, step)}) for n in shape]
    whole = np.pad(image, ((0, rows * px - 2160), (0, 0), (0, 0)), mode="edge")
    crops = {
        (top, left): encoder.encode(
            np.ascontiguousarray(whole[px * top : px * top + tile, px * left : px * left + tile])
        ).grid
        for top, left in product(*starts)
    }
    deepest = [[_tiles_of(cell, of, cells) for cell in range(n)] for n, of in zip(shape, starts, strict=True)]
    for row, column in product(range(rows), range(columns)):
        cell = features[row, column].tobytes()
        candidates = product(deepest[0][row], deepest[1][column])
        assert any(cell == crops[top, left][row - top, column - left].tobytes() for top, left in candidates)


_PEAKS = """
import json, sys
import numpy as np, torch
from embodied_vision.encoders.compact import Architecture, CompactEncoder
from embodied_vision.encoders.dense import TiledEncoder
from tests.encoders.test_dense import LIGHT

def peak_bytes():
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

torch.set_num_threads(1)
encoder = CompactEncoder.random(0, LIGHT)
tiled = TiledEncoder(encoder, 512, 128)
large = np.full((2160, 3840, 3), 90, np.uint8)
small = np.full((1080, 1920, 3), 90, np.uint8)
peaks, sizes = [], []
for image, how in ((large[:512, :512], tiled), (small, tiled), (large, tiled), (small, encoder)):
    sizes.append(how.encode(image).grid.nbytes)
    peaks.append(peak_bytes())
print(json.dumps({"peaks": peaks, "sizes": sizes}))
"""


def test_memory_of_tiles_does_not_grow_with_the_image() -> None:
    """The most that a process ever held: for a 4K image hardly more than for one tile, but for its features.

    Freed memory goes back to the system at once there: what the allocator keeps differs from run to run by more than
    what is measured.
    """
    run = subprocess.run(
        [sys.executable, "-c", _PEAKS],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout)
    tile, full_hd, uhd, whole = found["peaks"]
    grids = found["sizes"]
    assert uhd - full_hd <= grids[2] + (1 << 20), "four times the image: more features and nothing else"
    assert uhd - tile <= grids[2] + (2 << 20)
    assert whole - uhd > 4 * (uhd - tile), "a quarter of the pixels as a whole takes far more"


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

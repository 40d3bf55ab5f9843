"""The compact encoder: same input, same bits; other weights, other id; damage is named."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from embodied_vision.encoders import Encoder, load_encoder
from embodied_vision.encoders.artefact import WEIGHTS, write_artefact
from embodied_vision.encoders.compact import (
    KIND,
    LAYER,
    PREPROCESSING,
    Architecture,
    CompactEncoder,
    CompactNetwork,
    initialised,
    normalise,
    pad,
    weights_of,
)
from embodied_vision.errors import EncoderError

SMALL = Architecture(stem=4, fine=4, middle=8, coarse=8, blocks=(1, 1, 1), dimension=6)


def _image(rows: int = 48, columns: int = 72, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


def _trained_like(seed: int) -> CompactNetwork:
    """A network whose batch norms hold statistics, as after training."""
    network = initialised(SMALL, seed)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))
    return network.eval()


def _write(folder: Path, seed: int = 0) -> CompactEncoder:
    weights = weights_of(_trained_like(seed))
    encoder = CompactEncoder(SMALL, weights)
    manifest = {
        "kind": KIND,
        "architecture": asdict(SMALL),
        "preprocessing": PREPROCESSING,
        "layer": LAYER,
        "encoder_id": encoder.encoder_id,
    }
    write_artefact(folder, weights, manifest, "# an encoder\n")
    return encoder


def test_is_an_encoder() -> None:
    assert isinstance(CompactEncoder.random(0, SMALL), Encoder)


def test_same_image_gives_same_bits_in_every_instance() -> None:
    image = _image()
    first, again = (CompactEncoder.random(3, SMALL).encode(image, stamp_ns=17) for _ in range(2))
    assert first.grid.dtype == np.float32
    assert first.grid.tobytes() == again.grid.tobytes()
    assert first.encoder_id == again.encoder_id
    assert first.stamp_ns == 17


def test_random_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    CompactEncoder.random(1, SMALL)
    assert torch.equal(torch.rand(1), expected)


def test_folding_the_batch_norms_does_not_change_the_function() -> None:
    network, image = _trained_like(0), _image()
    with torch.inference_mode():
        x = pad(normalise(torch.from_numpy(image).permute(2, 0, 1)[None]))
        expected = network(x)[0, :, :6, :9].permute(1, 2, 0).numpy()
    actual = CompactEncoder(SMALL, weights_of(network)).encode(image).grid
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize(("rows", "columns", "grid"), [(240, 424, (30, 53)), (41, 57, (6, 8)), (8, 8, (1, 1))])
def test_grid_covers_the_image_at_stride_8_with_features_of_norm_root_d(
    rows: int, columns: int, grid: tuple[int, int]
) -> None:
    features = CompactEncoder.random(0, SMALL).encode(_image(rows, columns))
    assert features.grid.shape == (*grid, SMALL.dimension)
    assert features.stride == (8.0, 8.0)
    np.testing.assert_allclose(np.linalg.norm(features.grid, axis=2), SMALL.dimension**0.5, rtol=1e-4)


def test_a_patch_reacts_most_to_its_own_pixels() -> None:
    """The grid is not shifted against the image: changing patch (i, j) changes cell (i, j) most."""
    encoder, image = CompactEncoder.random(0), _image(96, 96)
    base = encoder.encode(image).grid
    for i, j in ((5, 5), (4, 7), (7, 4)):
        changed = image.copy()
        changed[8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = 255 - changed[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
        difference = np.linalg.norm(encoder.encode(changed).grid - base, axis=2)
        assert np.unravel_index(difference.argmax(), difference.shape) == (i, j)


def test_id_changes_with_any_weight_and_survives_saving(tmp_path: Path) -> None:
    written = _write(tmp_path / "encoder")
    loaded = load_encoder(tmp_path / "encoder")
    assert loaded.encoder_id == written.encoder_id
    image = _image()
    assert loaded.encode(image).grid.tobytes() == written.encode(image).grid.tobytes()

    weights = weights_of(_trained_like(0))
    weights["head.bias"][0] = np.nextafter(weights["head.bias"][0], np.float32(9))
    assert CompactEncoder(SMALL, weights).encoder_id != written.encoder_id


def test_writing_replaces_a_former_encoder_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    _write(tmp_path / "encoder", seed=0)
    second = _write(tmp_path / "encoder", seed=1)
    assert CompactEncoder.load(tmp_path / "encoder").encoder_id == second.encoder_id
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((16, 16, 3), np.float32),
        np.zeros((16, 16), np.uint8),
        np.zeros((16, 16, 4), np.uint8),
        np.zeros((4, 16, 3), np.uint8),
        [[0, 0, 0]],
    ],
    ids=["float", "grey", "alpha", "tiny", "list"],
)
def test_refuses_what_is_no_rgb_image(image: object) -> None:
    with pytest.raises(EncoderError, match="give"):
        CompactEncoder.random(0, SMALL).encode(image)  # type: ignore[arg-type]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="nowhere"):
        CompactEncoder.load(tmp_path / "nowhere")


def test_folder_without_an_encoder_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"manifest\.json.*config\.json"):
        load_encoder(tmp_path)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "encoder")
    path = tmp_path / "encoder" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EncoderError, match=r"model\.safetensors is damaged"):
        CompactEncoder.load(tmp_path / "encoder")


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "encoder")
    (tmp_path / "encoder" / WEIGHTS).unlink()
    with pytest.raises(EncoderError, match=r"model\.safetensors cannot be read"):
        CompactEncoder.load(tmp_path / "encoder")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("encoder_id", "compact-0000000000000000", "names 'compact-0000000000000000'"),
        ("kind", "else", "kind 'else'"),
        ("layer", "other", "another preprocessing or layer"),
        ("architecture", {"blocks": [1, 1, 1], "depth": 3}, "no architecture that is known"),
        ("architecture", {**asdict(SMALL), "middle": 16}, "do not fit"),
        ("sha256", {}, "no sha256"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, field: str, value: object, message: str) -> None:
    _write(tmp_path / "encoder")
    path = tmp_path / "encoder" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(EncoderError, match=message):
        CompactEncoder.load(tmp_path / "encoder")


def test_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "encoder")
    (tmp_path / "encoder" / "manifest.json").write_text("{")
    with pytest.raises(EncoderError, match="not valid JSON"):
        CompactEncoder.load(tmp_path / "encoder")


def test_non_finite_weights_are_refused() -> None:
    weights = weights_of(_trained_like(0))
    weights["head.weight"][0, 0, 0, 0] = np.nan
    with pytest.raises(EncoderError, match=r"head\.weight.*non-finite"):
        CompactEncoder(SMALL, weights)

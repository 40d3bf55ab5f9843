"""Fewer tokens: merged ones come back to their patches, dropped ones are 0, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodied_vision.encoders import load_encoder
from embodied_vision.encoders.export import parity, sample_images
from embodied_vision.encoders.huggingface import HuggingFaceEncoder
from embodied_vision.encoders.merging import TokenPath, blocks_of
from embodied_vision.errors import EncoderError

from .test_huggingface import FAMILIES

TRANSFORMERS = [
    "dinov2", "dinov2_with_registers", "dinov3_vit", "siglip", "siglip2", "clip", "vit", "deit", "vit_mae",
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = {}
    for name in [*TRANSFORMERS, "convnext", "swin", "dinov3_convnext"]:
        torch.manual_seed(0)
        model, processor = FAMILIES[name][0]()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
        out[name] = folder
    return out


def pixels_of(encoder: HuggingFaceEncoder, seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(encoder.front.prepare(sample_images((96, 160), 1, seed=seed)[0]).pixels)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_all_patches_kept_and_none_merged_is_the_model_itself(name: str, folders: dict[str, Path]) -> None:
    for layers in ((), (1, -1)):
        encoder = HuggingFaceEncoder(str(folders[name]), layers=layers)
        pixels = pixels_of(encoder)
        with torch.inference_mode():
            exact = encoder.graph(pixels)
            count = exact.shape[1] * exact.shape[2]
            every = encoder.graph(pixels, keep=torch.arange(count))
            again = encoder.graph(pixels)
        torch.testing.assert_close(every, exact, rtol=1e-4, atol=2e-5)
        assert torch.equal(again, exact), "hooks leave nothing behind"


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_block_less_is_merged_and_every_patch_has_features(name: str, folders: dict[str, Path]) -> None:
    encoder = HuggingFaceEncoder(str(folders[name]))
    pixels = pixels_of(encoder)
    seen: list[int] = []
    encoder._path and blocks_of(encoder._model)[1].register_forward_pre_hook(
        lambda _block, args: seen.append(args[0].shape[1])
    )
    with torch.inference_mode():
        exact = encoder.graph(pixels)
        merged = encoder.graph(pixels, merge=3)
    assert seen == [seen[0], seen[0] - 3]
    assert merged.shape == exact.shape
    assert torch.isfinite(merged).all()
    assert not torch.equal(merged, exact)
    rows = merged.reshape(-1, merged.shape[3])
    assert len(torch.unique(rows, dim=0)) <= len(rows) - 1, "some patches share a token"


def test_the_same_patches_merge_without_loss(folders: dict[str, Path]) -> None:
    """An image of one color: but for their places, all patches are equal. SigLIP without places makes them so."""
    encoder = HuggingFaceEncoder(str(folders["siglip"]))
    with torch.no_grad():
        encoder._model.embeddings.position_embedding.weight.zero_()
    pixels = torch.full((1, 3, 72, 72), 0.3)
    with torch.inference_mode():
        exact, merged = encoder.graph(pixels), encoder.graph(pixels, merge=12)
    torch.testing.assert_close(merged, exact, rtol=1e-4, atol=1e-5)


def test_a_token_counts_as_often_as_the_patches_that_it_stands_for() -> None:
    """Two patches in three are equal. Attention over merged tokens is that over the patches."""
    import transformers

    torch.manual_seed(1)
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14, mlp_ratio=2
    )
    model = transformers.Dinov2Model(config).eval()
    with torch.no_grad():
        model.embeddings.position_embeddings.zero_()
    path = TokenPath(blocks_of(model))
    pixels = torch.randn(1, 3, 56, 56)
    pixels[..., :28, :] = pixels[..., :14, :14].repeat(1, 1, 2, 4)  # eight of sixteen patches
    with torch.inference_mode():
        exact = model(pixel_values=pixels).last_hidden_state[0, 1:]
        path.begin(16, merge=4)
        tokens = model(pixel_values=pixels).last_hidden_state
        path.end()
    assert tokens.shape[1] == 1 + 12
    torch.testing.assert_close(path.patches(tokens), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dinov2", "dinov3_vit", "siglip"])
def test_patches_left_out_are_zero_and_unseen(name: str, folders: dict[str, Path]) -> None:
    encoder = HuggingFaceEncoder(str(folders[name]))
    pixels = pixels_of(encoder)
    with torch.inference_mode():
        grid = encoder.graph(pixels)[0]
        count = grid.shape[0] * grid.shape[1]
        keep = torch.tensor([1, 2, 5, 6, count - 1])
        some = encoder.graph(pixels, keep=keep)[0].reshape(count, -1)
        p, columns = encoder.front.stride_px, grid.shape[1]
        other = pixels.clone()
        for index in sorted(set(range(count)) - set(keep.tolist())):
            row, column = divmod(index, columns)
            other[:, :, row * p : (row + 1) * p, column * p : (column + 1) * p] = 7.0
        same = encoder.graph(other, keep=keep)[0].reshape(count, -1)
        both = encoder.graph(pixels, keep=keep, merge=2)[0].reshape(count, -1)
    assert torch.equal(some, same), "what is left out has no influence"
    out = torch.ones(count, dtype=torch.bool)
    out[keep] = False
    for each in (some, both):
        assert (each[out] == 0).all()
        assert (each[keep].abs().sum(1) > 0).all()


def test_merging_has_an_id_of_its_own_and_little_is_near(folders: dict[str, Path]) -> None:
    plain, merged = load_encoder(folders["dinov2"]), load_encoder(f"{folders['dinov2']}+merge=1")
    assert merged.encoder_id == f"{plain.encoder_id}-merge1"
    image = sample_images((96, 160), 1)[0]
    cosine = parity(merged.encode(image).grid, plain.encode(image).grid).cosine
    assert 0.5 < cosine < 1 - 1e-6
    layers = load_encoder(f"{folders['dinov2']}+merge=1+layers=1,-1")
    assert layers.encode(image).grid.shape[2] == 2 * plain.dimension == layers.dimension


@pytest.mark.parametrize("merge", [5, 100])
def test_more_than_half_is_never_merged(merge: int, folders: dict[str, Path]) -> None:
    encoder = load_encoder(f"{folders['vit']}+merge={merge}")  # 9 patches
    assert np.isfinite(encoder.encode(sample_images((48, 48), 1)[0]).grid).all()


@pytest.mark.parametrize(
    ("name", "option"), [("convnext", "8"), ("swin", "8"), ("dinov3_convnext", "8"), ("vit", "-1")]
)
def test_what_cannot_merge_is_refused(name: str, option: str, folders: dict[str, Path]) -> None:
    with pytest.raises(EncoderError, match=r"merge=.*vision transformer"):
        load_encoder(f"{folders[name]}+merge={option}")
    with pytest.raises(EncoderError, match="takes no option merge"):
        load_encoder("default+merge=8")


def test_an_error_in_a_pass_leaves_the_next_one_alone(folders: dict[str, Path]) -> None:
    encoder: Any = HuggingFaceEncoder(str(folders["dinov2"]))
    pixels = pixels_of(encoder)
    with torch.inference_mode():
        exact = encoder.graph(pixels)
        with pytest.raises(IndexError):
            encoder.graph(pixels, keep=torch.tensor([10_000]))
        assert torch.equal(encoder.graph(pixels), exact)

"""Each family of transformers backbones, from a small random checkpoint in its own format, value for value."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from embodied_vision.encoders import Encoder, load_encoder
from embodied_vision.encoders.device import computing_on
from embodied_vision.encoders.huggingface import HuggingFaceEncoder
from embodied_vision.encoders.processor import Preprocessing, fit_patches
from embodied_vision.errors import EncoderError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
STAGES: dict[str, Any] = {"depths": [1, 1, 1, 1], "hidden_sizes": [4, 6, 8, 12]}


def _vit_processor(size: int) -> dict[str, Any]:
    return {"size": {"height": size, "width": size}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}


def _crop_processor(resize: int, crop: int) -> dict[str, Any]:
    return {
        "size": {"shortest_edge": resize},
        "do_center_crop": True,
        "crop_size": {"height": crop, "width": crop},
        "image_mean": MEAN,
        "image_std": STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }


def _dinov2() -> tuple[Any, dict[str, Any]]:
    config = transformers.Dinov2Config(**SMALL, image_size=70, patch_size=14, mlp_ratio=2)
    return transformers.Dinov2Model(config), _crop_processor(64, 56)


def _dinov2_registers() -> tuple[Any, dict[str, Any]]:
    config = transformers.Dinov2WithRegistersConfig(**SMALL, image_size=70, patch_size=14, mlp_ratio=2)
    return transformers.Dinov2WithRegistersModel(config), _crop_processor(64, 56)


def _dinov3() -> tuple[Any, dict[str, Any]]:
    config = transformers.DINOv3ViTConfig(**SMALL, image_size=64, patch_size=16, num_register_tokens=4)
    return transformers.DINOv3ViTModel(config), {**_vit_processor(64), "image_mean": MEAN, "image_std": STD}


def _dinov3_convnext() -> tuple[Any, dict[str, Any]]:
    return transformers.DINOv3ConvNextModel(transformers.DINOv3ConvNextConfig(**STAGES)), _vit_processor(64)


def _siglip() -> tuple[Any, dict[str, Any]]:
    vision = {**SMALL, "image_size": 72, "patch_size": 14}  # 72 is no multiple of 14, as in so400m-patch14-384
    text = {**SMALL, "vocab_size": 16, "max_position_embeddings": 8}
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)), _vit_processor(
        72
    )


def _siglip2() -> tuple[Any, dict[str, Any]]:
    vision = {**SMALL, "patch_size": 8, "num_patches": 36}
    text = {**SMALL, "vocab_size": 16, "max_position_embeddings": 8}
    processor = {"max_num_patches": 30, "patch_size": 8, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    return transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision)), processor


def _clip() -> tuple[Any, dict[str, Any]]:
    vision = {**SMALL, "image_size": 48, "patch_size": 16}
    text = {**SMALL, "vocab_size": 16, "max_position_embeddings": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    return transformers.CLIPModel(config), _crop_processor(48, 48)


def _vit() -> tuple[Any, dict[str, Any]]:
    config = transformers.ViTConfig(**SMALL, image_size=48, patch_size=16)
    return transformers.ViTForImageClassification(config), _vit_processor(48)  # a checkpoint without a pooler


def _deit() -> tuple[Any, dict[str, Any]]:
    return transformers.DeiTModel(transformers.DeiTConfig(**SMALL, image_size=48, patch_size=16)), _vit_processor(48)


def _mae() -> tuple[Any, dict[str, Any]]:
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = transformers.ViTMAEConfig(**SMALL, **decoder, image_size=48, patch_size=16)
    return transformers.ViTMAEForPreTraining(config), {**_vit_processor(48), "image_mean": MEAN, "image_std": STD}


def _convnext() -> tuple[Any, dict[str, Any]]:
    processor = {"size": {"shortest_edge": 64}, "crop_pct": 0.875, "image_mean": MEAN, "image_std": STD, "resample": 3}
    return transformers.ConvNextModel(transformers.ConvNextConfig(**STAGES)), processor


def _convnextv2() -> tuple[Any, dict[str, Any]]:
    _, processor = _convnext()
    return transformers.ConvNextV2Model(transformers.ConvNextV2Config(**STAGES)), processor


def _ijepa() -> tuple[Any, dict[str, Any]]:
    return transformers.IJepaModel(transformers.IJepaConfig(**SMALL, image_size=48, patch_size=16)), _vit_processor(48)


def _swinv2() -> tuple[Any, dict[str, Any]]:
    config = transformers.Swinv2Config(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4)
    return transformers.Swinv2Model(config), _vit_processor(64)


def _swin() -> tuple[Any, dict[str, Any]]:
    config = transformers.SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4)
    return transformers.SwinModel(config), _vit_processor(64)


# family: checkpoint, tokens before the patches (None: a map), px a cell, grid of a 48 × 80 image
FAMILIES: dict[str, tuple[Callable[[], tuple[Any, dict[str, Any]]], int | None, int, tuple[int, int]]] = {
    "dinov2": (_dinov2, 1, 14, (4, 4)),
    "dinov2_with_registers": (_dinov2_registers, 5, 14, (4, 4)),
    "dinov3_vit": (_dinov3, 5, 16, (4, 4)),
    "dinov3_convnext": (_dinov3_convnext, 1, 32, (2, 2)),
    "siglip": (_siglip, 0, 14, (5, 5)),
    "siglip2": (_siglip2, 0, 8, (4, 7)),
    "clip": (_clip, 1, 16, (3, 3)),
    "vit": (_vit, 1, 16, (3, 3)),
    "deit": (_deit, 2, 16, (3, 3)),
    "vit_mae": (_mae, 1, 16, (3, 3)),
    "convnext": (_convnext, None, 32, (2, 2)),
    "convnextv2": (_convnextv2, None, 32, (2, 2)),
    "swin": (_swin, 0, 8, (8, 8)),
    "swinv2": (_swinv2, 0, 8, (8, 8)),
    "ijepa": (_ijepa, 0, 16, (3, 3)),
}


INTERPOLATED = ("siglip", "clip", "vit", "deit", "vit_mae", "swin", "swinv2", "ijepa")
"""Families whose forward pass is asked to interpolate; the others do it by themselves, or know no positions."""
LARGEST_ERROR = 1e-4
"""Of any feature, against transformers, float32."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """By family: a folder as the hub holds it, and the model that was saved there."""
    out = {}
    for name, (make, *_) in FAMILIES.items():
        torch.manual_seed(0)
        model, processor = make()
        with torch.no_grad():  # some families start as zeros or as the identity in parts
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
        out[name] = (folder, model.eval())
    return out


def _image(rows: int = 48, columns: int = 80) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns]
    planes = [(x * 3) % 256, (y * 5) % 256, (x + 2 * y) % 256]
    return np.stack(planes, axis=2).astype(np.uint8)


def _pixels(processor: dict[str, Any], size: tuple[int, int], image: np.ndarray) -> torch.Tensor:
    """Written anew here, in float64, so that the encoder is not compared with itself."""
    resized = Image.fromarray(image).resize(size[::-1], processor["resample"])
    values = np.asarray(resized, np.float64) / 255
    values = (values - processor["image_mean"]) / processor["image_std"]
    return torch.from_numpy(values).permute(2, 0, 1)[None].float()


def _vision_forward(name: str, model: Any, pixels: torch.Tensor, another_size: bool = False) -> torch.Tensor:
    """transformers' own forward pass, asked to interpolate position embeddings as its documentation says for each."""
    with torch.no_grad():
        more: dict[str, Any] = {"interpolate_pos_encoding": True} if another_size and name in INTERPOLATED else {}
        if name in ("siglip", "clip"):
            return model.vision_model(pixel_values=pixels, **more).last_hidden_state
        if name == "vit":
            return model.vit(pixel_values=pixels, **more).last_hidden_state
        if name == "vit_mae":
            model.config.mask_ratio = 0.0
            patches = (pixels.shape[2] // 16) * (pixels.shape[3] // 16)
            out = model.vit(pixel_values=pixels, noise=torch.arange(patches).float()[None], **more)
            assert torch.equal(out.ids_restore[0], torch.arange(patches))
            return out.last_hidden_state
        if name == "siglip2":
            rows, columns = pixels.shape[2] // 8, pixels.shape[3] // 8
            patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).reshape(1, rows * columns, -1)
            inputs = {"pixel_values": patches, "spatial_shapes": torch.tensor([[rows, columns]])}
            mask = torch.ones(1, rows * columns, dtype=torch.int64)
            return model.vision_model(**inputs, pixel_attention_mask=mask).last_hidden_state
        return model(pixel_values=pixels, **more).last_hidden_state


def _assert_equal(name: str, features: np.ndarray, hidden: torch.Tensor, grid: tuple[int, int]) -> None:
    """Value for value, float32."""
    prefix = FAMILIES[name][1]
    if prefix is None:
        expected = hidden[0].permute(1, 2, 0)
    else:
        assert hidden.shape[1] == prefix + grid[0] * grid[1]
        expected = hidden[0, prefix:].reshape(*grid, -1)
    assert features.dtype == np.float32
    assert features.shape == (*grid, expected.shape[2])
    assert float(np.abs(features - expected.numpy()).max()) <= LARGEST_ERROR


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "siglip2"])
def test_features_are_those_of_transformers(name: str, checkpoints: dict[str, tuple[Path, Any]]) -> None:
    _, _, px, grid = FAMILIES[name]
    folder, model = checkpoints[name]
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    size = processor.get("crop_size") or processor["size"]
    side = size.get("height") or size["shortest_edge"]
    image = _image()
    encoder = HuggingFaceEncoder(str(folder))
    features = encoder.encode(image, stamp_ns=9)
    _assert_equal(name, features.grid, _vision_forward(name, model, _pixels(processor, (side, side), image)), grid)
    assert features.stride == pytest.approx((px * 48 / side, px * 80 / side))
    assert (encoder.dimension, features.stamp_ns) == (features.grid.shape[2], 9)


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_transformers_at_other_sizes(name: str, checkpoints: dict[str, tuple[Path, Any]]) -> None:
    """Wide, high, and a single row of patches: position embeddings are interpolated as the model does it.

    Swin takes no input of less than a window.
    """
    folder, model = checkpoints[name]
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    px = FAMILIES[name][2]
    for rows, columns in ((3, 7), (8, 2), (1, 4)):
        grid = (max(rows, 4), max(columns, 4)) if name.startswith("swin") else (rows, columns)
        size = (grid[0] * px, grid[1] * px)
        image = _image(*size)  # of that size, so that wide patches are no excuse
        features = load_encoder(f"{folder}+size={size[0]}x{size[1]}").encode(image)
        hidden = _vision_forward(name, model, _pixels(processor, size, image), another_size=True)
        _assert_equal(name, features.grid, hidden, grid)
        assert features.stride == (px, px)


def test_siglip2_keeps_the_shape_of_the_image(checkpoints: dict[str, tuple[Path, Any]]) -> None:
    """Against transformers' own processor, which pads the patches and masks the padding."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    folder, model = checkpoints["siglip2"]
    image = _image()
    processor = Siglip2ImageProcessorPil(**json.loads((folder / "preprocessor_config.json").read_text()))
    inputs = processor(images=image, return_tensors="pt")
    rows, columns = inputs["spatial_shapes"][0].tolist()
    with torch.no_grad():
        hidden = model.vision_model(**inputs).last_hidden_state
    expected = hidden[0, : rows * columns].reshape(rows, columns, -1).numpy()
    features = HuggingFaceEncoder(str(folder)).encode(image)
    assert features.grid.shape[:2] == FAMILIES["siglip2"][3]
    assert float(np.abs(features.grid - expected).max()) <= LARGEST_ERROR
    assert features.stride == pytest.approx((48 / rows, 80 / columns))


def test_resizing_is_that_of_transformers_own_processor() -> None:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    image = _image()
    theirs = ViTImageProcessorPil(size={"height": 32, "width": 24}, image_mean=MEAN, image_std=STD, resample=2)
    ours = Preprocessing((32, 24), 0, 2, 1 / 255, tuple(MEAN), tuple(STD))
    expected = np.asarray(theirs(images=image, return_tensors="np")["pixel_values"][0])
    np.testing.assert_allclose(ours.apply(image, (32, 24)), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(48, 80), (240, 424), (31, 7), (1080, 1920)])
def test_naflex_size_is_that_of_transformers(shape: tuple[int, int]) -> None:
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    assert fit_patches(shape, 16, 256) == get_image_size_for_max_num_patches(*shape, 16, 256)


def test_an_input_that_a_network_cannot_take_is_refused(checkpoints: dict[str, tuple[Path, Any]]) -> None:
    with pytest.raises(EncoderError, match=r"images of 16 x 56 px.*give a larger size"):
        load_encoder(f"{checkpoints['swin'][0]}+size=16x56")


def test_id_follows_weights_and_preprocessing_and_nothing_else(
    checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    """The ViT checkpoint lacks the pooler, which transformers fills with random numbers at each load."""
    folder, model = checkpoints["vit"]
    first, again = HuggingFaceEncoder(str(folder)), load_encoder(folder)
    assert first.encoder_id == again.encoder_id
    assert isinstance(again, Encoder)
    assert first.encode(_image()).grid.tobytes() == again.encode(_image()).grid.tobytes()

    copy = tmp_path / "copy"
    model.save_pretrained(copy)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps({**processor, "image_std": [0.25] * 3}))
    assert HuggingFaceEncoder(str(copy)).encoder_id != first.encoder_id

    other = transformers.ViTForImageClassification(model.config)
    other.save_pretrained(copy)
    (copy / "preprocessor_config.json").write_text(json.dumps(processor))
    assert HuggingFaceEncoder(str(copy)).encoder_id != first.encoder_id


def test_processor_within_a_processor_config_is_read(checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder, model = checkpoints["vit"]
    model.save_pretrained(tmp_path)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
    assert HuggingFaceEncoder(str(tmp_path)).encoder_id == HuggingFaceEncoder(str(folder)).encoder_id


def test_a_model_that_is_not_in_the_cache_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"hf download nobody/no-such-model"):
        load_encoder("nobody/no-such-model")


def test_a_gated_model_says_how_to_get_access(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("You are trying to access a gated repo. Make sure to have access to it.")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(EncoderError, match=r"accept its licence at https://huggingface\.co/facebook/dinov3"):
        HuggingFaceEncoder("facebook/dinov3-vits16-pretrain-lvd1689m", local_files_only=False)


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path, Sequence[str]], None]:
    """Lays files of a folder into an otherwise empty cache of the hub, as `hf download` does; without a network."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def lay(name: str, folder: Path, files: Sequence[str]) -> None:
        root, commit = tmp_path / "hub" / f"models--{name.replace('/', '--')}", "0" * 40
        snapshot = root / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(commit)
        for file in files:
            shutil.copy(folder / file, snapshot / file)

    return lay


def test_a_hub_name_is_the_model_in_the_cache(
    put: Callable[[str, Path, Sequence[str]], None], checkpoints: dict[str, tuple[Path, Any]]
) -> None:
    folder, _ = checkpoints["dinov2"]
    put("someone/small", folder, [file.name for file in folder.iterdir()])
    here, there = load_encoder(folder), load_encoder("someone/small")
    assert there.encoder_id == here.encoder_id
    assert there.encode(_image()).grid.tobytes() == here.encode(_image()).grid.tobytes()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["config.json"], r"hf download someone/partly"),
        (["config.json", "model.safetensors"], r"neither preprocessor_config\.json"),
        (["config.json", "preprocessor_config.json", "pytorch_model.bin"], r"safetensors"),
        (["preprocessor_config.json", "model.safetensors"], r"hf download someone/partly"),
    ],
)
def test_a_model_that_is_partly_in_the_cache_says_what_is_missing(
    files: Sequence[str],
    words: str,
    put: Callable[[str, Path, Sequence[str]], None],
    checkpoints: dict[str, tuple[Path, Any]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "all"
    shutil.copytree(checkpoints["dinov2"][0], folder)
    torch.save(checkpoints["dinov2"][1].state_dict(), folder / "pytorch_model.bin")
    put("someone/partly", folder, files)
    with pytest.raises(EncoderError, match=words):
        load_encoder("someone/partly")


def test_weights_in_several_files_are_those_of_one(checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder, model = checkpoints["dinov2"]
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shutil.copy(folder / "preprocessor_config.json", tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert load_encoder(tmp_path).encoder_id == load_encoder(folder).encoder_id
    shards[0].unlink()
    with pytest.raises(EncoderError, match=r"cannot be loaded.*copy it again"):
        load_encoder(tmp_path)


def test_missing_folder_is_no_hub_name(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no folder"):
        load_encoder(tmp_path / "nowhere")


def test_truncated_weights_are_refused(checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    checkpoints["vit"][1].save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        HuggingFaceEncoder(str(tmp_path))


def test_pickled_weights_are_not_read(checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder, model = checkpoints["vit"]
    model.config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text((folder / "preprocessor_config.json").read_text())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="only whole safetensors"):
        HuggingFaceEncoder(str(tmp_path))


def test_code_from_a_repository_is_not_run(checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    checkpoints["vit"][1].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(EncoderError, match=r"not run unless you ask for it.*\+code=run"):
        HuggingFaceEncoder(str(tmp_path))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(EncoderError, match="code=yes is not understood"):
        load_encoder(f"{tmp_path}+code=yes")


OWN_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class OwnConfig(PretrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.patches = torch.nn.Conv2d(3, 6, 16, 16)
        self.post_init()

    def forward(self, pixel_values):
        return BaseModelOutput(self.patches(pixel_values).flatten(2).transpose(1, 2) * FACTOR)
"""


def test_code_that_is_asked_for_by_name_is_run_and_part_of_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    weights = {"patches.weight": torch.randn(6, 3, 16, 16), "patches.bias": torch.randn(6)}
    code = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    ids, grids = [], []
    for name in ("1", "2"):
        folder = tmp_path / f"model_{name}"
        folder.mkdir()
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps({"model_type": "own", "patch_size": 16, "auto_map": code}))
        (folder / "preprocessor_config.json").write_text(json.dumps(_vit_processor(48)))
        (folder / "own.py").write_text(OWN_CODE.replace("FACTOR", name))
        encoder = load_encoder(f"{folder}+code=run")
        ids.append(encoder.encoder_id)
        grids.append(encoder.encode(_image()).grid)
    expected = torch.nn.functional.conv2d(_pixels(_vit_processor(48), (48, 48), _image()), *weights.values(), stride=16)
    np.testing.assert_allclose(grids[0], expected[0].permute(1, 2, 0).numpy(), atol=1e-4)
    np.testing.assert_allclose(grids[1], 2 * grids[0], rtol=1e-6)
    assert ids[0] != ids[1]


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "siglip2"])  # which reads values on the way
def test_everything_is_computed_where_the_image_lies(name: str, checkpoints: dict[str, tuple[Path, Any]]) -> None:
    """On a device of torch without memory, which refuses tensors of another as CUDA does."""
    encoder = HuggingFaceEncoder(str(checkpoints[name][0]), device="cpu")
    prepared = encoder.front.prepare(_image())
    meta = torch.device("meta")
    with torch.inference_mode(), computing_on(meta):
        grid = encoder.graph(torch.from_numpy(prepared.pixels).to(meta))
    assert grid.device == meta
    assert grid.shape == (1, *prepared.grid, encoder.dimension)


def test_incomplete_weights_are_refused(checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = checkpoints["dinov2"]
    tensors = load_file(folder / "model.safetensors")
    gone = next(key for key in tensors if "query.weight" in key)
    save_file({k: v for k, v in tensors.items() if k != gone}, tmp_path / "model.safetensors", {"format": "pt"})
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_text((folder / file).read_text())
    with pytest.raises(EncoderError, match=r"lacks 1 weights.*q_proj\.weight"):
        HuggingFaceEncoder(str(tmp_path))


def test_without_a_processor_config_nothing_is_guessed(
    checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    checkpoints["vit"][1].save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="input size and normalisation are unknown"):
        HuggingFaceEncoder(str(tmp_path))


@pytest.mark.parametrize("text", ["{", '{"size": {"longest_side": 3}}', "[]"])
def test_a_processor_config_that_makes_no_sense_is_refused(
    text: str, checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    checkpoints["vit"][1].save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(EncoderError, match=r"preprocessor_config\.json"):
        HuggingFaceEncoder(str(tmp_path))


def test_input_size_in_parts_of_patches_is_refused(checkpoints: dict[str, tuple[Path, Any]]) -> None:
    with pytest.raises(EncoderError, match="multiples of 14"):
        HuggingFaceEncoder(str(checkpoints["dinov2"][0]), image_size=(56, 60))


def test_refuses_what_is_no_rgb_image(checkpoints: dict[str, tuple[Path, Any]]) -> None:
    with pytest.raises(EncoderError, match="give uint8"):
        HuggingFaceEncoder(str(checkpoints["vit"][0])).encode(np.zeros((8, 8, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dinov2", "dinov3_vit", "siglip", "vit_mae", "clip"])
def test_several_layers_stand_side_by_side(name: str, checkpoints: dict[str, tuple[Path, Any]]) -> None:
    folder, _ = checkpoints[name]
    parts = [load_encoder(f"{folder}+layers={layer}") for layer in (0, 1, -1)]
    both = load_encoder(f"{folder}+layers=0,1,-1")
    image = _image()
    expected = np.concatenate([part.encode(image).grid for part in parts], axis=2)
    np.testing.assert_array_equal(both.encode(image).grid, expected)
    assert both.dimension == 3 * SMALL["hidden_size"]
    assert len({encoder.encoder_id for encoder in (*parts, both, load_encoder(folder))}) == 5
    with pytest.raises(EncoderError, match="has 3 hidden states and was asked for"):
        load_encoder(f"{folder}+layers=7")


def test_layers_are_transformers_hidden_states(checkpoints: dict[str, tuple[Path, Any]]) -> None:
    folder, model = checkpoints["dinov2"]
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    with torch.no_grad():
        states = model(pixel_values=_pixels(processor, (56, 56), _image()), output_hidden_states=True).hidden_states
    expected = states[1][0, 1:].reshape(4, 4, -1).numpy()
    np.testing.assert_allclose(load_encoder(f"{folder}+layers=1").encode(_image()).grid, expected, rtol=1e-4, atol=2e-5)


def test_layers_of_a_hierarchy_are_refused(checkpoints: dict[str, tuple[Path, Any]]) -> None:
    folder, _ = checkpoints["convnext"]
    with pytest.raises(EncoderError, match="convnext"):
        load_encoder(f"{folder}+layers=1,-1")

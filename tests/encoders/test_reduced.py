"""Less precision than float32: near enough in features, and used only after a policy was measured with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers

from embodied_vision.encoders import export as export_module
from embodied_vision.encoders import load_encoder, quantise
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.encoders.export import (
    INTEGERS,
    REDUCED_COSINE,
    Parity,
    export,
    note_passed,
    parity,
    read_reduced,
    sample_images,
    to_onnx,
)
from embodied_vision.encoders.exported import ExportedEncoder
from embodied_vision.encoders.huggingface import HuggingFaceEncoder
from embodied_vision.encoders.runtimes import CACHE_VARIABLE, REDUCED
from embodied_vision.errors import EncoderError

SIZE = (64, 96)
PASSED = {"checkpoint_id": "abc", "task": "t"}


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Parity]]:
    """The shipped encoder, exported with less precision, and how near that is."""
    folder = tmp_path_factory.mktemp("reduced") / "encoder"
    return folder, export(load_encoder(), folder, sample_images(SIZE), threads=1, reduced=True)  # type: ignore[arg-type]


@pytest.fixture
def folder(made: tuple[Path, dict[str, Parity]], tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in made[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_features_of_less_precision_are_near_and_not_the_same(made: tuple[Path, dict[str, Parity]]) -> None:
    folder, found = made
    assert set(read_reduced(folder)) == set(REDUCED)
    assert (folder / INTEGERS).stat().st_size < 0.5 * (folder / "model.onnx").stat().st_size
    encoder, image = load_encoder(), sample_images(SIZE, 1, seed=8)[0]
    for name in REDUCED:
        assert found[name].near
        assert not found[name].exact
        loaded = ExportedEncoder.load(folder, name, trial=True)
        assert loaded.encoder_id == encoder.encoder_id
        assert loaded.artefact_id.endswith(name.split("-")[1])
        measured = parity(loaded.encode(image).grid, encoder.encode(image).grid)
        assert REDUCED_COSINE <= measured.cosine < 1 - 1e-6, "on an image that it was not calibrated on"


def test_it_is_used_only_after_a_policy_was_measured_with_it(folder: Path) -> None:
    name = f"{folder}+runtime=onnxruntime-int8"
    with pytest.raises(EncoderError, match=r"no policy was measured with onnxruntime-int8.*encoder gate"):
        load_encoder(name)
    assert load_encoder(f"{name}+trial=yes").artefact_id.endswith("int8")
    note_passed(folder, "onnxruntime-int8", PASSED)
    assert load_encoder(name).artefact_id.endswith("int8")
    with pytest.raises(EncoderError, match="no policy was measured with openvino-int8"):
        load_encoder(f"{folder}+runtime=openvino-int8")
    assert load_encoder(folder).artefact_id.endswith("float32"), "auto takes exact runtimes alone"
    note_passed(folder, "onnxruntime-int8", {**PASSED, "scenes": 5})
    note_passed(folder, "onnxruntime-int8", {**PASSED, "checkpoint_id": "other"})
    passed = read_reduced(folder)["onnxruntime-int8"]["passed"]
    assert passed == [{**PASSED, "scenes": 5}, {**PASSED, "checkpoint_id": "other"}]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_an_artefact_without_it_says_how_to_get_it(tmp_path: Path) -> None:
    export(CompactEncoder.random(3), tmp_path / "plain", sample_images((16, 16), 1), threads=1)
    assert read_reduced(tmp_path / "plain") == {}
    with pytest.raises(EncoderError, match=r"not exported for openvino-int8.*onnxruntime, openvino.*--reduced"):
        load_encoder(f"{tmp_path / 'plain'}+runtime=openvino-int8+trial=yes")


def test_what_is_too_far_off_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "REDUCED_COSINE", 1.1)
    tried: list[int] = []
    real = quantise.quantise

    def count(ready: Path, target: Path, inputs: Any, keep: Any) -> None:
        tried.append(len(keep))
        real(ready, target, inputs, keep)

    monkeypatch.setattr(quantise, "quantise", count)
    found = export(CompactEncoder.random(3), tmp_path / "out", sample_images((16, 16), 1), threads=1, reduced=True)
    assert set(found) >= set(REDUCED)
    assert read_reduced(tmp_path / "out") == {}
    assert not (tmp_path / "out" / INTEGERS).exists()
    assert tried[0] == 0
    assert sorted(set(tried)) == tried, "more of the network stays float at each try"


def test_sensitive_products_stay_float(tmp_path: Path) -> None:
    """A transformer with an outlier channel, as large ones have, in its first block."""
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
    )
    model = transformers.Dinov2Model(config)
    with torch.no_grad():
        model.encoder.layer[0].norm1.weight[5] = 300.0
    model.save_pretrained(tmp_path / "model")
    processor = {"size": {"height": 56, "width": 56}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(processor))
    encoder = HuggingFaceEncoder(str(tmp_path / "model"))
    inputs = [{"pixels": encoder.front.prepare(image).pixels} for image in sample_images((56, 56), 3)]
    to_onnx(encoder, inputs[0]["pixels"], tmp_path / "model.onnx")
    quantise.prepare(tmp_path / "model.onnx", tmp_path / "ready.onnx")
    order = quantise.by_sensitivity(tmp_path / "ready.onnx", inputs)
    network = onnx.load(tmp_path / "ready.onnx").graph
    nodes = {node.name: node for node in network.node if node.op_type in quantise.KINDS}
    assert sorted(order) == sorted(nodes)
    reshaped = {node.output[0]: node.input[0] for node in network.node if node.op_type == "Reshape"}
    read = {reshaped.get(nodes[name].input[0], nodes[name].input[0]) for name in order[:3]}
    assert len(read) == 1, "query, key and value of the first block read the outlier"
    quantise.quantise(tmp_path / "ready.onnx", tmp_path / "int8.onnx", inputs, order[:3])
    whole = onnx.load(tmp_path / "int8.onnx").graph
    made_by = {output: node.op_type for node in whole.node for output in node.output}
    floats = {
        node.name
        for node in whole.node
        if node.op_type in quantise.KINDS and made_by.get(node.input[0]) != "DequantizeLinear"
    }
    assert floats == set(order[:3])


def test_a_damaged_model_of_integers_is_found(folder: Path) -> None:
    path = folder / INTEGERS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EncoderError, match="damaged"):
        load_encoder(f"{folder}+runtime=openvino-int8+trial=yes")
    assert load_encoder(folder).encode(np.zeros((*SIZE, 3), np.uint8)).grid.shape == (8, 12, 32)

"""Artefacts whose networks merge tokens or compute the workspace's patches alone: near, gated, never by themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from embodied_vision.encoders import export as export_module
from embodied_vision.encoders import load_encoder
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.encoders.export import Parity, export, note_passed, parity, read_reduced, sample_images
from embodied_vision.encoders.exported import ExportedEncoder
from embodied_vision.encoders.huggingface import HuggingFaceEncoder
from embodied_vision.encoders.region import Region, encode_seen, partial_features, prepare_seen
from embodied_vision.encoders.runtimes import CACHE_VARIABLE, Setting, read_setting
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import look_at
from embodied_vision.types import Camera, Workspace

from .test_huggingface import FAMILIES

REGION = Region(Workspace(x=(0.45, 0.55), y=(-0.05, 0.05), z=(-0.01, 0.05)), 0.0)
SIZE = (96, 96)
K = np.array([[140.0, 0, 47.5], [0, 140.0, 47.5], [0, 0, 1]])


def camera(x: float = 0.5, z: float = 1.0) -> Camera:
    return Camera("camera", 96, 96, K, look_at((x, 0.001, z), (x, 0, 0)))


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceEncoder:
    torch.manual_seed(0)
    model, processor = FAMILIES["dinov3_vit"][0]()  # class token, registers, and places turned into keys and queries
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return HuggingFaceEncoder(str(folder), image_size=SIZE)


@pytest.fixture(scope="module")
def made(encoder: HuggingFaceEncoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Parity]]:
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    images = sample_images(SIZE, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "REDUCED_COSINE", -1.0)  # a network of random weights
        patch.setattr(export_module, "installed", lambda: ("onnxruntime", "openvino"))
        return folder, export(
            encoder, folder, images, threads=1, merge=[3], region=REGION, cameras=[camera(), camera(0.49)]
        )


@pytest.fixture
def folder(made: tuple[Path, dict[str, Parity]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(export_module, "REDUCED_COSINE", -1.0)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in made[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


NAMES = {
    f"{kind}{variant}" for kind in ("onnxruntime", "openvino") for variant in ("-merge3", "-region", "-merge3-region")
}


def test_names_of_settings_are_read_back() -> None:
    for setting in (Setting("openvino"), Setting("openvino-int8", 8, True), Setting("onnxruntime", 0, True)):
        assert read_setting(setting.name) == setting
    assert Setting("openvino").exact
    assert not Setting("openvino-int8").exact
    assert not Setting("openvino", 8).exact
    assert Setting("openvino-int8", 8).file == "model-merge8-int8.onnx"
    for name in ("tensorrt", "openvino-merge0", "openvino-region-merge8", "openvino-int4", "auto", "", "openvino-"):
        with pytest.raises(EncoderError, match="is unknown"):
            read_setting(name)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_runtime_computes_what_torch_does_with_as_little(
    name: str, folder: Path, made: tuple[Path, dict[str, Parity]], encoder: HuggingFaceEncoder
) -> None:
    assert set(read_reduced(folder)) == NAMES
    setting, image, seen = read_setting(name), sample_images(SIZE, 1, seed=7)[0], camera(0.495)
    with pytest.raises(EncoderError, match=f"no policy was measured with {name}.*encoder gate"):
        load_encoder(f"{folder}+runtime={name}")
    loaded = load_encoder(f"{folder}+runtime={name}+trial=yes")
    features = encode_seen(loaded, image, seen, 4)
    assert loaded.encoder_id == encoder.encoder_id == features.encoder_id
    assert loaded.artefact_id.endswith(f"float32{setting.variant}")
    assert (features.stamp_ns, features.stride, features.grid.shape) == (4, (16.0, 16.0), (6, 6, 24))
    prepared, wanted = prepare_seen(encoder.front, REGION, image, seen)
    if not setting.region:
        with torch.inference_mode():
            expected = encoder.graph(torch.from_numpy(prepared.pixels), merge=3)[0].numpy()
        assert parity(features.grid, expected).exact
        return
    assert 4 <= wanted.sum() < 30
    assert (features.grid[~wanted] == 0).all()
    taken = loaded.part.take(encoder.front, image, seen)  # type: ignore[attr-defined]
    computed = np.zeros(36, bool)
    computed[taken.keep] = True
    assert computed.reshape(6, 6)[wanted].all()
    expected = partial_features(encoder, prepared.pixels, computed.reshape(6, 6), setting.merge)
    assert parity(features.grid[wanted], expected[wanted]).exact


def test_exact_runtimes_are_as_before_and_taken_by_themselves(folder: Path, encoder: HuggingFaceEncoder) -> None:
    note_passed(folder, "onnxruntime-merge3", {"checkpoint_id": "abc"})
    plain, image = load_encoder(folder), sample_images(SIZE, 1)[0]
    assert plain.artefact_id.endswith("float32")
    assert parity(plain.encode(image).grid, encoder.encode(image).grid).exact
    assert load_encoder(f"{folder}+runtime=onnxruntime-merge3").artefact_id.endswith("merge3")


def test_what_does_not_fit_is_computed_whole_and_told(
    folder: Path, encoder: HuggingFaceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_encoder(f"{folder}+runtime=onnxruntime-region+trial=yes")
    image = sample_images(SIZE, 1)[0]
    for seen in (None, camera(z=0.25), camera(z=0.25)):
        features = encode_seen(loaded, image, seen)
        assert features.artefact_id.endswith("float32"), "the exact one"
        assert parity(features.grid, encoder.encode(image).grid).exact
    assert len(caplog.records) == 2, "told once each"
    with pytest.raises(EncoderError, match="calibrated for 96x96"):
        encode_seen(loaded, image[:48], camera())


def test_it_is_refused_where_it_is_not_near_or_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "REDUCED_COSINE", 1.1)
    with pytest.raises(EncoderError, match="does not compute here what torch did"):
        load_encoder(f"{folder}+runtime=onnxruntime-region+trial=yes")
    path = folder / "model-merge3.onnx"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(EncoderError, match="damaged"):
        load_encoder(f"{folder}+runtime=onnxruntime-merge3+trial=yes")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "part": {"region": {}}}))
    with pytest.raises(EncoderError, match="no exported encoder"):
        load_encoder(f"{folder}+runtime=onnxruntime-region+trial=yes")
    (folder / "manifest.json").write_text(json.dumps({**manifest, "part": None}))
    with pytest.raises(EncoderError, match="not exported for onnxruntime-region"):
        load_encoder(f"{folder}+runtime=onnxruntime-region+trial=yes")


def test_a_network_without_tokens_computes_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "installed", lambda: ("onnxruntime",))
    encoder, size = load_encoder(), (240, 320)
    K = np.array([[280.0, 0, 159.5], [0, 280.0, 119.5], [0, 0, 1]])
    seen = Camera("camera", 320, 240, K, look_at((0.5, 0.001, 1.0), (0.5, 0, 0)))
    images = sample_images(size, 2)
    found = export(encoder, tmp_path / "out", images, threads=1, region=REGION, cameras=[seen, seen])  # type: ignore[arg-type]
    assert found["onnxruntime-region"].near
    loaded = ExportedEncoder.load(tmp_path / "out", "onnxruntime-region", trial=True)
    assert loaded.part is not None
    assert loaded.part.window is not None
    assert loaded.part.window < (20, 20)
    _, wanted = prepare_seen(encoder.front, REGION, images[1], seen)  # type: ignore[attr-defined]
    features = loaded.encode_seen(images[1], seen)
    assert parity(features.grid[wanted], encoder.encode(images[1]).grid[wanted]).near
    assert (features.grid[~wanted] == 0).all()


def test_what_cannot_be_exported_is_told(encoder: HuggingFaceEncoder, tmp_path: Path) -> None:
    images = sample_images(SIZE, 1)
    with pytest.raises(EncoderError, match=r"merge \[8\].*vision transformer"):
        export(CompactEncoder.random(0), tmp_path / "out", images, merge=[8])
    with pytest.raises(EncoderError, match="from 1 on"):
        export(encoder, tmp_path / "out", images, merge=[0])
    with pytest.raises(EncoderError, match="needs the camera of every image"):
        export(encoder, tmp_path / "out", images, region=REGION)
    for name in ("default+region=yes", "default+tile=64", "default+reuse=exact"):
        with pytest.raises(EncoderError, match="no network that could be exported"):
            export(load_encoder(name), tmp_path / "out", images)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()

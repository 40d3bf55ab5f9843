"""Low-rank adapters: nothing changes at first, training moves the updates alone, merged is what was trained."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from embodied_vision.encoders import Encoder, load_encoder
from embodied_vision.encoders.adapter_card import write_student
from embodied_vision.encoders.adapters import CONFIG, WEIGHTS, AdaptedEncoder
from embodied_vision.encoders.adapting import AdapterStudent, LowRank
from embodied_vision.encoders.card import training_record
from embodied_vision.encoders.correspondence import Drawing, sample_batch
from embodied_vision.encoders.huggingface import HuggingFaceEncoder
from embodied_vision.encoders.objective import Step
from embodied_vision.encoders.pretrain import OBJECTIVES, Pretraining, PretrainSettings
from embodied_vision.errors import EncoderError

from .conftest import MakeSets
from .test_huggingface import FAMILIES

QUICK = PretrainSettings(steps=4, pairs=2, crop_px=56, points=32, learning_rate=1e-2)
RANK = 4


def _save(family: str, folder: Path, seed: int = 0) -> Path:
    """A small random checkpoint as the hub holds it."""
    torch.manual_seed(seed)
    model, processor = FAMILIES[family][0]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def _image(size: tuple[int, int] = (48, 80)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)


def _moved(student: AdapterStudent, size: float = 0.1) -> AdapterStudent:
    """With averaged updates as training could leave them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.average.parameters():
            parameter.normal_(0, size, generator=generator)
    return student


def _write(student: AdapterStudent, folder: Path) -> Path:
    write_student(folder, student, training_record(QUICK, {"simulated": ["made up"]}, "the test", 0.0), None)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save("dinov2", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def written(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose updates are not zero; copied before it is damaged."""
    return _write(_moved(AdapterStudent(LowRank(str(base), RANK), 0)), tmp_path_factory.mktemp("adapter") / "written")


@pytest.mark.parametrize("family", ["dinov2", "dinov3_vit", "siglip", "siglip2", "vit_mae", "swinv2", "convnext"])
def test_at_first_the_base_bit_for_bit_and_merged_as_unmerged(family: str, tmp_path: Path) -> None:
    folder, image = _save(family, tmp_path / "base"), _image()
    plain = load_encoder(folder)
    trained = LowRank(str(folder), RANK)
    student = AdapterStudent(trained, 0)
    for encoder in (trained.encoder, student.encoder()):
        assert encoder.encode(image).grid.tobytes() == plain.encode(image).grid.tobytes()

    # The zeros of B hide A from the first gradient; every B must have one.
    side = 4 * student.stride_px
    crops = student.prepare(torch.from_numpy(_image(size=(side, side))[None]).permute(0, 3, 1, 2))
    features = student.network(crops)
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, parameter in student.network.named_parameters():
        if "lora_B" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    assert all(parameter.grad is None for parameter in trained.whole.parameters())

    unmerged = _moved(student).encoder()
    merged = load_encoder(_write(student, tmp_path / "adapter"))
    assert isinstance(merged, AdaptedEncoder)
    assert not [name for name, _ in merged.backbone.named_modules() if "lora" in name]
    before, apart, together = (e.encode(image).grid for e in (plain, unmerged, merged))
    assert np.abs(apart - before).max() > 1e-3
    np.testing.assert_allclose(together, apart, atol=1e-5)
    assert merged.encoder_id == unmerged.encoder_id
    assert len({plain.encoder_id, trained.encoder.encoder_id, merged.encoder_id}) == 2


def test_only_the_updates_change_and_they_lower_the_objective(base: Path, make_sets: MakeSets) -> None:
    trained, sets = LowRank(str(base), RANK), make_sets(4)
    former = {name: value.clone() for name, value in trained.whole.state_dict().items()}
    run = Pretraining(replace(QUICK, steps=16, objectives={"match": 1.0}), sets, trained)
    pairs = sample_batch(np.random.default_rng(7), make_sets(4, first=50), 6, Drawing(56, 32, zoom=0.5))
    colors = torch.from_numpy(np.stack([view.color for pair in pairs for view in pair.views])).permute(0, 3, 1, 2)
    crops = run.student.prepare(colors)

    def loss() -> float:
        with torch.no_grad():
            features = run.student.average(crops)
            rng = np.random.default_rng(0)
            step = Step(run.student.network, run.student.average, pairs, crops, features, rng)
            return float(run.objectives["match"](step)[0])

    before = loss()
    for figures in run.advance():
        assert np.isfinite(figures["loss"])
    assert loss() < before - 0.05, (before, loss())
    for name, value in trained.whole.state_dict().items():
        assert torch.equal(value, former[name]), name


def test_stopping_and_going_on_is_exact_and_bound_to_the_backbone(
    base: Path, make_sets: MakeSets, tmp_path: Path
) -> None:
    sets, state = make_sets(2), tmp_path / "state.safetensors"
    settings = replace(
        QUICK, pairs=1, crop_px=112, objectives=dict.fromkeys(OBJECTIVES, 0.5)
    )  # fits both kinds of student
    trained = LowRank(str(base), RANK)
    whole = Pretraining(settings, sets, trained)
    losses = [figures["loss"] for figures in whole.advance()]
    first = Pretraining(settings, sets, trained)
    before = [figures["loss"] for figures in first.advance(until=2)]
    first.save(state)
    kept = [name for name in load_file(state) if name.startswith(("network.", "average."))]
    assert len(kept) == 2 * 2 * 2 * 6
    assert all("lora_" in name for name in kept)
    second = Pretraining(settings, sets, LowRank(str(base), RANK))
    second.restore(state)
    assert before + [figures["loss"] for figures in second.advance()] == losses
    assert second.encoder().encoder_id == whole.encoder().encoder_id
    for name, value in whole.weights().items():
        assert value.tobytes() == second.weights()[name].tobytes(), name

    for other, words in ((LowRank(str(base), 3), "rank 4, this one has 3"), (None, "architecture None")):
        with pytest.raises(EncoderError, match=words):
            Pretraining(settings, sets, other).restore(state)


def test_the_folder_is_small_and_says_what_it_belongs_to(base: Path, written: Path) -> None:
    manifest = json.loads((written / "manifest.json").read_text())
    plain, encoder = HuggingFaceEncoder(str(base)), load_encoder(written)
    assert manifest["encoder_id"] == encoder.encoder_id
    assert manifest["base"] == {
        "name": str(base),
        "options": {},
        "encoder_id": plain.encoder_id,
        "weights_sha256": plain.weights_sha256(),
    }
    assert manifest["layers"] == 2 * 6
    assert manifest["parameters"] == 2 * RANK * (4 * (24 + 24) + 2 * (24 + 48))
    assert plain.encoder_id in (written / "card.md").read_text()
    assert encoder.encoder_id.startswith("dinov2-lora-")


def test_size_and_layers_of_the_base_are_kept_and_can_be_others(base: Path, tmp_path: Path) -> None:
    student = _moved(AdapterStudent(LowRank(f"{base}+size=28x42+layers=1,-1", RANK), 0))
    folder = _write(student, tmp_path / "adapter")
    usual, other = load_encoder(folder), load_encoder(f"{folder}+size=56")
    assert usual.encode(_image()).grid.shape == (2, 3, 48)
    np.testing.assert_allclose(usual.encode(_image()).grid, student.encoder().encode(_image()).grid, atol=1e-5)
    assert other.encode(_image()).grid.shape == (4, 4, 48)
    assert usual.encoder_id != other.encoder_id


def _same_features(encoder: Encoder, model: torch.nn.Module) -> None:
    """Ours and those of a model that peft made."""
    assert isinstance(encoder, AdaptedEncoder)
    pixels = torch.from_numpy(encoder.front.prepare(_image()).pixels)
    with torch.no_grad():
        theirs = model(pixel_values=pixels).last_hidden_state[0, 1:].reshape(4, 4, -1).numpy()
    np.testing.assert_allclose(encoder.encode(_image()).grid, theirs, atol=1e-5)


def test_peft_reads_what_is_written_here(base: Path, written: Path) -> None:
    model = peft.PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(base), str(written)).eval()
    encoder = load_encoder(written)
    _same_features(encoder, model)


def test_what_peft_wrote_is_read_here(base: Path, tmp_path: Path) -> None:
    settings = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "fc1"], use_rslora=True)
    model = peft.get_peft_model(transformers.AutoModel.from_pretrained(base), settings).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_(0, 0.1, generator=generator)
    model.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    _same_features(encoder, model)


def _changed(folder: Path, config: Mapping[str, Any] | None = None, tensors: Mapping[str, Any] | None = None) -> None:
    """Write an adapter anew with what `config` and `tensors` say, and hashes that fit."""
    if config is not None:
        (folder / CONFIG).write_text(json.dumps({**json.loads((folder / CONFIG).read_text()), **config}))
    if tensors is not None:
        kept = {k: v for k, v in {**load_file(folder / WEIGHTS), **tensors}.items() if v is not None}
        save_file(kept, folder / WEIGHTS)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_damaged_adapter_is_refused(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"

    def fresh() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(written, folder))

    os.truncate(fresh() / WEIGHTS, 900)
    with pytest.raises(EncoderError, match=r"adapter_model\.safetensors is damaged: sha256.* copy it again"):
        load_encoder(folder)
    (folder / "manifest.json").unlink()  # as an adapter of peft itself
    with pytest.raises(EncoderError, match=r"is not a safetensors file .* copy it again"):
        load_encoder(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(EncoderError, match="only adapters in safetensors"):
        load_encoder(folder)

    name = min(load_file(written / WEIGHTS))
    _changed(fresh(), tensors={name: torch.full_like(load_file(written / WEIGHTS)[name], float("nan"))})
    with pytest.raises(EncoderError, match=r"lora_A\.weight holds values that are not finite; train the adapter again"):
        load_encoder(folder)
    _changed(fresh(), tensors={name: None})
    with pytest.raises(EncoderError, match=r"does not fit .*1 of its weights have no place there or are missing"):
        load_encoder(folder)
    _changed(fresh(), tensors={"base_model.model.classifier.lora_A.weight": torch.zeros(2, 2)})
    with pytest.raises(EncoderError, match=r"1 of its weights have no place .* such as .*classifier"):
        load_encoder(folder)
    _changed(fresh(), tensors={name: torch.zeros(RANK + 1, 24)})
    with pytest.raises(EncoderError, match=r"does not fit .* give the model that it was trained on"):
        load_encoder(folder)
    _changed(fresh(), config={"peft_type": "IA3"})
    with pytest.raises(EncoderError, match="of kind IA3; give a LoRA"):
        load_encoder(folder)
    _changed(fresh(), config={"target_modules": ["no_such_layer"]})
    with pytest.raises(EncoderError, match=r"no_such_layer.*give the model that it was trained on"):
        load_encoder(folder)
    (fresh() / "manifest.json").write_text('{"kind": "adapter", "sha256": {}}')
    with pytest.raises(EncoderError, match="has no sha256 of"):
        load_encoder(folder)


def test_another_base_is_refused_and_one_that_moved_is_named(base: Path, tmp_path: Path) -> None:
    here, other = tmp_path / "here", _save("dinov2", tmp_path / "other", seed=1)
    shutil.copytree(base, here)
    adapter = _write(_moved(AdapterStudent(LowRank(str(here), RANK), 0)), tmp_path / "adapter")
    known = load_encoder(adapter).encoder_id
    here.rename(tmp_path / "there")
    with pytest.raises(EncoderError, match=r"the base of adapter .*no folder .*give .*adapter\+base=NAME"):
        load_encoder(adapter)
    assert load_encoder(f"{adapter}+base={tmp_path / 'there'}").encoder_id == known
    with pytest.raises(EncoderError, match=r"was trained on .* with weights of sha256 .*, those of .* have .*; give"):
        load_encoder(f"{adapter}+base={other}")


def test_what_takes_no_adapter_is_refused_with_a_remedy(
    base: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, words in (
        ("default", r"CompactEncoder, which takes no low-rank adapter.*without --backbone\s+all of it is trained"),
        (str(written), "AdaptedEncoder, which takes no low-rank adapter"),
        (f"{base}+merge=2", "trained without merge; leave it away here"),
    ):
        with pytest.raises(EncoderError, match=words):
            LowRank(name, RANK)
    with pytest.raises(EncoderError, match=r"rank 25 .* 12 linear layers.* give a rank from 1 to 24"):
        LowRank(str(base), 25)
    monkeypatch.setitem(sys.modules, "peft", None)
    for load in (lambda: LowRank(str(base), RANK), lambda: load_encoder(written)):
        with pytest.raises(EncoderError, match=r"need the library peft .*pip install 'embodied-vision\[adapters\]'"):
            load()


def test_an_adapter_beside_its_model_is_refused(base: Path, written: Path, tmp_path: Path) -> None:
    """Whether transformers adds it would depend on whether peft is installed."""
    both = Path(shutil.copytree(base, tmp_path / "both"))
    for name in (CONFIG, WEIGHTS):
        shutil.copy(written / name, both)
    with pytest.raises(EncoderError, match="holds an adapter beside the model; move"):
        load_encoder(both)

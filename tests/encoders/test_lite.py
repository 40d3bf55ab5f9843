"""The compact encoder that begins with ImageNet's weights: what it computes, and what it is trained from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from embodied_vision.encoders import load_encoder, students
from embodied_vision.encoders.artefact import write_artefact
from embodied_vision.encoders.compact import (
    KIND,
    LAYER,
    PREPROCESSING,
    CompactEncoder,
    CompactLiteNetwork,
    LiteArchitecture,
    initialised,
    normalise,
    pad,
    weights_of,
)
from embodied_vision.encoders.efficientnet_lite import EfficientNetLiteEncoder
from embodied_vision.encoders.lite_network import LiteNetwork
from embodied_vision.encoders.pretrain import Pretraining, PretrainSettings
from embodied_vision.encoders.students import CompactStudent
from embodied_vision.errors import EncoderError

from .conftest import MakeSets

LITE = LiteArchitecture(dimension=8)


def _image(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)


def _seen(network: torch.nn.Module) -> torch.nn.Module:
    """The network, its batch norms with statistics as after training."""
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    return network.eval()


def _package() -> dict[str, torch.Tensor]:
    """Weights by the names of the package's file, with statistics that are not those of a new network."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return _seen(LiteNetwork()).state_dict()


def test_it_reads_linearly_what_the_teacher_computes() -> None:
    """At a size that neither of them has to pad: with a head that passes everything on they are the same."""
    package = _package()
    teacher = EfficientNetLiteEncoder(package)
    network = initialised(LiteArchitecture(dimension=teacher.dimension), 0)
    network.get_submodule("trunk").load_state_dict(package)
    head = network.get_submodule("head")
    with torch.no_grad():
        head.get_parameter("weight").copy_(torch.eye(teacher.dimension)[..., None, None])
        head.get_parameter("bias").zero_()
    image = _image(64, 96)
    expected = teacher.encode(image).grid
    expected *= teacher.dimension**0.5 / np.linalg.norm(expected, axis=2, keepdims=True)
    encoder = CompactEncoder(LiteArchitecture(dimension=teacher.dimension), weights_of(network))
    np.testing.assert_allclose(encoder.encode(image).grid, expected, atol=2e-4)


def test_folding_the_batch_norms_does_not_change_the_function() -> None:
    network, image = _seen(initialised(LITE, 0)), _image(48, 72)
    with torch.inference_mode():
        x = pad(normalise(torch.from_numpy(image).permute(2, 0, 1)[None]))
        expected = network(x)[0, :, :6, :9].permute(1, 2, 0).numpy()
    features = CompactEncoder(LITE, weights_of(network)).encode(image)
    np.testing.assert_allclose(features.grid, expected, atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(features.grid, axis=2), LITE.dimension**0.5, rtol=1e-4)


def test_a_batch_is_computed_as_its_images_are() -> None:
    network = _seen(initialised(LITE, 0))
    x = torch.randn(3, 3, 48, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(network(x), torch.cat([network(one[None]) for one in x]), atol=2e-5, rtol=1e-4)


def _write(folder: Path, **changed: object) -> CompactEncoder:
    weights = weights_of(_seen(initialised(LITE, 0)))
    encoder = CompactEncoder(LITE, weights)
    about = {"preprocessing": PREPROCESSING, "layer": LAYER, "encoder_id": encoder.encoder_id}
    write_artefact(folder, weights, {"kind": KIND, "architecture": asdict(LITE), **about, **changed}, "# an encoder\n")
    return encoder


def test_a_written_one_is_read_again(tmp_path: Path) -> None:
    encoder = _write(tmp_path / "encoder")
    again = load_encoder(tmp_path / "encoder")
    image = _image(40, 56)
    assert again.encoder_id == encoder.encoder_id
    assert again.encode(image).grid.tobytes() == encoder.encode(image).grid.tobytes()


@pytest.mark.parametrize("architecture", [{"trunk": "resnet", "dimension": 8}, {**asdict(LITE), "stem": 3}])
def test_another_trunk_is_refused(tmp_path: Path, architecture: dict[str, object]) -> None:
    _write(tmp_path / "encoder", architecture=architecture)
    with pytest.raises(EncoderError, match="no architecture that is known"):
        load_encoder(tmp_path / "encoder")


def test_training_begins_with_the_weights_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = _package()
    monkeypatch.setattr(students, "installed_weights", lambda: {**package, "_fc.weight": torch.zeros(2)})
    student = CompactStudent(LITE, 0)
    for network in (student.network, student.average):
        for name, value in network.get_submodule("trunk").state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, package[name]), name
    assert student.weights().keys() == weights_of(initialised(LITE, 0)).keys()
    assert json.loads(student.identity()["architecture"]) == {"dimension": 8, "trunk": "efficientnet-lite0"}


def test_it_begins_with_the_principal_components_of_each_output() -> None:
    """On the images that it looked at, channels of an output have variance 1, and none tells what another does."""
    network = initialised(LITE, 0)
    assert isinstance(network, CompactLiteNetwork)
    network.trunk.load_state_dict(_package())
    seen: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])

    def listen(_: torch.nn.Module, __: object, outputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        for kept, output in zip(seen, outputs, strict=True):
            kept.append(output[0].flatten(1).T)

    hook = network.trunk.register_forward_hook(listen)
    images = torch.randn(6, 1, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    assert LITE.shares == (4, 4)
    network.begin_with_components(iter(images))
    hook.remove()
    assert network.head.bias is not None
    weight, bias = network.head.weight.detach()[:, :, 0, 0], network.head.bias.detach()
    parts = ((slice(0, 4), slice(0, 40)), (slice(4, 8), slice(40, 152)))
    for kept, (channels, inputs) in zip(seen, parts, strict=True):
        values = torch.cat(kept)
        told = values @ weight[channels, inputs].T + bias[channels]
        torch.testing.assert_close(told.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
        torch.testing.assert_close(told.T.cov(), torch.eye(4), atol=1e-2, rtol=0)
        scaled = (values - values.mean(0)) / values.std(0)
        explained = torch.linalg.lstsq(told, scaled).solution
        left = (scaled - told @ explained).square().sum() / scaled.square().sum()
        best = torch.linalg.eigvalsh(scaled.T.cov())
        assert float(left) == pytest.approx(float(1 - best[-4:].sum() / best.sum()), abs=1e-3)
    assert weight[:4, 40:].abs().max() == 0
    assert weight[4:, :40].abs().max() == 0


def test_more_channels_than_the_outputs_have_are_refused() -> None:
    assert LiteArchitecture(dimension=152).shares == (40, 112)
    assert LiteArchitecture(dimension=33).shares == (17, 16)
    with pytest.raises(ValueError, match="153 of at most 152"):
        LiteArchitecture(dimension=153)


def test_no_step_leaves_the_components_and_the_residual_network_refuses_it(
    make_sets: MakeSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(students, "installed_weights", _package)
    sets = make_sets(2)
    training = Pretraining(PretrainSettings(steps=0), sets, LITE)
    assert list(training.advance()) == []
    seen = training.encoder().encode(sets[0].frames[0].color).grid
    assert np.isfinite(seen).all()
    assert seen.std((0, 1)).min() > 0
    with pytest.raises(EncoderError, match="≥ 1 step"):
        Pretraining(PretrainSettings(steps=0), sets)

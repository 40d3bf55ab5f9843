"""Settings are documented and defaulted in their dataclasses alone; a file that cannot be meant is refused by name."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from embodied_vision.errors import BadInput
from embodied_vision.learning.configuration import RunConfig, TrainConfig
from embodied_vision.learning.yaml_config import documentation
from embodied_vision.policies.networks import NetworkConfig


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", [RunConfig, TrainConfig, NetworkConfig])
def test_every_setting_is_documented(kind: type) -> None:
    assert list(documentation(kind)) == [field.name for field in fields(kind)]


def test_a_printed_configuration_reads_back_with_its_documentation(tmp_path: Path) -> None:
    config = RunConfig(TrainConfig(steps=7, learning_rate=1e-5), replace(NetworkConfig(), fine_widths=(8, 16)))
    text = config.to_yaml()
    assert RunConfig.read(write(tmp_path, text)) == config
    comments = " ".join(line.strip("# ") for line in text.splitlines() if "#" in line).lower()
    for kind in (TrainConfig, NetworkConfig):
        for name, meaning in documentation(kind).items():
            assert name == "features" or " ".join(meaning.split()).lower() in comments


def test_what_a_file_leaves_out_has_its_default(tmp_path: Path) -> None:
    read = RunConfig.read(write(tmp_path, "train:\n  learning_rate: 2e-4\n"))
    assert read == RunConfig(TrainConfig(learning_rate=2e-4))
    assert RunConfig.read(write(tmp_path, "# nothing\n")) == RunConfig()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("train: {step: 3}", r"unknown key train.step in .*run.yaml; did you mean train.steps\?"),
        ("optimizer: {}", r"unknown key optimizer in .*run.yaml; known are train, network"),
        ("train: {steps: many}", r"train.steps is 'many' in .*run.yaml; give an integer, such as \d+"),
        ("train: {steps: 1.5}", r"train.steps is 1.5 in .*run.yaml; give an integer"),
        ("train: {seed: true}", r"train.seed is True in .*run.yaml; give an integer"),
        ("train: {learning_rate: fast}", r"train.learning_rate is 'fast' in .*run.yaml; give a number"),
        ("train: {learning_rate: .nan}", r"train in .*run.yaml: learning_rate is nan, give a finite number"),
        ("train: {ema: 1.0}", r"train in .*run.yaml: ema is 1.0, give a decay in"),
        ("train: {steps: 0}", r"train in .*run.yaml: steps is 0, give at least 1"),
        ("train: 3", r"train in .*run.yaml is 3; give names and values"),
        ("- 3", r"the configuration in .*run.yaml is \[3\]; give names and values"),
        ("network: {features: 3}", r"unknown key network.features in .*run.yaml"),
        ("network: {fine_widths: 8}", r"network.fine_widths is 8 in .*run.yaml; give a list, such as \[24, 48\]"),
        ("network: {fine_widths: [8, x]}", r"network.fine_widths is \[8, 'x'\] in .*run.yaml; give an integer"),
        ("network: {fine_widths: [6, 8]}", r"no network has the shapes .*run.yaml: num_channels \(6\) must be divis"),
        ("network: {bins: -2}", r"network in .*run.yaml: bins is -2, give at least 1"),
        ("network: {fine_widths: [0]}", r"network in .*run.yaml: fine_widths is \[0\], give one or more numbers"),
        ("network: {window: 16}", r"network in .*run.yaml: window is 16, give an odd number"),
        ("train: {steps: 3", r"run.yaml is not valid YAML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_key_file_and_remedy(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        RunConfig.read(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no.yaml cannot be read"):
        RunConfig.read(tmp_path / "no.yaml")


def test_single_settings_are_assigned_by_name() -> None:
    config = RunConfig().assigned("train.ema=0.9").assigned("network.fine_widths=[8, 8]")
    assert (config.train.ema, config.network.fine_widths) == (0.9, (8, 8))
    assert yaml.safe_load(config.to_yaml())["train"]["ema"] == 0.9
    for wrong, complaint in (("train.ema", "assigns nothing"), ("train.emma=1", "did you mean train.ema")):
        with pytest.raises(BadInput, match=complaint):
            RunConfig().assigned(wrong)

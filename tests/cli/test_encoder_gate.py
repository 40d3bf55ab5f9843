"""`encoder gate`: a policy is tried with both precisions, and what is worse does not pass."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from embodied_vision.cli.encoder import app
from embodied_vision.encoders import load_encoder
from embodied_vision.encoders.export import export, read_reduced, sample_images
from embodied_vision.encoders.runtimes import CACHE_VARIABLE
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning import evaluate as evaluate_module
from embodied_vision.learning.evaluate import evaluate

RUNTIME = "onnxruntime-int8"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    export(load_encoder(), out, sample_images((240, 424), 2), threads=1, reduced=True)  # type: ignore[arg-type]
    return out


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return Path(shutil.copytree(made, tmp_path / "out"))


def gate(folder: Path, *more: str) -> Any:
    command = ["gate", str(folder), "--task", "block-insertion", "--scenes", "2", "--json", *more]
    return CliRunner().invoke(app, command)


def test_a_policy_that_works_as_well_lets_it_pass_and_another_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = gate(folder, "--runtime", RUNTIME)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["passed"]
    assert told["scenes"] == 2
    assert [entry["checkpoint_id"] for entry in read_reduced(folder)[RUNTIME]["passed"]] == [told["checkpoint_id"]]
    assert load_encoder(f"{folder}+runtime={RUNTIME}").artefact_id.endswith("int8")

    def worse(*arguments: Any, encoder: str, **more: Any) -> Any:
        results = evaluate(*arguments, encoder=str(folder), **more)
        return [replace(result, reward=0.0, solved=False) for result in results] if "trial" in encoder else results

    monkeypatch.setattr(evaluate_module, "evaluate", worse)
    refused = gate(folder, "--runtime", "openvino-int8")
    assert isinstance(refused.exception, RunFailed)
    assert "does not pass" in str(refused.exception)
    assert not json.loads(refused.stdout)["passed"]
    assert read_reduced(folder)["openvino-int8"]["passed"] == []


def test_a_policy_that_maps_more_than_was_exported_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    small = {"x": [0.4, 0.5], "y": [-0.1, 0.1], "z": [0.0, 0.1], "cell": 0.004}
    part = {"region": {"workspace": small, "margin": 0.02}, "patches": 0, "window": [10, 10]}
    reduced = {"openvino-region": {"cosine": 1.0, "max_error": 0.0, "passed": []}}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "part": part, "reduced": reduced}))
    refused = gate(folder, "--runtime", "openvino-region").exception
    assert isinstance(refused, BadInput)
    assert "which reaches beyond it" in str(refused)


def test_what_cannot_be_gated_is_told(folder: Path) -> None:
    for more, words in (
        (["--runtime", "openvino"], "was not exported for 'openvino'"),
        (["--runtime", RUNTIME, "--checkpoint", "grasp-diverse"], "grasp"),
    ):
        assert words in str(gate(folder, *more).exception)
    assert isinstance(gate(folder, "--runtime", "x").exception, BadInput)

"""`embodied-vision encoder`: the verbs from end to end in their smallest form."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from embodied_vision.cli.encoder import app
from embodied_vision.encoders import load_encoder
from embodied_vision.errors import BadInput
from tests.command_line import fails, prints

_run, _fails = partial(prints, app), partial(fails, app)


SMALL = ("--scenes", 2, "--views", 1, "--threads", 1)


def test_pretrain_probes_writes_and_resumes(tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "encoder"
    where = ("--run", run, "--output", output)
    out = json.loads(
        _run("pretrain", *where, *SMALL, "--steps", 2, "--probe-scenes", 2, "--json").strip().splitlines()[-1]
    )
    encoder = load_encoder(output)
    assert out["encoder_id"] == encoder.encoder_id
    assert set(out["probe"]["figures"]) == {"trained", "random twin", "mean color"}
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["measured"] == out["probe"]
    assert manifest["training"]["frames"]["scenes"] == 2
    assert manifest["training"]["settings"]["steps"] == 2
    assert "random twin" in (output / "card.md").read_text()
    assert any((run / "tensorboard").iterdir())

    error = _fails("pretrain", *where, *SMALL, "--steps", 2)
    assert "--resume" in str(error)
    assert error.exit_code == 2
    error = _fails("pretrain", *where, *SMALL, "--steps", 3, "--resume")
    assert "resume with the same options" in str(error)
    again = json.loads(
        _run("pretrain", *where, *SMALL, "--steps", 2, "--probe-scenes", 0, "--resume", "--json").splitlines()[-1]
    )
    assert again["encoder_id"] == encoder.encoder_id
    assert again["probe"] is None


def test_info_describes_the_shipped_encoder() -> None:
    about = json.loads(_run("info", "--json"))
    assert about["encoder_id"] == load_encoder().encoder_id
    assert about["grid_of_424x240"] == [30, 53]
    assert about["encoder_id"] in _run("info")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("info", "/nowhere/at/all"), "no folder /nowhere/at/all"),
        (("pretrain", "--task", "juggle", "--scenes", 1), "juggle"),
        (("pretrain", "--episodes", "/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_bad_input_is_named_with_exit_code_2(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    extra = ("--run", tmp_path / "run", "--output", tmp_path / "out") if arguments[0] == "pretrain" else ()
    error = _fails(*arguments, *extra)
    assert isinstance(error, BadInput)
    assert words in str(error)
    assert error.exit_code == 2

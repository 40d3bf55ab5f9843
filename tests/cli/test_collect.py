"""`collect` reports what it did in words and in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from embodied_vision.cli.collect import command
from embodied_vision.errors import BadInput

app = typer.Typer()
app.command()(command)


def test_collect_and_collect_again(tmp_path: Path) -> None:
    arguments = ["--task", "block-insertion", "--episodes", "1", "--output", str(tmp_path), "--json"]
    first = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
    assert first["seconds"] > 0
    assert first["scenes_per_s"] > 0
    assert {**first, "seconds": 0, "scenes_per_s": 0} == {
        "task": "block-insertion",
        "preset": "none",
        "store": str(tmp_path),
        "episodes": 1,
        "collected": 1,
        "already_there": 0,
        "failed_seeds": [],
        "steps": 1,
        "seconds": 0,
        "scenes_per_s": 0,
    }
    second = CliRunner().invoke(app, arguments[:-1], catch_exceptions=False)
    assert "0 demonstrations collected" in second.stdout
    assert "1 were there" in second.stdout


def test_unknown_task_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'nope' has no environment"):
        CliRunner().invoke(app, ["--task", "nope", "--output", str(tmp_path)], catch_exceptions=False)

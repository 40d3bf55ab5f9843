"""Verbs are imported when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from embodied_vision.cli import episodes, main

HEAVY = ("torch", "scipy", "numpy", "zarr", "pybullet", "matplotlib", "rclpy")


@pytest.mark.parametrize("verb", [*main.VERBS, *(f"episodes {verb}" for verb in episodes.VERBS)])
def test_every_verb_is_there(verb: str) -> None:
    result = CliRunner().invoke(main.app, [*verb.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert verb in result.output


def test_the_help_names_every_verb_with_what_it_does() -> None:
    result = CliRunner().invoke(main.app, ["episodes", "--help"])
    assert all(verb in result.output for verb in episodes.VERBS)
    assert "oldest first" in result.output


def test_a_mistyped_verb_is_told_the_right_one() -> None:
    result = CliRunner().invoke(main.app, ["episodes", "lst"])
    assert result.exit_code == 2
    assert "list" in result.output


def test_options_of_a_verb_with_a_class_of_its_own_still_parse() -> None:
    result = CliRunner().invoke(main.app, ["collect", "--ray"])  # without an address: only `collect` knows that
    assert result.exit_code == 2
    assert "--task" in result.output


def test_listing_episodes_imports_nothing_heavy(tmp_path) -> None:
    (tmp_path / "episodes").mkdir()
    code = (
        "import sys; from embodied_vision.cli.main import app; "
        f"app(['episodes', 'list', {str(tmp_path)!r}, '--json'], standalone_mode=False); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stderr.strip() == "[]"

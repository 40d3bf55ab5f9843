"""`evaluate` leaves figures, results of scenes and a report, and goes on from them."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
from policies.stubs import TINY, random_checkpoint

from embodied_vision.cli.main import app
from embodied_vision.learning import evaluate, json_lines
from embodied_vision.policies import checkpoint as checkpoints
from tests.command_line import figures

TASK = "block-insertion"
run = partial(figures, app)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Evaluates random weights, which solve nothing."""
    checkpoints.save(random_checkpoint("", config=TINY), tmp_path / "policy")
    start = ["evaluate", "--task", TASK, "--checkpoint", str(tmp_path / "policy")]
    return [*start, "--split", "validation", "--scenes", "1", "--json"]


def refuse(*arguments: object) -> None:
    raise AssertionError("a scene was run again")


def test_a_report_shows_every_decision_on_a_failed_scene(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report"
    figures = run(*arguments, "--report", str(report))
    page = (report / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r'src="([^"]+)"', page)
    assert len(shown) == 3 * 5
    for name in shown:
        assert (report / name).read_bytes().startswith(b"\x89PNG")
    assert not re.search(r"https?://|<script", page)
    assert f"<b>{figures['solved']} of 1</b>" in page
    assert json.loads((report / "figures.json").read_text(encoding="utf-8"))["results"][0]["steps"] == 3
    monkeypatch.setattr(evaluate, "run_scene", refuse)
    (report / "index.html").unlink()
    assert run(*arguments, "--report", str(report)) == figures
    assert (report / "index.html").read_text(encoding="utf-8") == page


def test_a_failed_scene_without_its_pictures_is_run_again(arguments: list[str], tmp_path: Path) -> None:
    keep = ["--keep", str(tmp_path / "scenes.jsonl")]
    run(*arguments, *keep)
    run(*arguments, *keep, "--report", str(tmp_path / "report"))
    assert (tmp_path / "report" / "scenes" / "1000000" / "03-fine.png").is_file()


def test_an_appended_line_says_what_was_measured(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = ["--append", str(tmp_path / "results.jsonl")]
    figures = run(*arguments, *append)
    assert len(figures.pop("rewards")) == figures["scenes"]
    monkeypatch.setattr(evaluate, "run_scene", refuse)
    run(*arguments, *append)
    first, second = json_lines.read(tmp_path / "results.jsonl")
    assert {name: first[name] for name in figures} == figures
    assert {**first, "command": ""} == {**second, "command": ""}
    wanted = {"demos", "train_seed", "train_minutes", "encoder", "git_commit", "command", "renderer", "checkpoint_id"}
    assert wanted <= set(first)
    assert first["encoder"] == ""

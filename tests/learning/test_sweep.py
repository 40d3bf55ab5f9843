"""A sweep that is killed goes on where it was, does nothing twice, and is alone in its folder."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from policies.stubs import TINY, random_checkpoint

from embodied_vision import locks
from embodied_vision.cli.main import app
from embodied_vision.errors import RunFailed
from embodied_vision.learning import json_lines, sweep
from embodied_vision.learning.cells import Cell, Training
from embodied_vision.learning.sweep import CommandFailed, Outcome, Sweep, SweepConfig
from embodied_vision.policies import checkpoint as checkpoints
from tests.command_line import figures, prints

DECLARATION = """
scenes: 100
renderer: software
defaults: {encoder: none, seed: 0, preset: none, options: {steps: 2, batch: 1, config: SETTINGS}}
groups:
  - {tasks: [block-insertion], demos: [1]}
"""
SETTINGS = "network: {coarse_widths: [8, 8], embedding: 4, fine_widths: [8, 8], fine_channels: 3}\n"
CELL = Cell("block-insertion/2", Training("block-insertion", 2, "none", 0), "mild")


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    return SweepConfig(tmp_path / "work", tmp_path / "results.jsonl", "validation", 3, "software", 1)


class Commands:
    """Takes the place of the command line: notes what it is asked for and does what matters to the sweep."""

    def __init__(self, codes: dict[str, int] | None = None) -> None:
        self.asked: list[str] = []
        self._codes = codes or {}

    def __call__(self, arguments: list[str]) -> str:
        words = {name: value for name, value in pairwise(arguments) if name.startswith("--")}
        verb = arguments[0] + (" --resume" if "--resume" in arguments else "")
        self.asked.append(f"{verb} {words.get('--episodes', '')}" if verb == "collect" else verb)
        if code := self._codes.get(verb, 0):
            raise CommandFailed(verb, code)
        if arguments[0] == "train":
            checkpoints.save(random_checkpoint("", config=TINY), Path(words["--output"]) / "checkpoint")
        seeds = [1_000_000, 1_000_002]
        figures = {"split": "validation", "scenes": 3, "seeds": seeds, "renderer": "software", "score": 50.0}
        return f"greetings\n{json.dumps(figures)}\n"


def follow(config: SweepConfig, monkeypatch: pytest.MonkeyPatch, commands: Commands, *cells: Cell) -> list[Outcome]:
    monkeypatch.setattr(sweep, "_run", commands)
    return list(Sweep(config, lambda sentence: None).run(cells or [CELL]))


def test_a_cell_is_collected_trained_and_evaluated_once(config: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    (outcome,) = follow(config, monkeypatch, commands)
    assert commands.asked == ["collect 1", "collect 2", "train", "evaluate"]
    assert outcome.fresh
    assert json_lines.read(config.results) == [outcome.line]
    assert outcome.line is not None
    assert outcome.line["cell"] == CELL.name
    assert "--preset mild" in outcome.line["command"]
    assert "--demos 2" in outcome.line["train_command"]
    (again,) = follow(config, monkeypatch, commands)
    assert (again.line, again.fresh, len(commands.asked)) == (outcome.line, False, 4)


def test_a_measured_cell_is_evaluated_again_when_asked_for(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(config, monkeypatch, Commands())
    commands = Commands()
    (outcome,) = follow(replace(config, again=True), monkeypatch, commands)
    assert (commands.asked, outcome.fresh) == (["evaluate"], True)


def test_cells_of_one_policy_train_it_once(config: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    follow(config, monkeypatch, commands, CELL, Cell("block-insertion/2@strong", CELL.training, "strong"))
    assert commands.asked == ["collect 1", "collect 2", "train", "evaluate", "evaluate"]


def test_randomised_demonstrations_have_a_store_of_their_own(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("randomised", replace(CELL.training, preset="strong"), "strong")
    (plain,) = follow(config, monkeypatch, Commands())
    (outcome,) = follow(config, monkeypatch, Commands(), cell)
    assert plain.line is not None
    assert outcome.line is not None
    assert "demos/block-insertion " in plain.line["collect_command"]
    assert "--preset" not in plain.line["collect_command"]
    assert "demos/block-insertion-strong " in outcome.line["collect_command"]
    assert outcome.line["collect_command"].endswith("--preset strong")
    assert "demos/block-insertion-strong " in outcome.line["train_command"]


def test_a_policy_of_another_encoder_is_trained_anew(config: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(config, monkeypatch, Commands())
    monkeypatch.setattr(sweep, "_encoder_id", lambda name: "remade")
    commands = Commands()
    follow(config, monkeypatch, commands)
    assert "train" in commands.asked


def test_another_checkpoint_is_measured_anew(config: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(config, monkeypatch, Commands())
    (folder,) = (config.work / "policies").iterdir()
    checkpoints.save(random_checkpoint("", config=TINY, seed=9), folder / "checkpoint")
    commands = Commands()
    (outcome,) = follow(config, monkeypatch, commands)
    assert (commands.asked, outcome.fresh) == (["evaluate"], True)
    assert len(json_lines.read(config.results)) == 2


@pytest.mark.parametrize(
    ("codes", "asked"),
    [
        ({}, ["train --resume", "evaluate"]),
        ({"train --resume": 2}, ["train --resume", "train", "evaluate"]),
        ({"train --resume": 1}, ["train --resume"]),
    ],
)
def test_an_interrupted_training_is_resumed_where_it_fits(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch, codes: dict[str, int], asked: list[str]
) -> None:
    (config.work / "policies" / CELL.training.folder / "state").mkdir(parents=True)
    commands = Commands(codes)
    follow(config, monkeypatch, commands)
    assert commands.asked[2:] == asked


def test_a_cell_that_fails_does_not_keep_others_from_their_result(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(config, monkeypatch, Commands())
    other = Cell("block-insertion/3", Training("block-insertion", 3, "none", 0), "none")
    failed, done = follow(config, monkeypatch, Commands({"train": 1}), other, CELL)
    assert "`train` ended with code 1" in failed.problem
    assert (failed.line, done.problem) == (None, "")
    assert done.line is not None


def test_a_second_sweep_in_the_same_folder_is_refused(config: SweepConfig) -> None:
    with locks.exclusive(config.work / "lock", "first"):
        with pytest.raises(
            RunFailed, match=r"another sweep works in .*work: wait until it ends or name another --work"
        ):
            next(Sweep(config, print).run([CELL]))


def _words(folder: Path) -> list[object]:
    """Of the verb that sweeps the smallest cell there is."""
    words = ["results", "run", "--json", "--workers", 1, "--cells", folder / "cells.yaml", "--work", folder / "work"]
    return [*words, "--results", folder / "results.jsonl", "--split", "validation", "--scenes", 2]


def _kill_when(folder: Path, condition: Callable[[], Any]) -> None:
    """Start the sweep, kill it as soon as the condition holds, and wait for the end of what it had started."""
    pid = os.fork()  # which takes no time to load what is loaded here
    if pid == 0:
        try:
            prints(app, *_words(folder))
        finally:
            os._exit(1)
    end = time.monotonic() + 300
    while not condition():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert time.monotonic() < end
        time.sleep(0.01)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for child in children:
        while Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_with_what_it_has(tmp_path: Path) -> None:
    """Killed in training and again between two scenes; real commands, the smallest cell there is."""
    work = tmp_path / "work"
    settings = tmp_path / "settings.yaml"
    settings.write_text(SETTINGS)
    (tmp_path / "cells.yaml").write_text(DECLARATION.replace("SETTINGS", str(settings)))
    _kill_when(tmp_path, lambda: list(work.glob("policies/*")))
    (episode,) = (work / "demos" / "block-insertion" / "episodes").iterdir()
    _kill_when(tmp_path, lambda: json_lines.read(work / "scenes.jsonl"))
    assert not (tmp_path / "results.jsonl").exists()
    (first,) = json_lines.read(work / "scenes.jsonl")
    result = figures(app, *_words(tmp_path))
    assert (result["cell"], result["state"]) == ("block-insertion/1", "measured now")
    assert result["result"]["seeds"] == [1_000_000, 1_000_001]
    assert list((work / "demos" / "block-insertion" / "episodes").iterdir()) == [episode]
    scenes = json_lines.read(work / "scenes.jsonl")
    assert (scenes[0], [scene["seed"] for scene in scenes]) == (first, [1_000_000, 1_000_001])
    assert json_lines.read(work / "validation-2.jsonl") == [result["result"]]

"""The sweep behind docs/results.md: demonstrations, training and evaluation of every cell, each done once.

    WORK/demos/TASK        episode stores, shared by the cells of a task; TASK-PRESET where scenes were randomised
    WORK/policies/NAME     training runs; remove a folder to train it again
    WORK/scenes.jsonl      results of single scenes
    WORK/SPLIT-N.jsonl     results of cells that are no results: validation scenes, or another number of scenes
    WORK/reports/…         what was seen on failed scenes, where asked for

Every step is a command that goes on where it was killed, and ends when the sweep does; so the sweep may be killed at
any moment, and goes on when it is started again.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from embodied_vision import locks
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.errors import CheckpointError, RunFailed
from embodied_vision.launching import die_with_parent
from embodied_vision.learning import json_lines, provenance
from embodied_vision.learning.cells import AS_DEFINED, NO_ENCODER, Cell, Training
from embodied_vision.learning.results import newest, result_line
from embodied_vision.learning.runs import CHECKPOINT, STATE
from embodied_vision.learning.scene_results import LOG
from embodied_vision.learning.seeds import Split
from embodied_vision.policies import checkpoint as checkpoints

RUNGS = (1, 10, 100)
"""Demonstrations are collected up to these numbers one after the other: the oldest ones of a store, which training
takes, are then the first scenes, whichever worker was quicker."""
BAD_INPUT = 2


@dataclass(frozen=True)
class SweepConfig:
    """Settings of a sweep.

    Attributes:
        work: folder of everything but the results.
        results: file that gets a line a cell.
        split: which scenes the policies are measured on.
        scenes: how many of them.
        renderer: who draws demonstrations and scenes.
        workers: processes that run scenes at once.
        report: whether to leave a report of each cell.
        again: whether to measure what is measured already; scenes that the same code has run are not run again.
    """

    work: Path
    results: Path
    split: Split
    scenes: int
    renderer: str
    workers: int
    report: bool = False
    again: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        cell: the cell.
        line: its result, None when it failed.
        fresh: whether it was measured now.
        problem: why it failed, empty when it did not.
    """

    cell: Cell
    line: dict[str, Any] | None
    fresh: bool = False
    problem: str = ""


class CommandFailed(RunFailed):
    """A step of the sweep failed; the command itself has said why.

    Attributes:
        code: its exit code.
    """

    def __init__(self, command: str, code: int) -> None:
        self.code = code
        super().__init__(f"`{command}` ended with code {code}; see its message above")


class Sweep:
    """Measures cells.

    Args:
        config: settings.
        tell: called with a sentence about what begins.
    """

    def __init__(self, config: SweepConfig, tell: Callable[[str], None]) -> None:
        self._config = config
        self._tell = tell

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        """Bring every cell to its result, in their order; one that fails does not keep the others from it.

        Raises:
            RunFailed: another sweep uses the working folder.
        """
        work = self._config.work
        with locks.exclusive(
            work / "lock", f"another sweep works in {work}: wait until it ends or name another --work"
        ):
            for cell in cells:
                line = None if self._config.again else self.measured(cell)
                if line is not None:
                    yield Outcome(cell, line)
                    continue
                try:
                    self._train(cell)
                    yield Outcome(cell, self._evaluate(cell), fresh=True)
                except RunFailed as error:
                    yield Outcome(cell, None, problem=str(error))

    def measured(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell's present checkpoint on the scenes asked for, None when there is none yet."""
        checkpoint_id, config = self.checkpoint_id(cell.training), self._config
        line = newest(json_lines.read(config.results), config.split, config.scenes).get(cell.name)
        same = line is not None and (line["checkpoint_id"], line["renderer"]) == (checkpoint_id, config.renderer)
        return line if same else None

    def checkpoint_id(self, training: Training) -> str | None:
        """Id of the policy that a training run gave with the present encoder, None as long as it has given none that
        this version reads."""
        try:
            manifest = checkpoints.read_manifest(self._policy(training) / CHECKPOINT)
        except CheckpointError:
            return None
        return str(manifest["checkpoint_id"]) if manifest["encoder_id"] == _encoder_id(training.encoder) else None

    def _policy(self, training: Training) -> Path:
        return self._config.work / "policies" / training.folder

    def _train(self, cell: Cell) -> None:
        if self.checkpoint_id(cell.training) is not None:
            return
        demos = cell.training.demos
        for rung in [*(rung for rung in RUNGS if rung < demos), demos]:
            self._tell(f"{cell.name}: {rung} demonstration{'s' * (rung > 1)}")
            _run(self._collecting(cell.training, rung))
        command = self._training(cell.training)
        self._tell(f"{cell.name}: training")
        if (self._policy(cell.training) / STATE).exists():
            try:
                _run([*command, "--resume"])
                return
            except CommandFailed as error:
                if error.code != BAD_INPUT:
                    raise
                self._tell(f"{cell.name}: the interrupted run cannot go on, training starts anew")
        _run(command)

    def _evaluate(self, cell: Cell) -> dict[str, Any]:
        self._tell(f"{cell.name}: {self._config.scenes} scenes of {self._config.split}, preset {cell.preset}")
        commit = provenance.git_commit()
        command = self._evaluation(cell)
        figures = json.loads(_run([*command, "--json"]).splitlines()[-1])  # the simulator greets on the lines before
        manifest = checkpoints.read_manifest(self._policy(cell.training) / CHECKPOINT)
        line = {
            "cell": cell.name,
            **result_line(figures, manifest, git_commit=commit, command=_shown(command)),
            "collect_command": _shown(self._collecting(cell.training, cell.training.demos)),
            "train_command": _shown(self._training(cell.training)),
        }
        json_lines.append(self._config.results, line)
        return line

    def _store(self, training: Training) -> str:
        name = training.task if training.preset == AS_DEFINED else f"{training.task}-{training.preset}"
        return str(self._config.work / "demos" / name)

    def _collecting(self, training: Training, episodes: int) -> list[str]:
        command = ["collect", "--task", training.task, "--output", self._store(training), "--episodes", str(episodes)]
        command += ["--renderer", self._config.renderer, "--workers", str(self._config.workers)]
        return command if training.preset == AS_DEFINED else [*command, "--preset", training.preset]

    def _training(self, training: Training) -> list[str]:
        command = ["train", "--task", training.task, "--episodes", self._store(training)]
        command += ["--output", str(self._policy(training)), "--demos", str(training.demos)]
        command += ["--encoder", training.encoder, "--seed", str(training.seed)]
        for name, values in training.options:
            for value in values:
                command += [f"--{name.replace('_', '-')}", value]
        return command

    def _evaluation(self, cell: Cell) -> list[str]:
        config, policy = self._config, self._policy(cell.training)
        command = ["evaluate", "--task", cell.training.task, "--checkpoint", str(policy / CHECKPOINT)]
        command += ["--split", config.split, "--scenes", str(config.scenes), "--preset", cell.preset]
        command += ["--renderer", config.renderer, "--workers", str(config.workers), "--keep", str(config.work / LOG)]
        if cell.training.encoder != NO_ENCODER:
            command += ["--encoder", cell.training.encoder]
        if config.report:
            name = f"{policy.name}-{config.split}-{cell.preset}"
            command += ["--report", str(config.work / "reports" / name)]
        return command


@cache
def _encoder_id(name: str) -> str:
    """Id of the encoder of that name as it is now, empty for none."""
    return "" if name == NO_ENCODER else load_encoder(name).encoder_id


def _run(arguments: Sequence[str]) -> str:
    """Run a verb of the command line; returns its standard output.

    Raises:
        CommandFailed: it ended with another code than 0.
    """
    bound = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
    command = [*bound, sys.executable, "-m", "embodied_vision.cli.main", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CommandFailed(_shown(arguments), done.returncode)
    return done.stdout


def _shown(arguments: Sequence[str]) -> str:
    return shlex.join(["embodied-vision", *arguments])

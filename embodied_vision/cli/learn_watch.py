"""`embodied-vision learn --watch`: go on learning as episodes are closed, at a priority that disturbs nobody."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.learner import Learner, LearnerConfig, Status
from embodied_vision.learning.lessons import note


def watch(
    store: Path, policies: Path, task: str | None, config: LearnConfig, *, every: int, encoder: str, as_json: bool
) -> None:
    """Learn whenever enough episodes wait, until Ctrl-C or SIGTERM; one line a round.

    Raises:
        RunFailed: another learner watches the store.
    """
    settings = LearnerConfig(tasks=(task,) if task is not None else (), every=every, learn=config)
    with ExitStack() as held:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        progress = held.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
        bar = progress.add_task("watching", total=None)
        learner = Learner(
            store,
            policies,
            settings,
            encoder=encoder,
            on_status=lambda status: _show(progress, bar, status),
            on_outcome=lambda outcome: typer.echo(json.dumps(outcome) if as_json else _sentence(outcome)),
        )
        held.enter_context(learner)
        before = signal.signal(signal.SIGTERM, lambda *_: learner.stop())
        held.callback(signal.signal, signal.SIGTERM, before)
        try:
            learner.run()
        except KeyboardInterrupt:
            learner.stop()


def _show(progress: Progress, bar: TaskID, status: Status) -> None:
    if status.state == "learning":
        progress.update(bar, description=f"{status.task}: {status.phase}", completed=status.done, total=status.total)
        return
    waiting = ", ".join(f"{count} of {task}" for task, count in status.waiting.items() if count) or "none"
    progress.update(bar, description=status.error or f"watching, {waiting} wait", completed=0, total=None)
    if status.error:
        progress.console.print(status.error, highlight=False, markup=False)


def _sentence(outcome: Mapping[str, Any]) -> str:
    learnt = len(outcome.get("new_episodes", ()))
    beside = f" ({said})" if (said := note(outcome)) else ""
    what = f"{outcome['decision']} after learning from {learnt} episodes{beside}"
    return f"{outcome['task']}: {what}: {outcome['reason']}"

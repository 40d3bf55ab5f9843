"""`embodied-vision train`: a policy from logged demonstrations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.dataset import load_dataset, teaching_ids
from embodied_vision.learning.runs import CHECKPOINT, parameters, train_run
from embodied_vision.learning.train import STAGES, Stage, TrainConfig
from embodied_vision.types import Workspace

DEFAULTS = TrainConfig()


def command(
    task: str = typer.Option(..., help="Name of the task, such as block-insertion.", show_default=False),
    episodes: Path = typer.Option(..., help="Folder of the episode store.", show_default=False),
    output: Path = typer.Option(..., help="Folder for checkpoint, state and TensorBoard logs.", show_default=False),
    demos: int = typer.Option(100, min=1, help="Demonstrations to learn from, the oldest ones."),
    steps: int = typer.Option(DEFAULTS.steps, min=1, help="Optimiser steps of each of the two stages."),
    batch: int = typer.Option(DEFAULTS.batch, min=1, help="Examples a step."),
    learning_rate: float = typer.Option(DEFAULTS.learning_rate, min=0.0, help="Highest learning rate."),
    seed: int = typer.Option(0, min=0, help="Seed of weights, order and augmentation."),
    threads: int = typer.Option(2, min=1, max=2, help="2 trains the stages side by side; the result is the same."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder; `none` trains without features."),
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted run of the same settings stopped."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Train a pick-and-place policy on solved episodes; writes OUTPUT/checkpoint."""
    store = EpisodeStore(episodes)
    if not store.exists():
        raise BadInput(f"no episode store at {episodes}; make one: embodied-vision collect --task {task} --output …")
    eyes = None if encoder == "none" else load_encoder(encoder)
    console = Console(stderr=True)
    with console.status("reading demonstrations"):
        ids = teaching_ids(store, task)
        if len(ids) < demos:
            console.print(f"{len(ids)} demonstrations of {task} are there, {demos} were asked for", highlight=False)
        dataset = load_dataset(store, task, eyes, Workspace(), episode_ids=ids[:demos])
    config = TrainConfig(steps=steps, batch=batch, learning_rate=learning_rate, seed=seed)
    with _Monitor(console, output / "tensorboard", steps) as monitor:
        checkpoint = train_run(dataset, eyes, output, config, resume=resume, threads=threads, report=monitor.report)
    result: dict[str, Any] = {
        "task": task,
        "checkpoint": str(output / CHECKPOINT),
        "checkpoint_id": checkpoint.checkpoint_id,
        "encoder": checkpoint.encoder_id,
        "demos": len(dataset.episode_ids),
        "examples": len(dataset),
        "steps": steps,
        "parameters": parameters(checkpoint.weights),
        "minutes": checkpoint.training["minutes"],
        "cpu_minutes": checkpoint.training["cpu_minutes"],
        "losses": monitor.losses(),
    }
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(
        f"{task}: {result['demos']} demonstrations, {steps} steps in {result['minutes']} minutes "
        f"({result['cpu_minutes']} of CPU): {result['checkpoint']} ({checkpoint.checkpoint_id})"
    )
    typer.echo(f"measure it: embodied-vision evaluate --task {task} --checkpoint {result['checkpoint']}")


class _Monitor:
    """Progress bars, one a stage, and TensorBoard scalars where TensorBoard is installed."""

    def __init__(self, console: Console, logs: Path, steps: int) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
        )
        self._progress = Progress(*columns, console=console)
        self._bars = {stage: self._progress.add_task(stage, total=steps, losses="") for stage in STAGES}
        self._means: dict[Stage, dict[str, float]] = {stage: {} for stage in STAGES}
        self._writer = _summary_writer(logs)

    def report(self, stage: Stage, step: int, losses: Mapping[str, float]) -> None:
        """Runs on the stage's own thread."""
        means = self._means[stage]
        for name, value in losses.items():
            means[name] = 0.98 * means.get(name, value) + 0.02 * value
        text = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
        self._progress.update(self._bars[stage], completed=step, losses=text)
        if self._writer is not None and step % 10 == 0:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value, step)

    def losses(self) -> dict[str, float]:
        """Running means of all losses."""
        return {name: round(value, 4) for means in self._means.values() for name, value in means.items()}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()


def _summary_writer(logs: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(logs))

"""`embodied-vision evaluate`: success of a policy on unseen scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embodied_vision.cli.conditions import Preset, RendererName
from embodied_vision.learning import json_lines, provenance
from embodied_vision.learning.evaluate import evaluate, examined, split_seeds, summarise
from embodied_vision.learning.report import PAGE, SCENES, write_report
from embodied_vision.learning.results import result_line
from embodied_vision.learning.scene_results import LOG, SceneLog
from embodied_vision.paths import shipped
from embodied_vision.policies import checkpoint as checkpoints


class SplitName(StrEnum):
    """Scenes to choose from."""

    TEST = "test"
    VALIDATION = "validation"
    TRAIN = "train"


def command(
    task: str = typer.Option(..., help="Name of the task, such as block-insertion.", show_default=False),
    checkpoint: Path | None = typer.Option(None, help="Checkpoint folder; the shipped one of the task when left out."),
    scenes: int = typer.Option(100, min=1, help="Number of scenes."),
    split: SplitName = typer.Option(SplitName.TEST, help="Which scenes; training sees only those of train."),
    seed_offset: int = typer.Option(0, min=0, help="Number of the first scene within the split."),
    preset: Preset = typer.Option(Preset.NONE, help="Domain randomisation of the scenes."),
    renderer: RendererName | None = typer.Option(
        None, help="Who draws; left out, the renderer that the policy was trained with."
    ),
    workers: int = typer.Option(1, min=1, help="Processes that run scenes at once."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder."),
    report: Path | None = typer.Option(
        None, help="Folder for a report, index.html, with what was seen and decided on every failed scene."
    ),
    append: Path | None = typer.Option(None, help="File of JSON lines to add the figures to, with their provenance."),
    keep: Path | None = typer.Option(
        None,
        help="File of JSON lines with the result of every scene; those that it holds are not run again.",
        show_default=f"{LOG} in the folder of --report, else beside the file of --append, else none",
    ),
    record: bool = typer.Option(False, "--record", help="Write the figures into the checkpoint's manifest and card."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Run a policy on unseen scenes: mean score with a bootstrap interval, solved scenes with Wilson's (95 %).

    With --report, --append or --keep, the same command goes on where it was stopped or killed.
    """
    folder = checkpoint if checkpoint is not None else shipped(task)
    seeds = split_seeds(split.value, scenes, seed_offset)
    commit = provenance.git_commit()  # before anything that is tracked changes
    drawer = renderer.value if renderer is not None else None
    what = examined(task, folder, preset.value, drawer)
    log_path = keep or (report / LOG if report is not None else append.with_name(LOG) if append is not None else None)
    with bars() as progress:
        bar = progress.add_task(f"{task} ({split.value})", total=scenes)
        results = evaluate(
            task,
            folder,
            seeds,
            encoder=encoder,
            preset=preset.value,
            renderer=drawer,
            workers=workers,
            log=SceneLog(log_path) if log_path is not None else None,
            draw=report / SCENES if report is not None else None,
            report=lambda _: progress.advance(bar),
        )
    figures = summarise(task, str(folder), results, preset.value)
    figures["split"] = split.value
    if report is not None:
        write_report(report, figures, results, what)
    if append is not None:
        manifest = checkpoints.read_manifest(folder)
        json_lines.append(append, result_line(figures, manifest, git_commit=commit, command=provenance.command()))
    if record:
        former = checkpoints.load(folder)
        name = split.value if preset is Preset.NONE else f"{split.value}, {preset.value}"
        checkpoints.save(replace(former, measured={**former.measured, name: figures}), folder)
    if as_json:
        typer.echo(json.dumps({**figures, "rewards": [round(result.reward, 4) for result in results]}))
        return
    typer.echo(
        f"{task}, {scenes} scenes of {split.value}, preset {preset.value}: score {figures['score']:.1f} "
        f"({figures['ci_low']:.1f} to {figures['ci_high']:.1f}), solved {figures['solved']} "
        f"({figures['solved_low']:.1f} to {figures['solved_high']:.1f} %), "
        f"{1000 * figures['seconds_per_decision']:.0f} ms a decision"
    )
    if figures["failed_seeds"]:
        typer.echo(f"not solved: seeds {', '.join(map(str, figures['failed_seeds']))}")

    if report is not None:
        typer.echo(f"report: {report / PAGE}")


def bars() -> Progress:
    """Progress bars that count scenes."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)

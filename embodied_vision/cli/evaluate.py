"""`embodied-vision evaluate`: success of a policy on unseen scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embodied_vision.cli.conditions import Preset, RendererName
from embodied_vision.learning import provenance
from embodied_vision.learning.evaluate import SceneResult, evaluate, split_seeds, summarise
from embodied_vision.learning.report import contact_sheet
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
    report: Path | None = typer.Option(None, help="Folder for pictures of successes and failures and all decisions."),
    append: Path | None = typer.Option(None, help="File of JSON lines to add the figures to, with their provenance."),
    record: bool = typer.Option(False, "--record", help="Write the figures into the checkpoint's manifest and card."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Run a policy on unseen scenes: mean score with a bootstrap interval, solved scenes with Wilson's (95 %)."""
    folder = checkpoint if checkpoint is not None else shipped(task)
    seeds = split_seeds(split.value, scenes, seed_offset)
    commit = provenance.git_commit()  # before anything that is tracked changes
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(f"{task} ({split.value})", total=scenes)
        results = evaluate(
            task,
            folder,
            seeds,
            encoder=encoder,
            preset=preset.value,
            renderer=renderer.value if renderer is not None else None,
            workers=workers,
            draw=report is not None,
            report=lambda _: progress.advance(bar),
        )
    figures = summarise(task, str(folder), results, preset.value)
    figures["split"] = split.value
    if report is not None:
        _write_report(report, task, figures, results)
    if record:
        former = checkpoints.load(folder)
        name = split.value if preset is Preset.NONE else f"{split.value}, {preset.value}"
        checkpoints.save(replace(former, measured={**former.measured, name: figures}), folder)
    if append is not None:
        _append(append, folder, figures, commit)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    typer.echo(
        f"{task}, {scenes} scenes of {split.value}, preset {preset.value}: score {figures['score']:.1f} "
        f"({figures['ci_low']:.1f} to {figures['ci_high']:.1f}), solved {figures['solved']} "
        f"({figures['solved_low']:.1f} to {figures['solved_high']:.1f} %), "
        f"{1000 * figures['seconds_per_decision']:.0f} ms a decision"
    )
    if figures["failed_seeds"]:
        typer.echo(f"not solved: seeds {', '.join(map(str, figures['failed_seeds']))}")


def _write_report(folder: Path, task: str, figures: dict[str, Any], results: list[SceneResult]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    contact_sheet(results, folder / f"{task}.png")
    scenes = [
        {
            "seed": r.seed,
            "reward": r.reward,
            "solved": r.solved,
            "steps": r.steps,
            "refused": list(r.refused),
            "actions": list(r.actions),
        }
        for r in results
    ]
    text = json.dumps({**figures, "results": scenes}, indent=1)
    (folder / f"{task}.json").write_text(text + "\n", encoding="utf-8")


def _append(path: Path, folder: Path, figures: dict[str, Any], commit: str) -> None:
    manifest = checkpoints.read_manifest(folder)
    training = manifest["training"]
    line = {
        **figures,
        "checkpoint_id": manifest["checkpoint_id"],
        "demos": training.get("demos"),
        "train_seed": training.get("seed"),
        "train_minutes": training.get("minutes"),
        "train_cpu_minutes": training.get("cpu_minutes"),
        "encoder": manifest["encoder_id"],
        "git_commit": commit,
        "command": provenance.command(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")

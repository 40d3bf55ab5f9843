"""`embodied-vision collect`: oracle demonstrations into the episode store."""

from __future__ import annotations

import json
import time
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embodied_vision.learning.collect import Demonstration, collect


def command(
    task: str = typer.Option(..., help="Name of the task, such as block-insertion.", show_default=False),
    output: Path = typer.Option(..., help="Folder of the episode store.", show_default=False),
    episodes: int = typer.Option(100, min=1, help="Demonstrations that the store shall hold of these scenes."),
    seed_offset: int = typer.Option(0, min=0, help="Number of the first training scene."),
    workers: int = typer.Option(1, min=1, help="Processes that run scenes at once."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Let the oracle solve training scenes and store its runs; scenes already stored are not run again."""
    console = Console(stderr=True)
    start = time.monotonic()
    known: list[Demonstration] = []
    collected: list[Demonstration] = []
    failed: list[Demonstration] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=as_json) as progress:
        bar = progress.add_task(task, total=episodes)
        for result in collect(task, output, episodes, seed_offset=seed_offset, workers=workers):
            if result.episode_id is None:
                failed.append(result)
                console.print(f"seed {result.seed} is left out: {result.reason}", highlight=False, markup=False)
                continue
            (collected if result.steps else known).append(result)
            progress.advance(bar)
    seconds = time.monotonic() - start
    if as_json:
        report = {
            "task": task,
            "store": str(output),
            "episodes": len(known) + len(collected),
            "collected": len(collected),
            "already_there": len(known),
            "failed_seeds": [result.seed for result in failed],
            "steps": sum(result.steps for result in collected),
            "seconds": round(seconds, 2),
        }
        typer.echo(json.dumps(report))
        return
    typer.echo(
        f"{len(collected)} demonstrations collected in {seconds:.0f} s, {len(known)} were there, "
        f"{len(failed)} scenes failed: {output}"
    )

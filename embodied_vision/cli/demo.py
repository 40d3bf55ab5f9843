"""`embodied-vision demo`: the whole main job once, with a report."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def command(
    output: Path = typer.Option(Path("demo"), help="Folder for report, summary, logs and episodes."),
    task: str = typer.Option("block-insertion", help="Task to run."),
    policy: str = typer.Option("", help="Checkpoint, by folder or shipped name.", show_default="the task's"),
    scenes: int = typer.Option(5, min=1, max=1000, help="Number of unseen scenes."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Run unseen scenes through ROS 2 with the shipped policy; log, replay, decide again, report.

    Leaves `report.html` and `summary.json` in the output folder. Exit code 1 when a step failed; a scene that was
    not placed right is a result, not a failure.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Table

    from embodied_vision.demo.report import table_rows, write_report
    from embodied_vision.demo.run import DemoSettings, run_demo

    output.mkdir(parents=True, exist_ok=True)
    errors = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("scenes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors) as bar:
        line = bar.add_task("", total=scenes)
        run = run_demo(
            DemoSettings(output, task, scenes, policy or task),
            lambda done, phase: bar.update(line, completed=done, description=phase),
        )
        bar.update(line, completed=scenes, description="writing the report")
        (output / "report.html").write_text(write_report(run), encoding="utf-8")
        (output / "summary.json").write_text(json.dumps(run.summary, indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(run.summary))
        return
    table = Table("figure", "value", title=f"Embodied Vision demo: {task}")
    for name, value in table_rows(run.summary):
        table.add_row(name, value)
    Console().print(table)
    Console().print(f"Pictures: {output / 'report.html'}   Figures: {output / 'summary.json'}")

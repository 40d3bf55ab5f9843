"""`embodied-vision doctor`: what is missing on this machine or wrong with a running graph, and the remedy."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from embodied_vision.doctor.check import Check
from embodied_vision.doctor.report import checks, run_at


def command(
    run: Path | None = typer.Option(
        None, help="Folder of a running launch, to look at its graph.", show_default="this terminal's ROS environment"
    ),
    params_file: list[Path] = typer.Option(
        [], help="Parameter YAML that the nodes will get, as for launch; may be repeated.", show_default="none"
    ),
    seconds: float = typer.Option(3.0, min=0.0, max=600.0, help="How long to listen to the graph, s; 0: not at all."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Check machine, ROS, transport, files, store and a running graph. Exit code 1 when a check fails."""
    console = Console(highlight=False, soft_wrap=True)
    found: list[Check] = []
    for check in checks(run_at(run), params_file, seconds):
        found.append(check)
        if not as_json:
            mark = "[green]ok[/]  " if check.ok else "[red]bad[/] "
            remedy = f" → [yellow]{escape(check.remedy)}[/]" if check.remedy else ""
            console.print(f"{mark} {escape(check.name)}: {escape(check.value)}{remedy}")
    if as_json:
        typer.echo(json.dumps({"checks": [asdict(check) for check in found]}))
    if not all(check.ok for check in found):
        raise typer.Exit(1)

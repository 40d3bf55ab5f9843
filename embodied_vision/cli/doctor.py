"""`embodied-vision doctor`: what is missing on this machine, and the remedy."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape

from embodied_vision.launching.checkup import Check, checks


def command(as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts.")) -> None:
    """Check versions, ROS, transport of images, simulator, checkpoints and machine. Exit code 1 when a check fails."""
    console = Console(highlight=False, soft_wrap=True)
    found: list[Check] = []
    for check in checks():
        found.append(check)
        if not as_json:
            mark = "[green]ok[/]  " if check.ok else "[red]bad[/] "
            remedy = f" → [yellow]{escape(check.remedy)}[/]" if check.remedy else ""
            console.print(f"{mark} {escape(check.name)}: {escape(check.value)}{remedy}")
    if as_json:
        typer.echo(json.dumps({"checks": [asdict(check) for check in found]}))
    if not all(check.ok for check in found):
        raise typer.Exit(1)

"""`embodied-vision learn history`: what happened to the policies, oldest first."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from embodied_vision.errors import BadInput
from embodied_vision.learning import history
from embodied_vision.learning.lineage import tasks_in
from embodied_vision.learning.promotion import Pointer


def command(
    policies: Path = typer.Option(..., help="Folder of checkpoints and `current` pointers.", show_default=False),
    task: str | None = typer.Option(None, help="Name of the task; all of them when left out."),
    last: int = typer.Option(0, min=0, help="Only so many of the newest events; 0 for all."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON line an event, with all figures."),
) -> None:
    """Tell what was promoted, refused and rolled back, when and why."""
    known = tasks_in(policies)
    if task is not None and task not in known:
        raise BadInput(f"no policies of {task!r} in {policies}; there are some of {', '.join(known) or 'no task'}")
    events = [event for name in ([task] if task else known) for event in Pointer(policies, name).history()]
    events.sort(key=lambda event: str(event["time"]))
    for event in events[-last:] if last else events:
        typer.echo(json.dumps(event) if as_json else history.sentence(event))
    if not events and not as_json:
        typer.echo(f"nothing happened yet in {policies}")

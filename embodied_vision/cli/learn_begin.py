"""`embodied-vision learn begin`: begin a folder of policies with a checkpoint of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from embodied_vision.errors import BadInput
from embodied_vision.learning.decide import begin
from embodied_vision.learning.promotion import Pointer
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.locate import locate


def command(
    checkpoint: str = typer.Argument(..., help="Folder of a checkpoint, or the name of a shipped one."),
    policies: Path = typer.Option(..., help="Folder of checkpoints and `current` pointers.", show_default=False),
    task: str | None = typer.Option(None, help="Name of the task that it must be for."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder that it reads."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Put a checkpoint to use where none of its task is yet, instead of the shipped one. Rounds go on from there."""
    wanted = checkpoints.load(locate(checkpoint))
    if task not in (None, wanted.task):
        raise BadInput(f"checkpoint {checkpoint} is for task {wanted.task!r}, not {task!r}; give one of that task")
    pointer = Pointer(policies, wanted.task)
    begin(pointer, wanted, encoder)
    if as_json:
        figures = {"task": wanted.task, "current": pointer.current, "encoder": pointer.release["encoder"]}
        typer.echo(json.dumps(figures))
    else:
        typer.echo(f"{wanted.task}: learning begins with {pointer.current}; {policies / wanted.task / 'current'} is it")

"""`embodied-vision learn shadow`: what a candidate did in the shadow of the policy that acts."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning import shadow
from embodied_vision.learning.promotion import Pointer


def command(
    candidate: str = typer.Argument(..., help="Id of the candidate, as a refusal or `learn history` names it."),
    policies: Path = typer.Option(..., help="Folder of checkpoints and `current` pointers.", show_default=False),
    task: str = typer.Option(..., help="Name of the task.", show_default=False),
    store: Path | None = typer.Option(None, help="Folder of the episode store that it ran beside; tells the outcomes."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Tell how often a candidate would have done the same, and how that ended."""
    pointer = Pointer(policies, task)
    figures = shadow.summary(pointer, candidate, EpisodeStore(store) if store is not None else None)
    if not figures.decisions:
        raise BadInput(
            f"candidate {candidate} of {task} never ran in the shadow; launch the cell with --shadow "
            f"{pointer.path(candidate)}"
        )
    if as_json:
        typer.echo(json.dumps({"task": task, "candidate": candidate, **figures.to_dict()}))
        return
    typer.echo(
        f"{task}: {candidate} would have done the same in {figures.same} of {figures.decisions} decisions, "
        f"{figures.problems} of them broke a rule or did not come about"
    )
    if store is not None:
        typer.echo(
            f"of {figures.solved} episodes that ended well it would have acted alike throughout in "
            f"{figures.solved_same}; {figures.failed} ended badly"
        )

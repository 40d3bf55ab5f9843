"""`embodied-vision learn report`: the life of the policies in a folder, as one HTML page."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.life_report import read_lives, read_streams, tasks_of, write_report


def command(
    policies: Path = typer.Option(..., help="Folder of checkpoints and `current` pointers.", show_default=False),
    output: Path = typer.Option(Path("life.html"), help="The page to write."),
    task: str | None = typer.Option(None, help="Name of the task; every task in the folder when left out."),
    store: Path | None = typer.Option(None, help="Episode store, for how often each checkpoint succeeded in work."),
    stream: Path | None = typer.Option(
        None, help="Figures of continual learning, results/lifelong.jsonl, for the success matrix, FWT, NBT and AUC."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Write what was promoted, refused and rolled back, when, why and on which data, as one self-contained page."""
    tasks = tasks_of(policies)
    if task is not None and task not in tasks:
        raise BadInput(f"{policies} holds no policy of {task!r}; there are {', '.join(tasks)}")
    episodes = EpisodeStore(store) if store is not None else None
    if episodes is not None and not episodes.exists():
        raise BadInput(f"no episode store at {store}; leave --store out or give the folder of the logged episodes")
    lives = read_lives(policies, [task] if task is not None else tasks, episodes)
    write_report(output, lives, read_streams(stream) if stream is not None else ())
    counts = {
        life.task: {event: life.count(event) for event in ("promoted", "refused", "rolled back", "failed")}
        for life in lives
    }
    typer.echo(json.dumps({"page": str(output), "tasks": counts}) if as_json else f"{output}: {len(lives)} tasks")

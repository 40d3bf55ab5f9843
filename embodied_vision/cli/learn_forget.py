"""`embodied-vision learn forget`: delete an episode for good, and train again what learnt from it."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning import lineage
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.retrain import retrain

DEFAULTS = LearnConfig()


def command(
    episode: str = typer.Argument(..., help="Id of the episode."),
    store: Path = typer.Option(..., help="Folder of the episode store.", show_default=False),
    policies: Path = typer.Option(..., help="Folder of checkpoints and `current` pointers.", show_default=False),
    again: bool = typer.Option(False, "--retrain", help="Train every policy in use that saw it again, without it."),
    purge: bool = typer.Option(
        False, "--purge", help="Delete the stored policies that saw it and are not in use; the way back goes with them."
    ),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    steps: int = typer.Option(DEFAULTS.steps, min=1, help="Fine-tuning steps of each stage."),
    scenes: int = typer.Option(DEFAULTS.scenes, min=0, help="Validation scenes to compare on; 0 without a simulator."),
    margin: float = typer.Option(DEFAULTS.margin, help="Share of scenes that the new policy may solve less."),
    threads: int = typer.Option(DEFAULTS.threads, min=1, max=2, help="2 trains both stages side by side."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Delete an episode and tell which policies learnt from it. May be called again when it is deleted already.

    Exit code 1 when a policy in use that saw it could not be replaced.
    """
    config = LearnConfig(steps=steps, scenes=scenes, margin=margin, threads=threads)
    opened, seen = EpisodeStore(store), lineage.seen_by(episode, policies)
    there = episode in opened.ids()
    if not there and not seen:
        raise BadInput(f"no episode {episode!r} in {store}, and no policy in {policies} learnt from it")
    if there and not yes:
        shown = "\n".join(f"  {entry.task}: {entry.checkpoint_id} ({entry.use})" for entry in seen) or "  no policy"
        typer.confirm(f"delete episode {episode} for good? It was learnt by\n{shown}\n", abort=True, err=True)
    if there:
        lineage.erase(episode, opened)
        for task in sorted({entry.task for entry in seen}):
            ids = [entry.checkpoint_id for entry in seen if entry.task == task]
            Pointer(policies, task).log("forgotten", "", None, f"episode {episode} was deleted", seen_by=ids)
    outcomes = []
    if again:
        for task in sorted({entry.task for entry in seen if entry.use == "in use"}):
            outcomes.append(retrain(task, [episode], opened, policies, config, encoder=encoder))
    if purge:
        for entry in lineage.seen_by(episode, policies):
            if entry.use != "in use":
                Pointer(policies, entry.task).purge(entry.checkpoint_id, f"learnt from episode {episode}")
    left = lineage.seen_by(episode, policies)
    if as_json:
        figures = {
            "episode": episode,
            "deleted": there,
            "seen_by": [entry.to_dict() for entry in seen],
            "retrained": [outcome.to_dict() for outcome in outcomes],
            "left": [entry.to_dict() for entry in left],
        }
        typer.echo(json.dumps(figures))
    else:
        typer.echo(f"episode {episode} {'is deleted' if there else 'was deleted before'}")
        for outcome in outcomes:
            typer.echo(f"{outcome.task}: {outcome.candidate} without it: {outcome.decision}: {outcome.reason}")
        for entry in left:
            typer.echo(f"{entry.task}: {entry.checkpoint_id} ({entry.use}) still holds what it learnt from it")
        if left and not (again and purge):
            typer.echo("train those in use again with --retrain, delete the others with --purge")
    raise typer.Exit(1 if again and any(entry.use == "in use" for entry in left) else 0)

"""`embodied-vision learn lineage`: from an action to what it was learnt from, and from an episode to who learnt it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning import lineage

_SHOWN = 8


def command(
    name: str = typer.Argument(..., help="Id of a decision, of an episode, or of a checkpoint."),
    policies: Path = typer.Option(..., help="Folder of checkpoints and `current` pointers.", show_default=False),
    store: Path | None = typer.Option(None, help="Folder of the episode store; needed to trace a decision."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Tell where an action, an episode or a checkpoint comes from and where it went."""
    tasks = lineage.tasks_in(policies)
    found = next((task for task in tasks if lineage.find(name, task, policies) is not None), None)
    if found is not None:
        line = lineage.line(name, found, policies)
        _tell({"checkpoint": name, "task": found, "line": [vars(a) for a in line]}, _line(line), as_json)
        return
    seen = lineage.seen_by(name, policies)
    episodes = EpisodeStore(store) if store is not None else None
    if seen or (episodes is not None and name in episodes.ids()):
        words = [f"{entry.task}: {entry.checkpoint_id} ({entry.use}) learnt from it" for entry in seen]
        words = words or ["no policy learnt from it"]
        if episodes is not None and name in episodes.ids():
            episode = episodes.open(name)
            words.insert(0, f"episode {name} of {episode.task}, acted by {episode.policy_id or 'nobody'}")
        _tell({"episode": name, "seen_by": [entry.to_dict() for entry in seen]}, words, as_json)
        return
    if episodes is None:
        raise BadInput(f"{name!r} is no checkpoint in {policies} and no policy learnt from it; give --store as well")
    origin = lineage.origin(name, episodes, policies)
    words = [f"decision {name}: number {origin.number + 1} of episode {origin.episode}, encoder {origin.encoder_id}"]
    _tell(origin.to_dict(), [*words, *_line(origin.line)], as_json)


def _line(line: Any) -> list[str]:
    """One line a checkpoint."""
    words = []
    for ancestor in line:
        shown = ", ".join(ancestor.episodes[:_SHOWN]) + (", …" if len(ancestor.episodes) > _SHOWN else "")
        where = f" in {ancestor.folder}" if ancestor.folder else ", which is not here any more"
        words.append(
            f"checkpoint {ancestor.checkpoint_id}{where}: {len(ancestor.episodes)} episodes of its own {shown}"
        )
    return words


def _tell(figures: dict[str, Any], words: list[str], as_json: bool) -> None:
    typer.echo(json.dumps(figures) if as_json else "\n".join(words))

"""`embodied-vision learn canary`: watch what was promoted, and take it back when it does worse."""

from __future__ import annotations

import json
import time
from pathlib import Path

import typer

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning import canary
from embodied_vision.learning.lineage import tasks_in
from embodied_vision.learning.promotion import Pointer

_WORDS = {"off": "not watched", "watching": "watched", "passed": "stands", "rolled back": "rolled back"}


def command(
    policies: Path = typer.Option(..., help="Folder of checkpoints and `current` pointers.", show_default=False),
    store: Path = typer.Option(..., help="Folder of the episode store that is logged to.", show_default=False),
    task: str | None = typer.Option(None, help="Name of the task; all of them when left out."),
    watch: bool = typer.Option(False, "--watch", help="Go on looking until every canary has ended."),
    poll: float = typer.Option(2.0, min=0.1, help="Time between two looks, s."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON line a task, and with --watch a change."),
) -> None:
    """Look at the first episodes of promoted policies. Exit code 1 when one was rolled back.

    A policy node follows its pointer before the next decision; nothing else needs to be called.
    """
    episodes, names = EpisodeStore(store), [task] if task is not None else tasks_in(policies)
    if not episodes.exists():
        raise BadInput(f"no episode store at {store}; log episodes with `embodied-vision launch cell`")
    told: dict[str, canary.State] = {}
    taken_back = False
    while True:
        for name in names:
            state = canary.check(Pointer(policies, name), episodes)
            if state.word == "off" and told.get(name, state).word == "rolled back":
                continue  # what is in use again was promoted before, and is not watched
            if told.get(name) != state:
                told[name] = state
                typer.echo(json.dumps({"task": name, **state.to_dict()}) if as_json else _sentence(name, state))
            taken_back |= state.word == "rolled back"
        if not watch or all(state.word != "watching" for state in told.values()):
            break
        time.sleep(poll)
    raise typer.Exit(1 if taken_back else 0)


def _sentence(task: str, state: canary.State) -> str:
    if state.word == "off":
        return f"{task}: {state.reason}"
    words = f"{task}: {state.checkpoint} {_WORDS[state.word]}, {len(state.episodes)} of {state.of} episodes"
    return f"{words}: {state.reason}" + (f"; {state.now} is in use again" if state.word == "rolled back" else "")

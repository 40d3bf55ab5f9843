"""`embodied-vision episodes export` and `import`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from embodied_vision.cli.episodes.common import JSON, STORE, open_store
from embodied_vision.cli.episodes.wanted import POLICY, SINCE, SOLVED, TAG, TASK, UNTIL, filter_of, wanted_ids
from embodied_vision.episodes.exchange import FORMATS
from embodied_vision.episodes.exchange.guess import format_of_source, format_of_target
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EmbodiedVisionError

_FORMATS = "; ".join(f"{form.name}: {form.about}" for form in FORMATS.values())


def export(
    store: Path = STORE,
    target: Path = typer.Argument(..., help="File or folder to write; must not exist.", show_default=False),
    ids: list[str] | None = typer.Argument(None, metavar="[ID]...", help="Only these, or beginnings of ids."),
    name: str | None = typer.Option(None, "--format", help=f"{_FORMATS}.", show_default="by the target's suffix"),
    storage: str | None = typer.Option(
        None, help="Of rosbag2: mcap, or sqlite3 for tools that read no other.", show_default="mcap"
    ),
    task: str | None = TASK,
    policy_id: str | None = POLICY,
    solved: bool | None = SOLVED,
    tags: list[str] | None = TAG,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    as_json: bool = JSON,
) -> None:
    """Write episodes in another format. The target appears whole, or nothing is left of it."""
    form = format_of_target(target, name)
    if storage is not None and form.name != "rosbag2":
        raise BadInput(f"--storage {storage} is for --format rosbag2 alone, not for {form.name}; leave it out")
    opened = open_store(store)
    wanted = filter_of(task=task, policy_id=policy_id, solved=solved, tags=tags, since=since, until=until)
    episodes = [opened.open(episode_id) for episode_id in wanted_ids(opened, ids, wanted)]
    write: Callable[..., None] = form.export
    if storage is not None:
        write = partial(write, storage=storage)
    with _progress(as_json) as progress:
        bar = progress.add_task("exporting", total=len(episodes))
        write(episodes, target, done=lambda _: progress.advance(bar))
    if as_json:
        written = [episode.id for episode in episodes]
        typer.echo(json.dumps({"format": form.name, "target": str(target), "exported": written}))
    else:
        count = f"{len(episodes)} episode{'' if len(episodes) == 1 else 's'}"
        Console(soft_wrap=True, highlight=False).print(f"{count} exported to {escape(str(target))} ({form.name}).")


def import_(
    source: Path = typer.Argument(..., help="File or folder to read.", show_default=False),
    store: Path = typer.Argument(..., help="Folder of the episode store; made where it is missing."),
    name: str | None = typer.Option(None, "--format", help=f"{_FORMATS}.", show_default="by what lies there"),
    topics: Path | None = typer.Option(
        None,
        help="YAML that says what the topics of a recording of others are, see docs/exchange.md.",
        show_default="none: it was exported from a store",
    ),
    calibration: Path | None = typer.Option(
        None,
        help="YAML with the cameras of a data set of others; of recordings the topic map names it.",
        show_default="none: nominal cameras",
    ),
    task: str | None = typer.Option(None, help="Name of the task, where the source does not tell.", show_default="-"),
    as_json: bool = JSON,
) -> None:
    """Read episodes of another format into a store, each under a new id.

    An episode that cannot be read is discarded; those before it stay in the store and are told.
    """
    form = format_of_source(source, name)
    if (calibration if form.has_topics else topics) is not None:
        wrong, right = ("--calibration", "--topics") if form.has_topics else ("--topics", "--calibration")
        raise BadInput(f"{wrong} is not for the format {form.name}; give {right}")
    done: list[str] = []
    failure: EmbodiedVisionError | None = None
    with _progress(as_json) as progress:
        bar = progress.add_task("importing", total=None)
        try:
            for episode_id in form.import_(source, EpisodeStore(store), task=task, topics=topics or calibration):
                done.append(episode_id)
                progress.advance(bar)
        except EmbodiedVisionError as error:
            failure = error
    if as_json:
        about = {"format": form.name, "store": str(store), "imported": done}
        typer.echo(json.dumps(about if failure is None else {**about, "error": str(failure)}))
    elif done or failure is None:
        count = f"{len(done)} episode{'' if len(done) == 1 else 's'}"
        Console(soft_wrap=True, highlight=False).print(f"{count} imported into {escape(str(store))} ({form.name}).")
    if failure is not None:
        raise failure


def _progress(as_json: bool) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json)

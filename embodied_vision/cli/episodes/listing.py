"""`embodied-vision episodes list` and `catalogue`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied_vision.cli.episodes.common import JSON, STORE, id_column, open_store, pairs, time_of
from embodied_vision.cli.episodes.wanted import ENCODER, POLICY, ROBOT, SINCE, SOLVED, TAG, TASK, UNTIL, filter_of
from embodied_vision.episodes.catalogue import NAME, Catalogue, Progress
from embodied_vision.episodes.catalogue_file import SORTS
from embodied_vision.episodes.filters import Filter
from embodied_vision.episodes.listing import listing
from embodied_vision.episodes.summary import Damaged, Summary

MOST_ROWS = 1000
"""Of a table without --limit; JSON has them all."""
_WORTH_A_BAR = 500
_WIDE, _FILE_WIDTH = 110, 160
"""Columns of a terminal for all of the table, and of a table into a file or pipe."""


def list_(
    store: Path = STORE,
    task: str | None = TASK,
    solved: bool | None = SOLVED,
    policy_id: str | None = POLICY,
    encoder_id: str | None = ENCODER,
    robot: str | None = ROBOT,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    tags: list[str] | None = TAG,
    sort: str = typer.Option("id", help=f"Smallest first: {', '.join(SORTS)}. Ids sort by time."),
    reverse: bool = typer.Option(False, "--reverse", help="Largest first."),
    limit: int | None = typer.Option(
        None, min=1, help="At most so many.", show_default=f"{MOST_ROWS} in the table, all with --json"
    ),
    as_json: bool = JSON,
) -> None:
    """List the episodes of a store, oldest first, damaged and unfinished ones as well."""
    opened = open_store(store)
    wanted = filter_of(
        task=task,
        policy_id=policy_id,
        encoder_id=encoder_id,
        robot=robot,
        solved=solved,
        tags=tags,
        since=since,
        until=until,
    )
    with reading_bar() as progress:
        most = limit if limit is not None or as_json else MOST_ROWS + 1
        entries = listing(opened, wanted, sort=sort, reverse=reverse, limit=most, progress=progress)
    staging = opened.staging_ids()
    if as_json:
        rows = [about(entry) for entry in entries]
        typer.echo(json.dumps({"store": str(opened.location), "episodes": rows, "staging": staging}))
        return
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _FILE_WIDTH)
    shown = entries if limit is not None else entries[:MOST_ROWS]
    console.print(_table(shown, str(opened.location), wide=console.width >= _WIDE))
    if len(shown) < len(entries):
        console.print(f"the first {MOST_ROWS} are shown; --limit takes more or fewer, filters and --sort choose.")
    if staging:
        console.print(f"{len(staging)} unfinished in staging; when no writer runs, bring them back with `repair`.")


def catalogue(
    store: Path = STORE,
    rebuild: bool = typer.Option(False, "--rebuild", help="Read every episode again."),
    as_json: bool = JSON,
) -> None:
    """Bring the catalogue of a store up to date, as every other verb does that needs it, and tell how it stands."""
    opened = open_store(store)
    read = 0

    def count(done: int, total: int) -> None:
        nonlocal read
        read = done

    begun = time.perf_counter()
    with reading_bar(count) as progress, Catalogue(opened.path, rebuild=rebuild, progress=progress) as found:
        seconds = time.perf_counter() - begun
        entries = found.find(Filter())
        kept = found.kept
    damaged = [entry for entry in entries if isinstance(entry, Damaged)]
    path = opened.path / NAME
    report = {
        "store": str(opened.path),
        "catalogue": str(path) if kept else None,
        "bytes": path.stat().st_size if kept else 0,
        "episodes": len(entries),
        "read": read,
        "seconds": round(seconds, 3),
        "damaged": [asdict(entry) for entry in damaged],
    }
    if as_json:
        typer.echo(json.dumps(report))
        return
    where = f"in {path}, {report['bytes']} bytes" if kept else "in memory: the store cannot be written"
    console = Console(soft_wrap=True)
    console.print(
        f"{len(entries)} episodes, {len(damaged)} damaged; {read} were read in {seconds:.1f} s. "
        f"The catalogue is {escape(where)}."
    )
    for entry in damaged:
        console.print(f"[red]damaged[/] {entry.id}: {escape(entry.error)}")


def about(entry: Summary | Damaged) -> dict[str, Any]:
    """An episode in a list as JSON."""
    if isinstance(entry, Damaged):
        return asdict(entry)
    return {**asdict(entry), "duration_s": entry.duration_s}


@contextmanager
def reading_bar(also: Progress | None = None) -> Iterator[Progress]:
    """A progress bar, on stderr, once there is much to read; `also` is told as well."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("reading new episodes")

    def progress(done: int, total: int) -> None:
        if total > _WORTH_A_BAR:
            bar.start()
            bar.update(task, completed=done, total=total)
        if also is not None:
            also(done, total)

    try:
        yield progress
    finally:
        bar.stop()


def _table(entries: list[Summary | Damaged], title: str, wide: bool) -> Table:
    """A narrow one leaves numbers and tags out, rather than cutting ids short."""
    tagged = wide and any(isinstance(entry, Summary) and entry.tags for entry in entries)
    table = Table(id_column(), "task", title=escape(title), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("started, UTC", no_wrap=True)
    for name in ("s", "frames", "decisions") if wide else ():
        table.add_column(name, justify="right", no_wrap=True)
    if tagged:
        table.add_column("tags")
    table.add_column("outcome")
    for entry in entries:
        if isinstance(entry, Damaged):
            table.add_row(entry.id, "[red]damaged[/]", *[""] * (len(table.columns) - 3), escape(entry.error))
            continue
        row = [entry.id, escape(entry.task), time_of(entry.created_ns)[: 16 if wide else 10]]
        if wide:
            row += [f"{entry.duration_s:.1f}", str(sum(entry.frames.values())), str(entry.decisions)]
        if tagged:
            row.append(escape(", ".join(entry.tags)))
        table.add_row(*row, escape(pairs({**entry.outcome})))
    return table

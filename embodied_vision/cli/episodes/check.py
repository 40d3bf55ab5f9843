"""`embodied-vision episodes verify` and `repair`."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from embodied_vision.cli.episodes.common import JSON, STORE, id_column, open_store
from embodied_vision.episodes.repair import repair as repair_store
from embodied_vision.episodes.select import find_id
from embodied_vision.episodes.verify import Report, verify_episode
from embodied_vision.errors import RunFailed


def verify(
    store: Path = STORE,
    ids: list[str] | None = typer.Argument(None, metavar="[ID]...", help="Only these episodes.", show_default="all"),
    as_json: bool = JSON,
) -> None:
    """Compare every byte with what was written. Exit code 1 when anything is damaged."""
    opened = open_store(store)
    wanted = [find_id(opened, episode_id) for episode_id in ids] if ids else opened.ids()
    reports: list[Report] = [
        verify_episode(opened, episode_id)
        for episode_id in track(wanted, "verifying", console=Console(stderr=True), transient=True, disable=as_json)
    ]
    damaged = [
        {"id": report.id, "file": file, "problem": problem} for report in reports for file, problem in report.problems
    ]
    ok = sum(report.ok for report in reports)
    if as_json:
        typer.echo(json.dumps({"episodes": len(reports), "ok": ok, "damaged": damaged}))
    else:
        console = Console()
        if damaged:
            table = Table(id_column(), "file", "problem", title="damaged")
            for entry in damaged:
                table.add_row(*(escape(entry[key]) for key in ("id", "file", "problem")))
            console.print(table)
        console.print(f"{ok} of {len(reports)} episodes are as they were written.")
    if damaged:
        raise typer.Exit(RunFailed.exit_code)


def repair(store: Path = STORE, as_json: bool = JSON) -> None:
    """Bring back episodes whose writer died, settle changes that were cut off. Exit code 1 when one could not be."""
    results = repair_store(open_store(store))
    if as_json:
        typer.echo(json.dumps({"repaired": [vars(result) for result in results]}))
    else:
        table = Table(id_column(), "state", "records", "detail", title="repaired")
        for result in results:
            table.add_row(result.id, result.state, str(result.records), escape(result.detail))
        Console().print(table if results else "nothing to repair.")
    if any(result.state == "failed" for result in results):
        raise typer.Exit(RunFailed.exit_code)

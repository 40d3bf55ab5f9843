"""`embodied-vision episodes`: list, show, verify, repair."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.repair import repair as repair_store
from embodied_vision.episodes.schema import plain
from embodied_vision.episodes.select import LATEST, find_episode, find_id
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import Report, verify_episode
from embodied_vision.errors import BadInput, EpisodeError, RunFailed

app = typer.Typer(help="Look at, check and repair logged episodes.", no_args_is_help=True)

STORE = typer.Argument(..., help="Folder of the episode store.", show_default=False)
JSON = typer.Option(False, "--json", help="Print JSON for scripts.")


@app.command("list")
def list_(
    store: Path = STORE,
    task: str | None = typer.Option(None, help="Only episodes of this task.", show_default="all"),
    as_json: bool = JSON,
) -> None:
    """List the episodes of a store, oldest first, damaged and unfinished ones as well."""
    opened = _open_store(store)
    rows = []
    for episode_id in opened.ids():
        try:
            row = _summary(opened.open(episode_id))
        except EpisodeError as error:
            row = {"id": episode_id, "error": str(error)}
        if task is None or row.get("task", task) == task:
            rows.append(row)
    staging = opened.staging_ids()
    if as_json:
        typer.echo(json.dumps({"store": str(store), "episodes": rows, "staging": staging}))
        return
    table = Table(_id_column(), "task", "started", "frames", "decisions", "outcome", title=escape(str(store)))
    for row in rows:
        if "error" in row:
            table.add_row(row["id"], "[red]damaged[/]", "", "", "", escape(row["error"]))
        else:
            table.add_row(
                row["id"],
                escape(row["task"]),
                _time(row["created_ns"]),
                str(sum(row["frames"].values())),
                str(row["decisions"]),
                escape(_pairs(row["outcome"])),
            )
    console = Console()
    console.print(table)
    if staging:
        console.print(f"{len(staging)} unfinished in staging; when no writer runs, bring them back with `repair`.")


@app.command("show")
def show(
    store: Path = STORE,
    episode_id: str = typer.Argument(LATEST, metavar="[ID]", help="Id, the beginning of one, or 'latest'."),
    picture: Path | None = typer.Option(
        None, help="Write a contact sheet, frames and decisions with pick and place, to this image file."
    ),
    as_json: bool = JSON,
) -> None:
    """Show what one episode holds."""
    episode = find_episode(_open_store(store), episode_id)
    details = _details(episode)
    if picture is not None:
        from embodied_vision.episodes.picture import contact_sheet

        try:
            contact_sheet(episode).save(picture)
        except (OSError, ValueError) as error:
            if isinstance(error, EpisodeError):
                raise
            raise BadInput(f"{picture} cannot be written ({error}); give a writable path that ends in .png") from error
    if as_json:
        typer.echo(json.dumps(plain(details, "episode")))
        return
    console = Console()
    about = Table("", "", title=escape(f"episode {episode.id}"), show_header=False)
    for key in ("task", "robot", "encoder_id", "policy_id", "outcome", "attributes", "path"):
        value = details[key]
        about.add_row(key, escape(_pairs(value) if isinstance(value, dict) else str(value)))
    about.add_row("started", _time(episode.created_ns))
    console.print(about)
    streams = Table("stream", "length", "shape", "duration s", "rate Hz", title="streams")
    for name, stream in details["streams"].items():
        streams.add_row(
            escape(name),
            str(stream["length"]),
            "×".join(map(str, stream["shape"])),
            f"{stream['duration_s']:.2f}",
            f"{stream['rate_hz']:.1f}" if stream["rate_hz"] is not None else "-",
        )
    console.print(streams)
    decisions = Table("decision", "primitive", "pick x y z m", "place x y z m", "scores", title="decisions")
    for decision in details["decisions"]:
        decisions.add_row(
            decision["decision_id"],
            decision["primitive"],
            " ".join(f"{v:.3f}" for v in decision["pick"]),
            " ".join(f"{v:.3f}" for v in decision["place"]),
            escape(_pairs(decision["scores"])),
        )
    console.print(decisions)
    if picture is not None:
        console.print(f"contact sheet: {escape(str(picture))}")


@app.command("verify")
def verify(
    store: Path = STORE,
    ids: list[str] | None = typer.Argument(None, metavar="[ID]...", help="Only these episodes.", show_default="all"),
    as_json: bool = JSON,
) -> None:
    """Compare every byte with what was written. Exit code 1 when anything is damaged."""
    opened = _open_store(store)
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
            table = Table(_id_column(), "file", "problem", title="damaged")
            for entry in damaged:
                table.add_row(*(escape(entry[key]) for key in ("id", "file", "problem")))
            console.print(table)
        console.print(f"{ok} of {len(reports)} episodes are as they were written.")
    if damaged:
        raise typer.Exit(RunFailed.exit_code)


@app.command("repair")
def repair(store: Path = STORE, as_json: bool = JSON) -> None:
    """Bring back episodes whose writer died. Exit code 1 when one could not be."""
    results = repair_store(_open_store(store))
    if as_json:
        typer.echo(json.dumps({"repaired": [vars(result) for result in results]}))
    else:
        table = Table(_id_column(), "state", "records", "detail", title="staging")
        for result in results:
            table.add_row(result.id, result.state, str(result.records), escape(result.detail))
        Console().print(table if results else "nothing to repair.")
    if any(result.state == "failed" for result in results):
        raise typer.Exit(RunFailed.exit_code)


def _open_store(path: Path) -> EpisodeStore:
    store = EpisodeStore(path)
    if not store.exists():
        raise BadInput(f"no episode store at {path}; give the folder that the recorder or `collect` wrote to")
    return store


def _summary(episode: Episode) -> dict[str, Any]:
    return {
        "id": episode.id,
        "task": episode.task,
        "robot": episode.robot,
        "created_ns": episode.created_ns,
        "encoder_id": episode.encoder_id,
        "policy_id": episode.policy_id,
        "frames": {name: len(episode.frames(name)) for name in episode.cameras},
        "decisions": len(episode.decisions),
        "outcome": dict(episode.outcome),
    }


def _details(episode: Episode) -> dict[str, Any]:
    streams = {}
    for name, camera in episode.cameras.items():
        stamps = episode.frames(name).stamps_ns
        streams[f"{name} (camera)"] = _stream(stamps, (camera.height, camera.width))
    for name in episode.streams:
        stamps, values = episode.stream(name)
        streams[name] = _stream(stamps, values.shape[1:])
    actions = [episode.decisions.action(number) for number in range(len(episode.decisions))]
    return {
        **_summary(episode),
        "path": str(episode.path),
        "attributes": dict(episode.attributes),
        "streams": streams,
        "decisions": [
            {
                "decision_id": action.decision_id,
                "primitive": action.primitive,
                "stamp_ns": action.stamp_ns,
                "pick": action.pick[:3, 3].tolist(),
                "place": action.place[:3, 3].tolist(),
                "scores": dict(action.scores),
            }
            for action in actions
        ],
    }


def _stream(stamps: NDArray[np.int64], shape: tuple[int, ...]) -> dict[str, Any]:
    duration = float(np.ptp(stamps)) / 1e9 if len(stamps) else 0.0
    rate = (len(stamps) - 1) / duration if duration > 0 else None
    return {"length": len(stamps), "shape": list(shape), "duration_s": duration, "rate_hz": rate}


def _time(stamp_ns: int) -> str:
    return datetime.fromtimestamp(stamp_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )


def _id_column() -> Column:
    return Column("id", no_wrap=True, min_width=36)

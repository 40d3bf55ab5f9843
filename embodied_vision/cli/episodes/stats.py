"""`embodied-vision episodes stats`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from embodied_vision.cli.episodes.common import JSON, STORE, open_store
from embodied_vision.cli.episodes.listing import reading_bar
from embodied_vision.cli.episodes.wanted import ENCODER, POLICY, ROBOT, SINCE, SOLVED, TAG, TASK, UNTIL, filter_of
from embodied_vision.episodes.listing import listing
from embodied_vision.episodes.schema import plain
from embodied_vision.episodes.statistics import Statistics
from embodied_vision.episodes.summary import Damaged, Summary
from embodied_vision.errors import EpisodeError
from embodied_vision.learning.statistics import wilson

_COLUMNS_SHOWN = 16
_COMMANDS = "joint_trajectory/"
"""Streams of flattened commands: their columns are points of time, which no mean describes."""


def stats(
    store: Path = STORE,
    task: str | None = TASK,
    solved: bool | None = SOLVED,
    policy_id: str | None = POLICY,
    encoder_id: str | None = ENCODER,
    robot: str | None = ROBOT,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    tags: list[str] | None = TAG,
    as_json: bool = JSON,
) -> None:
    """Tell what episodes hold in all: hours, frames, success with 95 % intervals, values, bytes. Reads all streams."""
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
        entries = listing(opened, wanted, progress=progress)
    damaged = [entry for entry in entries if isinstance(entry, Damaged)]
    whole = [entry for entry in entries if isinstance(entry, Summary)]
    found = Statistics()
    for entry in track(whole, "reading streams", console=Console(stderr=True), transient=True, disable=as_json):
        try:
            found.add(opened.open(entry.id))
        except EpisodeError as error:
            damaged.append(Damaged(entry.id, str(error)))
    report = _report(found, damaged)
    if as_json:
        typer.echo(json.dumps(plain({"store": str(opened.location), **report}, "statistics")))
    else:
        _print(report)


def _report(found: Statistics, damaged: list[Damaged]) -> dict[str, Any]:
    lengths = np.array(found.lengths_s)
    spread = None
    if len(lengths):
        low, middle, high = np.quantile(lengths, [0, 0.5, 1])
        spread = {"min": float(low), "median": float(middle), "mean": float(lengths.mean()), "max": float(high)}
    success = []
    for (task, policy_id), (solved, told) in sorted(found.outcomes.items()):
        interval = wilson(solved, told)
        success.append(
            {
                "task": task,
                "policy_id": policy_id,
                "solved": solved,
                "episodes": told,
                "rate": interval.value,
                "ci_low": interval.low,
                "ci_high": interval.high,
            }
        )
    return {
        "episodes": len(lengths),
        "hours": float(lengths.sum()) / 3600,
        "length_s": spread,
        "decisions": found.decisions,
        "success": success,
        "outcome_untold": found.untold,
        "cameras": {
            name: {
                "frames": images.frames,
                "rate_hz": images.gaps / images.spans_s if images.spans_s else None,
                "bytes": images.bytes,
                "bytes_per_frame": images.bytes / images.frames if images.frames else None,
            }
            for name, images in sorted(found.cameras.items())
        },
        "streams": [
            {
                "name": name,
                "dimension": dimension,
                "samples": values.samples,
                "non_finite": values.non_finite,
                "min": _told(values.low, values.count),
                "max": _told(values.high, values.count),
                "mean": _told(values.mean, values.count),
                "std": _told(values.std, values.count),
            }
            for (name, dimension), values in sorted(found.streams.items())
        ],
        "bytes": {"all": found.bytes.total(), **dict(found.bytes.most_common())},
        "damaged": [vars(entry) for entry in damaged],
    }


def _told(values: np.ndarray[Any, Any], count: np.ndarray[Any, Any]) -> list[float | None]:
    """None where there was no finite value."""
    return [float(value) if number else None for value, number in zip(values, count, strict=True)]


def _print(report: dict[str, Any]) -> None:
    console = Console()
    lengths, sizes = report["length_s"], report["bytes"]
    console.print(
        f"{report['episodes']} episodes, {report['hours']:.3f} hours, {report['decisions']} decisions, "
        f"{_bytes(sizes['all'])}",
        highlight=False,
    )
    if lengths:
        told = ", ".join(f"{name} {value:.2f}" for name, value in lengths.items())
        console.print(f"length in s: {told}", highlight=False)
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in sizes.items() if name != "all")
    console.print(f"bytes: {parts}" if parts else "", highlight=False)
    success = Table("task", "policy", "solved", "rate", "95 % interval", title="success", box=SIMPLE_HEAD)
    for row in report["success"]:
        interval = f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"
        solved = f"{row['solved']} of {row['episodes']}"
        success.add_row(escape(row["task"]), escape(row["policy_id"]), solved, f"{row['rate']:.3f}", interval)
    cameras = Table("camera", "frames", "rate Hz", "size", "bytes a frame", title="cameras", box=SIMPLE_HEAD)
    for name, row in report["cameras"].items():
        rate = f"{row['rate_hz']:.2f}" if row["rate_hz"] else "-"
        each = f"{row['bytes_per_frame']:.0f}" if row["bytes_per_frame"] else "-"
        cameras.add_row(escape(name), str(row["frames"]), rate, _bytes(row["bytes"]), each)
    streams, notes = _streams(report["streams"])
    for table in (success, cameras, streams):
        if table.row_count:
            console.print(table)
    for note in notes:
        console.print(note, highlight=False)
    if report["outcome_untold"]:
        console.print(f"{report['outcome_untold']} episodes do not tell whether they were solved.", highlight=False)
    for entry in report["damaged"]:
        console.print(f"[red]damaged, left out[/] {entry['id']}: {escape(entry['error'])}", soft_wrap=True)


def _streams(rows: list[dict[str, Any]]) -> tuple[Table, list[str]]:
    """A table of the first columns of each stream, and what it does not show."""
    table, notes = Table(title="streams", box=SIMPLE_HEAD), []
    table.add_column("stream", no_wrap=True)
    for name in ("samples", "min", "max", "mean", "std"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shown = 0 if row["name"].startswith(_COMMANDS) else min(row["dimension"], _COLUMNS_SHOWN)
        for column in range(shown):
            name = f"{row['name']}[{column}]" if row["dimension"] > 1 else row["name"]
            numbers = (row[key][column] for key in ("min", "max", "mean", "std"))
            table.add_row(escape(name), str(row["samples"]), *("-" if n is None else f"{n:.4g}" for n in numbers))
        if not shown:
            table.add_row(escape(row["name"]), str(row["samples"]))
        elif shown < row["dimension"]:
            notes.append(f"{escape(row['name'])} has {row['dimension']} columns; --json shows all.")
        if row["non_finite"]:
            notes.append(f"{escape(row['name'])}: {row['non_finite']} values are not finite and left out.")
    return table, notes


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"

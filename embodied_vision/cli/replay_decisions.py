"""The part of `embodied-vision replay` that makes logged decisions again: `--policy` and `--report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from embodied_vision.cli.episodes.common import id_column
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import EpisodeError, RunFailed
from embodied_vision.learning.replay import Comparison, Redecided, redecide
from embodied_vision.learning.replay_report import Compared, summarise, write_report
from embodied_vision.policies.locate import locate
from embodied_vision.policies.policy import Policy


def decide_again(
    store: EpisodeStore,
    ids: Sequence[str],
    checkpoint: str,
    encoder_name: str,
    report: Path | None,
    as_json: bool,
    *,
    single: bool,
) -> None:
    """Make the decisions of these episodes again and print where they differ; with `report` a page as well.

    Raises:
        RunFailed: a decision that this checkpoint and encoder made differs.
        EpisodeError: an episode is damaged, or `single` and it holds no decisions.
    """
    encoder = load_encoder(encoder_name)
    policy = Policy.load(locate(checkpoint), encoder)
    compared: list[Compared] = []
    columns = (TextColumn("deciding again"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as bar:
        line = bar.add_task("", total=None if not single else 0)
        for episode_id in ids:
            episode = store.open(episode_id)
            if not single and len(episode.decisions) == 0:
                continue  # such as one that a person recorded
            bar.update(line, total=(bar.tasks[0].total or 0) + len(episode.decisions))
            again: list[Redecided] = []
            for step in redecide(episode, policy, encoder):
                again.append(step)
                bar.advance(line)
            compared.append(Compared(episode, tuple(again)))
    if not compared:
        raise EpisodeError(f"none of {len(ids)} episodes of {store.location} holds decisions; nothing to compare")
    ran = {"checkpoint": policy.checkpoint_id, "encoder": encoder.encoder_id}
    if report is not None:
        write_report(report, compared, checkpoint=policy.checkpoint_id, encoder=encoder.encoder_id)
    summaries = [_summary(entry, ran) for entry in compared]
    if as_json:
        typer.echo(json.dumps(summaries[0] if single else {**ran, **summarise(compared), "episodes": summaries}))
    else:
        console = Console()
        if single:
            console.print(_table(compared[0]))
        else:
            console.print(_overview(compared))
        if report is not None:
            console.print(f"report: {escape(str(report / 'index.html'))}", soft_wrap=True, highlight=False)
    faults = [step.comparison for entry in compared for step in entry.steps if step.comparison.is_fault]
    if faults:
        total = sum(len(entry.steps) for entry in compared)
        where = f"episode {compared[0].episode.id}" if single else f"{len(compared)} episodes"
        raise RunFailed(
            f"{len(faults)} of {total} decisions of {where} differ although checkpoint {policy.checkpoint_id} "
            f"and encoder {encoder.encoder_id} made them; was the log made on another machine, runtime or number of "
            "threads?"
        )


def _summary(compared: Compared, ran: dict[str, str]) -> dict[str, Any]:
    comparisons = [step.comparison for step in compared.steps]
    return {
        "episode": compared.episode.id,
        **ran,
        "decisions": len(comparisons),
        "identical": sum(c.identical for c in comparisons),
        "faults": sum(c.is_fault for c in comparisons),
        "comparisons": [asdict(c) for c in comparisons],
    }


def _table(compared: Compared) -> Table:
    title = f"episode {compared.episode.id}"
    table = Table("decision", "made by this checkpoint", "action", "pick", "place", title=title)
    for step in compared.steps:
        c = step.comparison
        action = "identical" if c.identical else "[red]differs[/]" if c.same_ids else "differs"
        made = "yes" if c.same_ids else "no"
        if c.pick_mm is None or c.place_mm is None:
            table.add_row(c.decision_id, made, action, escape(c.error), "")
            continue
        pick, place = f"{c.pick_mm:.3f} mm, {c.pick_deg:.3f}°", f"{c.place_mm:.3f} mm, {c.place_deg:.3f}°"
        table.add_row(c.decision_id, made, action, pick, place)
    return table


def _overview(compared: Sequence[Compared]) -> Table:
    table = Table(id_column(), "task", "made", "same", "faults", "worst pick mm", "worst place mm", title="decisions")
    for entry in compared:
        comparisons = [step.comparison for step in entry.steps]
        table.add_row(
            entry.episode.id,
            escape(entry.episode.task),
            str(len(comparisons)),
            str(sum(c.identical for c in comparisons)),
            str(sum(c.is_fault for c in comparisons)),
            _worst(comparisons, "pick_mm"),
            _worst(comparisons, "place_mm"),
        )
    return table


def _worst(comparisons: Sequence[Comparison], field: str) -> str:
    values = [getattr(c, field) for c in comparisons if getattr(c, field) is not None]
    return f"{max(values):.3f}" if values else "-"

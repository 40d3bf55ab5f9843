"""`embodied-vision episodes features`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embodied_vision.cli.episodes.common import JSON, STORE, open_store
from embodied_vision.cli.episodes.wanted import POLICY, SINCE, SOLVED, TAG, TASK, UNTIL, filter_of, wanted_ids
from embodied_vision.episodes.features import FeatureCache
from embodied_vision.errors import BadInput


def features(
    store: Path = STORE,
    ids: list[str] | None = typer.Argument(None, metavar="[ID]...", help="Only these episodes.", show_default="all"),
    encoder: str = typer.Option("default", help="Name or folder of the encoder."),
    cameras: list[str] | None = typer.Option(
        None, "--camera", help="Only this camera; may be repeated.", show_default="all"
    ),
    task: str | None = TASK,
    policy_id: str | None = POLICY,
    solved: bool | None = SOLVED,
    tags: list[str] | None = TAG,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    check: bool = typer.Option(False, "--check", help="Read what is there, and compute again what is damaged."),
    clear: bool = typer.Option(False, "--clear", help="Delete the encoder's features of all episodes instead."),
    prune: bool = typer.Option(
        False, "--prune", help="Delete the encoder's features of episodes that are gone or were cut instead."
    ),
    as_json: bool = JSON,
) -> None:
    """Compute the features of all frames once, for training that reads them instead of images.

    They lie in STORE/features as float16 and may be deleted at any time. Those of episodes whose images were changed
    are never found again. What is there already is left alone.
    """
    from embodied_vision.encoders.registry import load_encoder

    if clear and prune:
        raise BadInput("--clear and --prune are two different things; give one")
    opened = open_store(store)
    eyes = load_encoder(encoder)
    cache = FeatureCache.of(opened, eyes.encoder_id)
    report: dict[str, int | str] = {"encoder_id": eyes.encoder_id}
    if clear or prune:
        report["deleted"] = cache.clear() if clear else cache.prune(opened)
    else:
        wanted = filter_of(task=task, policy_id=policy_id, solved=solved, tags=tags, since=since, until=until)
        chosen = wanted_ids(opened, ids, wanted)
        computed = there = 0
        console = Console(stderr=True)
        columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=as_json) as bar:
            work = bar.add_task("encoding", total=None)
            total = 0
            for episode_id in chosen:
                episode = opened.open(episode_id)
                for camera in sorted(cameras) if cameras else sorted(episode.cameras):
                    total += len(episode.frames(camera))
                    bar.update(work, total=total)
                    if cache.fill(episode, camera, eyes, lambda: bar.advance(work), check=check):
                        computed += 1
                    else:
                        there += 1
                        bar.advance(work, len(episode.frames(camera)))
        report |= {"episodes": len(chosen), "computed": computed, "there": there}
    if as_json:
        typer.echo(json.dumps(report))
    elif clear or prune:
        typer.echo(f"deleted the features of {report['deleted']} cameras of episodes.")
    else:
        typer.echo(
            f"computed the features of {report['computed']} cameras of {report['episodes']} episodes; "
            f"those of {report['there']} were there."
        )

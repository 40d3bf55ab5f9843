"""`embodied-vision episodes push` and `pull`: finished episodes to object storage and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from embodied_vision.cli.episodes.common import JSON, STORE, open_store
from embodied_vision.cli.episodes.wanted import POLICY, SINCE, SOLVED, TAG, TASK, UNTIL, filter_of, wanted_ids
from embodied_vision.episodes.manifest import read_manifest
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.transfer import Progress as Told
from embodied_vision.episodes.transfer import Transferred, remote_root
from embodied_vision.episodes.transfer import pull as pull_one
from embodied_vision.episodes.transfer import push as push_one
from embodied_vision.errors import EmbodiedVisionError, RunFailed

URL = typer.Argument(
    ..., help="Object storage: s3://bucket/prefix, gs://, az://, https://. Credentials: from the environment."
)
IDS = typer.Argument(None, metavar="[ID]...", help="Only these, ids or beginnings of ids.", show_default="all")


def push(
    store: Path = STORE,
    url: str = URL,
    ids: list[str] | None = IDS,
    task: str | None = TASK,
    policy_id: str | None = POLICY,
    solved: bool | None = SOLVED,
    tag: list[str] | None = TAG,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    verify: bool = typer.Option(
        False, "--verify", help="Read everything back before an episode appears; also what was there already."
    ),
    as_json: bool = JSON,
) -> None:
    """Upload finished episodes to object storage; what is there already is left out. May be repeated at any time.

    Exit code 1 when an episode could not be pushed; the others are.
    """
    opened, remote = open_store(store), EpisodeStore(url)
    _check(opened, remote)
    conditions = filter_of(task=task, policy_id=policy_id, solved=solved, tags=tag, since=since, until=until)
    chosen = wanted_ids(opened, ids, conditions)
    _transfer(
        chosen,
        lambda episode_id, told: push_one(opened, remote, episode_id, verify=verify, progress=told),
        lambda episode_id: sum(entry.size for entry in read_manifest(opened.folder(episode_id)).values()),
        "pushed",
        url,
        as_json,
    )


def pull(
    url: str = URL,
    store: Path = typer.Argument(..., help="Folder of the episode store; made where it is missing."),
    ids: list[str] | None = IDS,
    task: str | None = TASK,
    policy_id: str | None = POLICY,
    solved: bool | None = SOLVED,
    tag: list[str] | None = TAG,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    as_json: bool = JSON,
) -> None:
    """Download episodes from object storage into a local store, every byte compared with the manifest.

    Exit code 1 when an episode could not be pulled; the others are.
    """
    opened, remote = EpisodeStore(store), EpisodeStore(url)
    _check(opened, remote)
    conditions = filter_of(task=task, policy_id=policy_id, solved=solved, tags=tag, since=since, until=until)
    known = remote.location / "episodes"
    chosen = list(ids) if ids and not remote.can_list else wanted_ids(remote, ids, conditions)
    _transfer(
        chosen,
        lambda episode_id, told: pull_one(remote, opened, episode_id, progress=told),
        lambda episode_id: sum(entry.size for entry in read_manifest(known / episode_id).values()),
        "pulled",
        str(store),
        as_json,
    )


def _check(local: EpisodeStore, remote: EpisodeStore) -> None:
    """Before anything is done: one is a folder, the other is not."""
    _ = local.path
    remote_root(remote)


def _transfer(
    ids: Sequence[str],
    work: Callable[[str, Told], Transferred],
    size_of: Callable[[str], int],
    done: str,
    where: str,
    as_json: bool,
) -> None:
    results: list[Transferred] = []
    failed: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as bar:
        for number, episode_id in enumerate(ids):
            line = bar.add_task(f"{number + 1} of {len(ids)}", total=None)
            try:
                bar.update(line, total=size_of(episode_id))
                results.append(work(episode_id, lambda more, line=line: bar.advance(line, more)))  # type: ignore[misc]
            except EmbodiedVisionError as error:
                failed[episode_id] = str(error)
            bar.remove_task(line)
    copied = [result for result in results if result.state == "copied"]
    size = sum(result.size for result in copied)
    if as_json:
        entries = [asdict(result) for result in results]
        problems = [{"id": key, "error": text} for key, text in failed.items()]
        typer.echo(
            json.dumps(
                {
                    done: len(copied),
                    "there": len(results) - len(copied),
                    "bytes": size,
                    "episodes": entries,
                    "failed": problems,
                }
            )
        )
    else:
        console = Console(soft_wrap=True, highlight=False)
        console.print(
            f"{len(copied)} {done} to {where}, {size / 1e6:.1f} MB; {len(results) - len(copied)} there before."
        )
    if failed:
        first = next(iter(failed.items()))
        raise RunFailed(f"{len(failed)} of {len(ids)} episodes were not {done}; {first[0]}: {first[1]}")

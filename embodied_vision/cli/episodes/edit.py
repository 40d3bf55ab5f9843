"""`embodied-vision episodes delete`, `trim`, `tag`, `relabel`, `merge` and `migrate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from embodied_vision.cli.episodes.common import JSON, STORE, id_column, open_store
from embodied_vision.cli.episodes.wanted import POLICY, SINCE, SOLVED, TAG, TASK, UNTIL, filter_of, wanted_ids
from embodied_vision.episodes import edit
from embodied_vision.episodes.filters import Filter
from embodied_vision.episodes.merge import check_apart, merge_one
from embodied_vision.episodes.schema import SCHEMA
from embodied_vision.episodes.select import find_id
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.trim import trim as trim_seconds
from embodied_vision.episodes.trim import trim_stamps
from embodied_vision.errors import BadInput, EpisodeError, RunFailed

IDS = typer.Argument(
    None, metavar="[ID]...", help="Ids, beginnings of ids, or 'latest'; or choose by the options.", show_default=False
)


def delete(
    store: Path = STORE,
    ids: list[str] | None = IDS,
    task: str | None = TASK,
    policy_id: str | None = POLICY,
    solved: bool | None = SOLVED,
    tags: list[str] | None = TAG,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    keep: bool = typer.Option(False, "--keep", help="Move them to STORE/trash instead of removing them for good."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    as_json: bool = JSON,
) -> None:
    """Delete episodes, damaged ones as well; asks before. Exit code 1 when one could not be deleted."""
    opened = open_store(store)
    wanted = filter_of(task=task, policy_id=policy_id, solved=solved, tags=tags, since=since, until=until)
    chosen = _chosen(opened, ids, wanted)
    if not yes:
        shown = "\n".join(f"  {episode_id}" for episode_id in chosen[:20]) + ("\n  ..." if len(chosen) > 20 else "")
        what = f"move to {opened.trash_path}" if keep else "delete for good"
        typer.confirm(f"{what} {_count(chosen)} of {opened.path}?\n{shown}\n", abort=True, err=True)

    def work(episode_id: str) -> bool:
        edit.delete(opened, episode_id, keep=keep)
        return True

    _report("deleted", _each(chosen, "deleting", work, as_json), as_json)


def trim(
    store: Path = STORE,
    ids: list[str] | None = IDS,
    start: float | None = typer.Option(None, help="Keep from here on: s after the first frame or value."),
    stop: float | None = typer.Option(None, help="Keep what is before: s after the first frame or value."),
    start_ns: int | None = typer.Option(None, help="Keep from this stamp on, ns, instead of --start."),
    stop_ns: int | None = typer.Option(None, help="Keep what is before this stamp, ns, instead of --stop."),
    as_json: bool = JSON,
) -> None:
    """Cut episodes down to a window of time, for good: frames, streams and decisions. Frames stay bit for bit."""
    seconds, stamps = (start, stop), (start_ns, stop_ns)
    if (seconds == (None, None)) == (stamps == (None, None)):
        raise BadInput(
            "give the window either in seconds by --start and --stop or in stamps by --start-ns and --stop-ns"
        )
    opened = open_store(store)

    def work(episode_id: str) -> bool:
        if stamps == (None, None):
            return trim_seconds(opened, episode_id, *seconds)
        return trim_stamps(opened, episode_id, *stamps)

    _report("trimmed", _each(_chosen(opened, ids, Filter()), "trimming", work, as_json), as_json)


def tag(
    store: Path = STORE,
    ids: list[str] | None = IDS,
    add: list[str] = typer.Option([], help="Put this tag on; may be repeated.", show_default="none"),
    remove: list[str] = typer.Option([], help="Take this tag off; may be repeated.", show_default="none"),
    task: str | None = TASK,
    policy_id: str | None = POLICY,
    solved: bool | None = SOLVED,
    tags: list[str] | None = TAG,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    as_json: bool = JSON,
) -> None:
    """Put tags on episodes, or take them off."""
    if not add and not remove:
        raise BadInput("no tags given; say --add TAG or --remove TAG")
    opened = open_store(store)
    wanted = filter_of(task=task, policy_id=policy_id, solved=solved, tags=tags, since=since, until=until)

    def work(episode_id: str) -> bool:
        return edit.tag(opened, episode_id, add, remove)

    _report("changed", _each(_chosen(opened, ids, wanted), "tagging", work, as_json), as_json)


def relabel(
    store: Path = STORE,
    ids: list[str] | None = IDS,
    entries: list[str] = typer.Option(
        [],
        "--set",
        metavar="NAME=VALUE",
        help="Entry of the outcome, its value JSON or a text: solved=true, reward=0.5.",
    ),
    remove: list[str] = typer.Option([], "--remove", metavar="NAME", help="Take an entry out.", show_default="none"),
    task: str | None = TASK,
    policy_id: str | None = POLICY,
    solved: bool | None = SOLVED,
    tags: list[str] | None = TAG,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    as_json: bool = JSON,
) -> None:
    """Change the outcome of episodes; the history of each keeps the former one."""
    outcome = dict(map(_entry, entries))
    if not outcome and not remove:
        raise BadInput("nothing to change; say --set NAME=VALUE or --remove NAME")
    opened = open_store(store)
    wanted = filter_of(task=task, policy_id=policy_id, solved=solved, tags=tags, since=since, until=until)

    def work(episode_id: str) -> bool:
        return edit.relabel(opened, episode_id, outcome, remove)

    _report("changed", _each(_chosen(opened, ids, wanted), "relabelling", work, as_json), as_json)


def merge(
    store: Path = typer.Argument(..., help="Folder of the store that gets the episodes.", show_default=False),
    sources: list[Path] = typer.Argument(..., help="Folders of the stores that they come from.", show_default=False),
    ids: list[str] = typer.Option([], "--id", help="Only this episode; may be repeated.", show_default="all"),
    move: bool = typer.Option(
        False, "--move", help="Delete each from its source once it is in STORE, whole and on the disk."
    ),
    as_json: bool = JSON,
) -> None:
    """Bring the episodes of other stores into STORE, comparing every byte on the way.

    Those that are there already are left out, so that it may be repeated. Exit code 1 when one is damaged, or when
    STORE holds another episode of its id.
    """
    target = EpisodeStore(store)
    wanted: list[tuple[EpisodeStore, str]] = []
    for path in sources:
        source = open_store(path)
        check_apart(target, source)
        wanted += [(source, episode_id) for episode_id in (_named(source, ids) if ids else source.ids())]
    if ids and not wanted:
        raise BadInput(f"no episode {', '.join(ids)} in {', '.join(map(str, sources))}; see `episodes list`")
    rows = []
    for source, episode_id in _progress(wanted, "merging", as_json):
        merged = merge_one(target, source, episode_id, move=move)
        rows.append({"id": merged.id, "source": str(source.path), "state": merged.state, "detail": merged.detail})
    bad = [row for row in rows if row["state"] in ("conflict", "damaged")]
    if as_json:
        typer.echo(json.dumps({"store": str(store), "episodes": rows}))
    else:
        states = [row["state"] for row in rows]
        console = Console()
        console.print(", ".join(f"{states.count(s)} {s}" for s in sorted(set(states))) or "nothing to merge.")
        if bad:
            table = Table(id_column(), "state", "detail", title="left out")
            for row in bad:
                table.add_row(row["id"], row["state"], escape(row["detail"]))
            console.print(table)
    if bad:
        raise typer.Exit(RunFailed.exit_code)


def migrate(
    store: Path = STORE,
    write: bool = typer.Option(False, "--write", help="Do it; without, only tell what would be done."),
    as_json: bool = JSON,
) -> None:
    """Rewrite the metadata of episodes of earlier schemas as the newest one; without --write only tells which.

    Episodes of every schema are read as they are, so this is never needed here: it is for other programs that read the
    files and know the newest schema alone. Images and values are not touched. Exit code 1 when one is damaged.
    """
    opened = open_store(store)
    rows: list[dict[str, Any]] = []
    for episode_id in _progress(opened.ids(), "migrating" if write else "looking", as_json):
        try:
            schema = edit.stored_schema(opened, episode_id)
            done = write and edit.migrate(opened, episode_id)
        except EpisodeError as error:
            rows.append({"id": episode_id, "error": str(error)})
            continue
        if schema != SCHEMA:
            rows.append({"id": episode_id, "schema": schema, "migrated": done})
    errors = [row for row in rows if "error" in row]
    if as_json:
        typer.echo(json.dumps({"schema": SCHEMA, "written": write, "episodes": rows}))
    else:
        console = Console()
        old = [row for row in rows if "schema" in row]
        todo = "" if write or not old else "; rewrite them by --write"
        verb = "were rewritten" if write else "are of an earlier schema"
        console.print(f"{len(old)} of {len(opened.ids())} episodes {verb}, the newest is {SCHEMA}{todo}.")
        _print_errors(console, errors)
    if errors:
        raise typer.Exit(RunFailed.exit_code)


def _chosen(store: EpisodeStore, ids: Sequence[str] | None, wanted: Filter) -> list[str]:
    if not ids and wanted.is_empty:
        raise BadInput("no episodes chosen; give ids, beginnings of ids or 'latest', or choose them by the options")
    return wanted_ids(store, ids, wanted)


def _named(store: EpisodeStore, ids: Sequence[str]) -> list[str]:
    """Those of the ids that a source has."""
    found = []
    for wanted in ids:
        try:
            found.append(find_id(store, wanted))
        except EpisodeError:
            if any(episode_id.startswith(wanted) for episode_id in store.ids()):
                raise  # several
    return found


def _progress(items: Sequence[Any], what: str, as_json: bool) -> Iterator[Any]:
    yield from track(items, what, console=Console(stderr=True), transient=True, disable=as_json)


def _each(ids: Sequence[str], what: str, work: Callable[[str], bool], as_json: bool) -> list[dict[str, Any]]:
    """Do it to each; what fails does not keep the others, unless it is alone."""
    rows: list[dict[str, Any]] = []
    for episode_id in _progress(ids, what, as_json):
        try:
            rows.append({"id": episode_id, "changed": work(episode_id)})
        except BadInput as error:
            if len(ids) == 1:
                raise
            rows.append({"id": episode_id, "error": str(error)})
    return rows


def _report(done: str, rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    changed = [row["id"] for row in rows if row.get("changed")]
    errors = [row for row in rows if "error" in row]
    if as_json:
        unchanged = [row["id"] for row in rows if row.get("changed") is False]
        typer.echo(json.dumps({done: changed, "unchanged": unchanged, "failed": errors}))
    else:
        console = Console()
        console.print(f"{len(changed)} of {_count(rows)} {done}.")
        _print_errors(console, errors)
    if errors:
        raise typer.Exit(RunFailed.exit_code)


def _print_errors(console: Console, errors: Sequence[dict[str, Any]]) -> None:
    if errors:
        table = Table(id_column(), "problem", title="failed")
        for row in errors:
            table.add_row(row["id"], escape(row["error"]))
        console.print(table)


def _count(items: Sequence[Any]) -> str:
    return f"{len(items)} episode{'' if len(items) == 1 else 's'}"


def _entry(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise BadInput(f"--set {text!r} is no entry of an outcome; give NAME=VALUE, such as solved=true")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value

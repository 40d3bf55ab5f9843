"""The episodes of a store as a list: of a local one by its catalogue, in object storage by their metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from embodied_vision.episodes.catalogue import Catalogue, Progress
from embodied_vision.episodes.catalogue_file import SORTS
from embodied_vision.episodes.files import Location, each
from embodied_vision.episodes.filters import Filter
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.summary import Damaged, Summary
from embodied_vision.errors import BadInput, EpisodeError

_KEYS: dict[str, Callable[[Summary], Any]] = {
    "id": lambda entry: entry.id,
    "started": lambda entry: entry.created_ns,
    "duration": lambda entry: entry.duration_s,
    "task": lambda entry: entry.task,
    "robot": lambda entry: entry.robot,
    "solved": lambda entry: _flag(entry.outcome.get("solved")),
    "reward": lambda entry: _number(entry.outcome.get("reward")),
    "frames": lambda entry: sum(entry.frames.values()),
    "decisions": lambda entry: entry.decisions,
    "size": lambda entry: entry.size_bytes,
}


def listing(
    store: EpisodeStore,
    wanted: Filter,
    *,
    sort: str = "id",
    reverse: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
) -> list[Summary | Damaged]:
    """What matches, and all that is damaged, as `Catalogue.find`.

    Raises:
        BadInput: there is no such order.
        EpisodeError: the store cannot be listed.
    """
    if isinstance(store.location, Path):
        with Catalogue(store.location, progress=progress) as catalogue:
            return catalogue.find(wanted, sort=sort, reverse=reverse, limit=limit)
    if sort not in SORTS:
        raise BadInput(f"cannot sort by {sort!r}; give one of {', '.join(SORTS)}")
    episodes = store.location / "episodes"
    entries = each(episodes, lambda name: _read(episodes / name), store.ids())
    whole = [entry for entry in entries if isinstance(entry, Summary) and wanted.accepts(entry)]
    damaged = [entry for entry in entries if isinstance(entry, Damaged)]
    found: list[Summary | Damaged]
    if sort == "id":
        found = sorted([*whole, *damaged], key=lambda entry: entry.id, reverse=reverse)
    else:
        found = [*sorted(whole, key=lambda entry: (_KEYS[sort](entry), entry.id), reverse=reverse), *damaged]
    return found[:limit]


def _read(folder: Location) -> Summary | Damaged:
    from embodied_vision.episodes.summary_reader import read_summary

    try:
        return read_summary(folder)
    except EpisodeError as error:
        return Damaged(folder.name, str(error))


def _number(value: object) -> float:
    """Rewards that are no numbers come first."""
    return float(value) if isinstance(value, float | int) and abs(value) < 1e300 else float("-inf")


def _flag(value: object) -> int:
    """Episodes that do not tell come first."""
    return 1 if value == 1 else 0 if value == 0 else -1

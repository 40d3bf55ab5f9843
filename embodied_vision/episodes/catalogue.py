"""A catalogue over the episodes of a store: what is where, without opening each.

It is a cache, STORE/catalogue.sqlite, that is brought up to date before every use and can be deleted at any time.
Episodes come, go and are edited by renaming folders, so a folder with the inode and the time of change that are on
record holds what is on record. A file that is no catalogue of this version, or is damaged, is made anew. Where it
cannot be written or locked (a read-only store, some network disks), a catalogue in memory serves as well, only slower.
"""

from __future__ import annotations

import heapq
import logging
import os
import sqlite3
import stat
import zlib
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from embodied_vision.episodes import catalogue_file as file
from embodied_vision.episodes.catalogue_file import NAME, SORTS
from embodied_vision.episodes.filters import Filter
from embodied_vision.episodes.store import is_id
from embodied_vision.episodes.summary import Damaged, Summary
from embodied_vision.errors import BadInput, EpisodeError, RunFailed

_BATCH = 1024
_READERS = 8
"""Threads that wait for the disk; one is enough for a few episodes."""
_FEW = 64
_ROUNDS = 100
_ATTEMPTS = 4
_MISSING = (FileNotFoundError, NotADirectoryError)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

Progress = Callable[[int, int], None]
"""Told how many episodes were read, of how many."""


class Catalogue:
    """The episodes of a store as they are now, to be listed and filtered. For one thread, in a `with` statement.

    Args:
        store: folder of the store.
        rebuild: read every episode again.
        progress: told how far the reading of new and changed episodes is.

    Raises:
        EpisodeError: the episodes cannot be listed.
    """

    def __init__(self, store: Path, *, rebuild: bool = False, progress: Progress | None = None) -> None:
        self._path = store / NAME
        self._episodes = store / "episodes"
        self._progress = progress or (lambda done, total: None)
        self._rebuild = rebuild
        self._database: sqlite3.Connection | None = None
        self._kept = True
        try:
            self._serve(lambda database: None)
        except BaseException:
            self.close()
            raise

    @property
    def kept(self) -> bool:
        """Whether it is on the disk; in memory otherwise."""
        return self._kept

    def ids(self, wanted: Filter, after: str = "") -> list[str]:
        """Ids of the episodes that may match, oldest first; damaged ones as well."""
        where, values = _where(wanted)
        query = f"SELECT id FROM episodes WHERE error IS NULL AND {where} AND id > ?"
        query += " UNION SELECT id FROM episodes WHERE error IS NOT NULL AND id > ? ORDER BY id"
        return self._serve(lambda database: [row[0] for row in database.execute(query, (*values, after, after))])

    def find(
        self, wanted: Filter, *, sort: str = "id", reverse: bool = False, limit: int | None = None
    ) -> list[Summary | Damaged]:
        """What matches, and all that is damaged: that last, but among the others when sorted by id.

        Args:
            wanted: conditions.
            sort: one of `SORTS`.
            reverse: the largest first.
            limit: at most so many.

        Raises:
            BadInput: there is no such order.
        """
        if sort not in SORTS:
            raise BadInput(f"cannot sort by {sort!r}; give one of {', '.join(SORTS)}")

        def look(database: sqlite3.Connection) -> list[Summary | Damaged]:
            return list(islice(_found(database, wanted, sort, reverse), limit))

        return self._serve(look)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work` on an up-to-date catalogue: on a fresh one where this is damaged, in memory where it is no use."""
        problem: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                if self._database is None:
                    self._database = file.connect(self._path) if self._kept else file.in_memory()
                    self._refresh(self._database)
                return work(self._database)
            except sqlite3.ProgrammingError:
                raise  # ours, not the file's
            except (sqlite3.Error, OSError) as error:
                problem = error
                self._give_up(error)
        raise RunFailed(f"the catalogue of {self._episodes} cannot be made ({problem}); check disk and memory")

    def _give_up(self, error: sqlite3.Error | OSError) -> None:
        self.close()
        self._database = None
        if self._kept and isinstance(error, sqlite3.Error) and file.is_damaged(error):
            _log.info("%s is made anew: %s", self._path, error)
            try:
                file.remove(self._path)
                return
            except OSError as other:
                error = other
        self._kept = False
        _say_once(self._path, str(error))

    def _refresh(self, database: sqlite3.Connection) -> None:
        """Read what is new or changed, drop what is gone, until nothing is; what is damaged once."""
        tried = set[str]()
        for _ in range(_ROUNDS):
            known = dict(database.execute("SELECT id, stamp FROM episodes"))
            found = _stamps(self._episodes, known)
            gone = known.keys() - found.keys()
            stale = {*found} if self._rebuild else {name for name, _ in found.items() - known.items()}
            stale |= {name for name in _restored(database, self._episodes) if name in found and name not in tried}
            tried |= stale
            if gone:
                with file.transaction(database):
                    for name in gone:
                        file.drop(database, name)
            if stale:
                self._read(database, sorted(stale), found)
            if not gone and not stale:
                return
            self._rebuild = False

    def _read(self, database: sqlite3.Connection, ids: Sequence[str], stamps: dict[str, int]) -> None:
        from embodied_vision.episodes.summary_reader import read_summary, traces

        def read(name: str) -> tuple[Summary | Damaged, int, str | None] | None:
            folder = self._episodes / name
            with suppress(EpisodeError):
                return read_summary(folder), stamps[name], None
            before = traces(folder)
            try:
                return read_summary(folder), stamps[name], None
            except EpisodeError as error:
                if not folder.is_dir():
                    return None
                # what this user cannot read now may be readable the next time, or by another
                out_of_reach = isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, _MISSING)
                return Damaged(name, str(error)), stamps[name], None if out_of_reach else before

        with ThreadPoolExecutor(_READERS if len(ids) > _FEW else 1) as readers:
            for start in range(0, len(ids), _BATCH):
                batch = ids[start : start + _BATCH]
                rows = [row for row in readers.map(read, batch) if row is not None]
                with file.transaction(database):
                    for row in rows:
                        file.put(database, *row)
                self._progress(start + len(batch), len(ids))


def forget(store: Path, episode_id: str) -> None:
    """Let the catalogue read an episode again: to be called just before its folder is replaced.

    Without a catalogue there is nothing to forget; one that cannot be written is noticed by who reads it.
    """
    path = Path(store) / NAME
    if not path.is_file():
        return
    try:
        with closing(file.connect(path)) as database, file.transaction(database):
            file.drop(database, episode_id)
    except (sqlite3.Error, OSError) as error:
        _log.info("%s cannot forget episode %s: %s", path, episode_id, error)


def _stamps(episodes: Path, known: Container[str]) -> dict[str, int]:
    """What tells the folder of an episode from any other that had or will have its name, by id.

    Args:
        episodes: folder of the episodes.
        known: names that need not be looked at again, whether they are ids. This is the time that a list takes.

    Raises:
        EpisodeError: the folder cannot be listed.
    """
    found = {}
    try:
        with os.scandir(episodes) as entries:
            for entry in entries:
                name = entry.name
                if name in known or (is_id(name) and entry.is_dir(follow_symlinks=False)):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # gone meanwhile
                    if stat.S_ISDIR(status.st_mode):
                        # of whole numbers: the same in every process
                        found[name] = hash((status.st_ino, status.st_ctime_ns))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EpisodeError(f"{episodes} cannot be listed ({error.strerror}); check its permissions") from error
    return found


def _restored(database: sqlite3.Connection, episodes: Path) -> list[str]:
    """Damaged episodes whose files changed since they were looked at."""
    damaged = database.execute("SELECT id, traces FROM episodes WHERE error IS NOT NULL").fetchall()
    if not damaged:
        return []
    from embodied_vision.episodes.summary_reader import traces

    return [name for name, old in damaged if old != traces(episodes / name)]


def _found(database: sqlite3.Connection, wanted: Filter, sort: str, reverse: bool) -> Iterator[Summary | Damaged]:
    direction = "DESC" if reverse else "ASC"
    where, values = _where(wanted)
    order = f"{sort} {direction}, id {direction}" if sort != "id" else f"id {direction}"
    query = f"SELECT document, crc FROM episodes WHERE error IS NULL AND {where} ORDER BY {order}"

    def matching() -> Iterator[Summary | Damaged]:
        for document, crc in database.execute(query, values):
            try:
                if zlib.crc32(document.encode()) != crc:
                    raise file.NoCatalogue("a row differs from what was written")
                summary = Summary.from_json(document)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise file.NoCatalogue(f"a row describes no episode ({error!r})") from error
            if wanted.accepts(summary):
                yield summary

    damaged: Iterator[Summary | Damaged] = (
        Damaged(*row)
        for row in database.execute(f"SELECT id, error FROM episodes WHERE error IS NOT NULL ORDER BY id {direction}")
    )
    if sort == "id":
        yield from heapq.merge(matching(), damaged, key=lambda entry: entry.id, reverse=reverse)
    else:
        yield from matching()
        yield from damaged


def _where(wanted: Filter) -> tuple[str, list[object]]:
    """A condition that all rows meet which the filter accepts, and perhaps some others, and its values."""
    conditions, values = ["1"], list[object]()
    for column in ("task", "robot", "encoder_id", "policy_id"):
        value = getattr(wanted, column)
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(file.text(value))
    for condition, limit in (("started >= ?", wanted.since_ns), ("started < ?", wanted.until_ns)):
        if limit is not None and abs(limit) < 2**63:
            conditions.append(condition)
            values.append(limit)
    for tag in wanted.tags:
        conditions.append("id IN (SELECT id FROM tags WHERE tag = ?)")
        values.append(file.text(tag))
    solved = wanted.outcome.get("solved")
    if isinstance(solved, bool):
        conditions.append("solved = ?")
        values.append(int(solved))
    return " AND ".join(conditions), values


@cache
def _say_once(path: Path, problem: str) -> None:
    _log.warning("%s cannot be used (%s): episodes are read one by one, which is slower", path, problem)

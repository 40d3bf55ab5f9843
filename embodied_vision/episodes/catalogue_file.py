"""The SQLite file behind the catalogue: its tables, and how it is opened, refused and made anew.

Episodes as rows; the columns are for finding, `document` holds the whole summary. Several processes may use it at
once: SQLite locks it, and the rollback journal brings it back to a whole state after a kill.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embodied_vision.episodes.summary import Damaged, Summary

NAME = "catalogue.sqlite"
SORTS = ("id", "started", "duration", "task", "robot", "solved", "reward", "frames", "decisions", "size")

_COLUMNS = {
    "id": "TEXT NOT NULL",
    "stamp": "INTEGER NOT NULL",
    "traces": "TEXT",
    "error": "TEXT",
    "task": "TEXT",
    "robot": "TEXT",
    "encoder_id": "TEXT",
    "policy_id": "TEXT",
    "started": "INTEGER",
    "closed": "INTEGER",
    "solved": "INTEGER",
    "reward": "REAL",
    "duration": "INTEGER",
    "frames": "INTEGER",
    "decisions": "INTEGER",
    "size": "INTEGER",
    "document": "TEXT",
    "crc": "INTEGER",
}
_INDEXED = ("task", "robot", "encoder_id", "policy_id", "started", "solved", "error")
_SCHEMA = [
    f"CREATE TABLE episodes ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())}) STRICT",
    "CREATE INDEX by_id ON episodes (id, stamp)",
    *(f"CREATE INDEX by_{name} ON episodes ({name})" for name in _INDEXED),
    "CREATE TABLE tags (id TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (id, tag)) STRICT, WITHOUT ROWID",
    "CREATE INDEX by_tag ON tags (tag, id)",
]
_INSERT = f"INSERT INTO episodes VALUES ({', '.join('?' * len(_COLUMNS))})"
_WAIT_S = 10.0
_PAGE_BYTES = 4096
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""How a journal ends that names a second one, which SQLite would delete; ours never do."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ERROR)


class NoCatalogue(sqlite3.DatabaseError):
    """The file is no catalogue of this version, or not as it was written."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or make the catalogue at `path`; what is not a plain file there is removed, never followed.

    Raises:
        sqlite3.Error: the file cannot be used; see `is_damaged`.
        OSError: likewise.
    """
    journal = path.with_name(path.name + "-journal")
    for file in (path, journal):
        if file.is_symlink() or (file.exists() and not file.is_file()):
            file.unlink()
    if journal.exists() and journal.read_bytes()[-8:] == _SUPER_JOURNAL:
        raise NoCatalogue("its journal is not one of a catalogue")
    if path.exists() and path.stat().st_size % _PAGE_BYTES:  # SQLite would fill up the last page with zeros
        raise NoCatalogue("it is cut short")
    return _prepared(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None))


def in_memory() -> sqlite3.Connection:
    """An empty catalogue that ends with the process."""
    return _prepared(sqlite3.connect(":memory:", isolation_level=None))


def remove(path: Path) -> None:
    """Remove a catalogue that is damaged.

    Raises:
        OSError: it cannot be.
    """
    path.unlink(missing_ok=True)
    path.with_name(path.name + "-journal").unlink(missing_ok=True)


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether the file is to be made anew, rather than out of reach."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, NoCatalogue) or code is None or code & 0xFF in _DAMAGED


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def put(database: sqlite3.Connection, entry: Summary | Damaged, stamp: int, traces: str | None = None) -> None:
    """Set the row of an episode.

    Args:
        database: within a transaction.
        entry: what the row says.
        stamp: of the episode's folder.
        traces: of a damaged episode, see `summary_reader.traces`; None where it must be looked at again.
    """
    drop(database, entry.id)
    if isinstance(entry, Summary):
        document = entry.to_json()
        reward = entry.outcome.get("reward")
        numbers = (
            entry.created_ns,
            entry.closed_ns,
            _solved(entry.outcome.get("solved")),
            float(reward) if isinstance(reward, float | int) and abs(reward) < 1e300 else None,
            entry.closed_ns - entry.created_ns,
            sum(entry.frames.values()),
            entry.decisions,
            entry.size_bytes,
        )
        names = [text(name) for name in (entry.task, entry.robot, entry.encoder_id, entry.policy_id)]
        row = (entry.id, stamp, None, None, *names, *numbers, document, zlib.crc32(document.encode()))
        database.executemany("INSERT INTO tags VALUES (?, ?)", [(entry.id, text(tag)) for tag in {*entry.tags}])
    else:
        row = (entry.id, stamp, traces, text(entry.error), *[None] * 14)
    database.execute(_INSERT, row)


def drop(database: sqlite3.Connection, episode_id: str) -> None:
    """Remove the row of an episode, if there is one."""
    database.execute("DELETE FROM episodes WHERE id = ?", (episode_id,))
    database.execute("DELETE FROM tags WHERE id = ?", (episode_id,))


def text(value: str) -> str:
    """A text as SQLite takes it: without halves of surrogate pairs."""
    return value.encode("utf-8", "backslashreplace").decode()


def _solved(value: object) -> int | None:
    return 1 if value == 1 else 0 if value == 0 else None


def _prepared(database: sqlite3.Connection) -> sqlite3.Connection:
    try:
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = TRUNCATE")  # not deleted by name: it may be another's by then
        if not _is_catalogue(database):
            with transaction(database):
                if not _is_catalogue(database):
                    for statement in _SCHEMA:
                        database.execute(statement)
    except BaseException:
        database.close()
        raise
    return database


def _is_catalogue(database: sqlite3.Connection) -> bool:
    found = [row[0] for row in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")]
    if found not in ([], _SCHEMA):
        raise NoCatalogue("it is no catalogue of this version")
    return bool(found)

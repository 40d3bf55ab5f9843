"""Reading the SQLite storage of rosbag2 from a file that nobody vouches for.

Views, virtual tables, generated columns and functions in the file could compute anything without end, so that SQLite
is only let to read the two or three ordinary tables of a bag.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from embodied_vision.episodes.exchange.cdr import Message, Topic
from embodied_vision.episodes.exchange.recording import LARGEST, add_topic, regular_file
from embodied_vision.errors import BadInput

SUFFIX = ".db3"
_TABLES = ("topics", "messages", "message_definitions")
_PAGES = 64 << 10
"""KiB of SQLite's cache."""


class SqliteFile:
    """A `Recording` in one file of SQLite storage. It holds no checksums of its messages.

    Args:
        path: of the file.
        folder: that it must lie in, where it is part of a bag.

    Raises:
        BadInput: no such file, or one with a broken structure.
    """

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self.path = path
        self._file = regular_file(path, folder)
        self.topics: dict[str, Topic] = {}
        self.about: dict[str, str] = {}
        with self._open() as database:
            tables = {name: sql for name, sql in database.execute("SELECT name, sql FROM sqlite_master")}
            plain = {name for name in _TABLES if str(tables.get(name, "")).upper().startswith("CREATE TABLE")}
            if not {"topics", "messages"} <= plain:
                raise BadInput(f"{path} lacks the tables `topics` and `messages`; give a recording of rosbag2")
            definitions: dict[str, str] = {}
            if "message_definitions" in plain:
                query = (
                    "SELECT topic_type, encoded_message_definition FROM message_definitions WHERE encoding = 'ros2msg'"
                )
                definitions = {_text(name, path): _text(text, path) for name, text in database.execute(query)}
            for name, kind, form in database.execute("SELECT name, type, serialization_format FROM topics"):
                kind = _text(kind, path) if form == "cdr" else f"({form})"
                add_topic(self.topics, Topic(_text(name, path), kind, definitions.get(kind, "")), path)

    def messages(self) -> Iterator[Message]:
        """All messages, in the order of recording."""
        query = (
            "SELECT topics.name, topics.type, messages.timestamp, messages.data FROM messages "
            "LEFT JOIN topics ON messages.topic_id = topics.id ORDER BY messages.id"
        )
        with self._open() as database:
            for name, kind, log_ns, data in database.execute(query):
                if name not in self.topics or not isinstance(data, bytes) or not _is_time(log_ns):
                    raise BadInput(f"{self.path}: a message of topic {name!r} is no message; the recording is damaged")
                yield Message(name, kind, log_ns, data)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        address = f"{self._file.as_uri()}?immutable=1"
        try:
            with closing(sqlite3.connect(address, uri=True)) as database:
                database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
                for setting in ("trusted_schema = OFF", "cell_size_check = ON", f"cache_size = -{_PAGES}"):
                    database.execute(f"PRAGMA {setting}")
                database.set_authorizer(_authorize)
                yield database
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise BadInput(
                f"{self.path} is no SQLite storage of rosbag2, or damaged ({error}); copy it again, or bring back "
                "what is left by `sqlite3 FILE .recover`"
            ) from error


def _is_time(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _text(value: object, path: Path) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{path}: {value!r} stands where a name should; the recording is damaged")
    return value


def _authorize(action: int, table: str | None, column: str | None, database: str | None, within: str | None) -> int:
    allowed = action == sqlite3.SQLITE_SELECT or (
        action == sqlite3.SQLITE_READ and table in (*_TABLES, "sqlite_master", "sqlite_schema") and within is None
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

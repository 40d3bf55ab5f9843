"""The write-ahead journal of an episode: what was appended is on disk when the call returns.

A record is `magic | head length | body length | crc32c | head | body`; the head is JSON, the body the
record's blobs one after the other. A reader skips what fails its crc and goes on at the next record.
The writer holds an exclusive flock on the journal for as long as it lives: that is how `repair` knows.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c

from embodied_vision.errors import EpisodeError

_MAGIC = b"\xeeEVJ"
_FRAME = struct.Struct("<4sIII")


@dataclass(frozen=True)
class Record:
    """One record and where its blobs lie in the journal, as (offset, size)."""

    fields: Mapping[str, Any]
    blobs: tuple[tuple[int, int], ...]


class JournalWriter:
    """Appends records; safe to call from several threads.

    Args:
        path: made here, must not exist.
        sync_period_s: how often records are forced to the disk. A killed process loses nothing that was
            acknowledged, a power cut at most this much.

    Raises:
        EpisodeError: the file cannot be made, or written to.
        BlockingIOError: another process locked the journal before this one could.
    """

    def __init__(self, path: Path, sync_period_s: float = 1.0) -> None:
        self.path = path
        self._sync_period_s = sync_period_s
        self._mutex = threading.Lock()
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o644)
        self._size = 0
        self._synced = time.monotonic()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._fd).st_nlink == 0:
                raise BlockingIOError(f"{path} was taken away")
        except BaseException:
            self.release()
            raise

    def append(self, fields: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Append one record.

        Raises:
            EpisodeError: the disk is full or fails; the records before this one stay readable.
        """
        head = json.dumps({**fields, "blobs": [len(blob) for blob in blobs]}).encode()
        body = b"".join(blobs)
        crc = google_crc32c.extend(google_crc32c.value(head), body)
        data = memoryview(_FRAME.pack(_MAGIC, len(head), len(body), crc) + head + body)
        with self._mutex:
            if self._fd < 0:
                raise EpisodeError(f"{self.path} is closed; start a new episode")
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
                self._size = os.fstat(self._fd).st_size
                if time.monotonic() - self._synced >= self._sync_period_s:
                    self._sync()
            except OSError as error:
                self._drop_torn_tail()
                raise EpisodeError(
                    f"{self.path} cannot be written ({error.strerror}); free space or fix the disk, what was logged "
                    "before is kept"
                ) from error

    @property
    def is_open(self) -> bool:
        """Whether records can still be appended."""
        return self._fd >= 0

    def sync(self) -> None:
        """Force everything appended so far to the disk."""
        with self._mutex:
            self._sync()

    def release(self) -> None:
        """Close the file and let go of the lock; the journal stays."""
        with self._mutex:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def _sync(self) -> None:
        os.fdatasync(self._fd)
        self._synced = time.monotonic()

    def _drop_torn_tail(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            return  # readers skip a torn record


class JournalReader:
    """All readable records of a journal.

    Attributes:
        records: in the order of writing.
        gaps: (offset, size) of each stretch that could not be read. An unfinished record at the end is none: it was
            never acknowledged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 closed by __exit__
        size = os.fstat(self._file.fileno()).st_size
        self._data: mmap.mmap | bytes = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        self.records: list[Record] = []
        self.gaps: list[tuple[int, int]] = []
        self._scan()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self._data, mmap.mmap):
            self._data.close()
        self._file.close()

    def blob(self, record: Record, number: int) -> bytes:
        """One blob of a record."""
        offset, size = record.blobs[number]
        return bytes(self._data[offset : offset + size])

    def _scan(self) -> None:
        position, good = 0, 0
        while True:
            position = self._data.find(_MAGIC, position)
            if position < 0:
                break
            record, end = self._record(position)
            if record is None:
                position += 1
                continue
            if position > good:
                self.gaps.append((good, position - good))
            self.records.append(record)
            position = good = end
        if good < len(self._data) and not self._unfinished(good):
            self.gaps.append((good, len(self._data) - good))

    def _unfinished(self, start: int) -> bool:
        rest = bytes(self._data[start : start + _FRAME.size])
        if len(rest) < _FRAME.size:
            return rest.startswith(_MAGIC[: len(rest)])
        magic, head_size, body_size, _ = _FRAME.unpack(rest)
        return magic == _MAGIC and start + _FRAME.size + head_size + body_size > len(self._data)

    def _record(self, start: int) -> tuple[Record | None, int]:
        body_start = start + _FRAME.size
        if body_start > len(self._data):
            return None, start
        _, head_size, body_size, crc = _FRAME.unpack(self._data[start:body_start])
        end = body_start + head_size + body_size
        if end > len(self._data) or google_crc32c.value(bytes(self._data[body_start:end])) != crc:
            return None, start
        fields = json.loads(bytes(self._data[body_start : body_start + head_size]))
        offset = body_start + head_size
        blobs = []
        for size in fields.pop("blobs"):
            blobs.append((offset, size))
            offset += size
        return Record(fields, tuple(blobs)), end

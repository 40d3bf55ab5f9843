"""The write-ahead journal of an episode: what was appended is on disk when the call returns.

A record is `magic | head length | body length | crc32c | head | body`; the head is JSON, the body the
record's blobs one after the other. A reader skips what fails its crc and goes on at the next record.
The writer holds an exclusive flock on the journal for as long as it lives: that is how `repair` knows.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
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

from embodied_vision.episodes import strict
from embodied_vision.episodes.records import RecordRules
from embodied_vision.episodes.regular import open_regular
from embodied_vision.errors import BadInput, EpisodeError

MAX_HEAD = 16 << 20
"""Bytes of a record's JSON."""
MAX_BODY = 1 << 30
"""Bytes of a record's blobs."""

_MAGIC = b"\xeeEVJ"
_FRAME = struct.Struct("<4sIII")
_HEAD_BEGINS = b'{"kind": "'
_DEPTH = strict.MAX_DEPTH - 16
"""Levels that a record may have; in an episode's attributes it has some more."""
_BLOCK = 1 << 20
_SECTOR = 4096
_WASTE = 16
"""How often the file may be read over in search of records. Damage costs each record once; only a file made to
mislead costs more, and its rest is then a gap."""


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
        self._rules = RecordRules()
        self._synced = time.monotonic()
        self._late: threading.Timer | None = None
        self._failed: OSError | None = None
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
            BadInput: the record is too large, or is none that a reader would take.
            EpisodeError: the disk is full or fails; the records before this one stay readable.
        """
        head = _head(fields, blobs, self.path)
        try:
            with self._mutex:
                self._rules.check(fields, [len(blob) for blob in blobs])
        except ValueError as error:
            raise BadInput(f"{self.path}: {error}; it cannot be logged like this") from error
        body = b"".join(blobs)
        if len(head) > MAX_HEAD or len(body) > MAX_BODY:
            raise BadInput(
                f"{self.path}: a {fields.get('kind')} of {len(head)} bytes of JSON and {len(body)} bytes of data; "
                f"log at most {MAX_HEAD} and {MAX_BODY} at once"
            )
        crc = google_crc32c.extend(google_crc32c.value(head), body)
        data = memoryview(_FRAME.pack(_MAGIC, len(head), len(body), crc) + head + body)
        with self._mutex:
            if self._fd < 0:
                raise EpisodeError(f"{self.path} is closed; start a new episode")
            try:
                if self._failed is not None:
                    raise self._failed
                while data:
                    data = data[os.write(self._fd, data) :]
                self._size = os.fstat(self._fd).st_size
                if time.monotonic() - self._synced >= self._sync_period_s:
                    self._sync()
                elif self._late is None:
                    self._late = threading.Timer(self._sync_period_s, self._sync_late)
                    self._late.daemon = True
                    self._late.start()
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
            if self._late is not None:
                self._sync_or_fail()
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def _sync_late(self) -> None:
        """Force to the disk what came after the last sync, where nobody appends any more."""
        with self._mutex:
            if self._late is not None and self._fd >= 0:
                self._sync_or_fail()

    def _sync_or_fail(self) -> None:
        with contextlib.suppress(OSError):  # told by the next append; what was logged stays for `repair`
            self._sync()

    def _sync(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        try:
            os.fdatasync(self._fd)
            if os.fstat(self._fd).st_nlink == 0:
                raise OSError(errno.ENOENT, "the file was removed while it was written")
        except OSError as error:
            self._failed = error  # for good: a later sync that succeeds says nothing about what this one lost
            raise
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

    Raises:
        OSError: there is no such file, or it is a link or no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = open_regular(path)
        try:
            self._size = os.fstat(self._fd).st_size
            self.records: list[Record] = []
            self.gaps: list[tuple[int, int]] = []
            self._scan()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def blob(self, record: Record, number: int) -> bytes:
        """One blob of a record."""
        return self._read(*record.blobs[number])

    def _scan(self) -> None:
        rules = RecordRules()
        position, good = 0, 0
        wasted, most_wasted = 0, _WASTE * self._size + _BLOCK
        while wasted <= most_wasted:
            position = self._find_magic(position)
            if position < 0:
                break
            record, end = self._record(position, rules)
            if record is None:
                wasted += end - position
                position += 1
                continue
            if position > good:
                self.gaps.append((good, position - good))
            self.records.append(record)
            position = good = end
        if good < self._size and not self._unfinished(good):
            self.gaps.append((good, self._size - good))

    def _record(self, start: int, rules: RecordRules) -> tuple[Record | None, int]:
        """The record that begins at `start` and its end, or None and how far was read for nothing."""
        body_start = start + _FRAME.size
        if body_start > self._size:
            return None, self._size
        _, head_size, body_size, crc = _FRAME.unpack(self._read(start, _FRAME.size))
        end = body_start + head_size + body_size
        if end > self._size or head_size > MAX_HEAD or body_size > MAX_BODY:
            return None, body_start
        content = self._read(body_start, head_size + body_size)
        if google_crc32c.value(content) != crc:
            return None, end
        try:
            fields, sizes = _parse_head(content[:head_size], body_size)
            rules.check(fields, sizes)
        except ValueError:
            return None, end
        offset = body_start + head_size
        blobs = []
        for size in sizes:
            blobs.append((offset, size))
            offset += size
        return Record(fields, tuple(blobs)), end

    def _unfinished(self, start: int) -> bool:
        """Whether what follows is the beginning of a record and nothing else, as a write that was cut off leaves it."""
        rest = self._read(start, _FRAME.size + MAX_HEAD)
        if len(rest) < _FRAME.size:
            return rest.startswith(_MAGIC[: len(rest)])
        magic, head_size, body_size, _ = _FRAME.unpack(rest[: _FRAME.size])
        if magic != _MAGIC or start + _FRAME.size + head_size + body_size <= self._size:
            return False
        # A length that was damaged must not pass for a record cut off: the head says how long both parts are.
        try:
            text = rest[_FRAME.size :].decode("utf-8", "surrogateescape")
            fields, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            begun = rest[_FRAME.size :]
            return head_size > len(begun) and begun.startswith(_HEAD_BEGINS[: len(begun)])
        try:
            return end == head_size and sum(_blob_sizes(fields)) == body_size
        except ValueError:
            return False

    def _find_magic(self, position: int) -> int:
        if self._read(position, len(_MAGIC)) == _MAGIC:
            return position
        while position < self._size:
            try:
                position = os.lseek(self._fd, position, os.SEEK_DATA)  # a sparse file may be larger than any disk
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return -1
            block = self._read(position, _BLOCK)
            found = block.find(_MAGIC)
            if found >= 0:
                return position + found
            position += max(1, len(block) - len(_MAGIC) + 1)
        return -1

    def _read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; zeros where the disk cannot give them, so that a bad sector is damage like any other."""
        size = max(0, min(size, self._size - offset))
        try:
            data = os.pread(self._fd, size, offset)
            if len(data) == size:
                return data
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        parts = []
        for start in range(offset, offset + size, _SECTOR):
            length = min(_SECTOR, offset + size - start)
            try:
                part = os.pread(self._fd, length, start)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                part = b""
            parts.append(part.ljust(length, b"\0"))
        return b"".join(parts)


def _head(fields: Mapping[str, Any], blobs: Sequence[bytes], where: Path) -> bytes:
    try:
        head = json.dumps({**fields, "blobs": [len(blob) for blob in blobs]}).encode()
        if b"\\ud" in head or head.count(b"[") + head.count(b"{") > _DEPTH:  # the rest is fine as it is
            strict.parse(head, non_finite=True, max_depth=_DEPTH)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{where}: a {fields.get('kind')} that could not be read again ({error}); log plain texts and numbers, "
            f"nested at most {_DEPTH} levels deep"
        ) from error
    return head


def _parse_head(head: bytes, body_size: int) -> tuple[dict[str, Any], list[int]]:
    fields = dict(strict.mapping(strict.parse(head, non_finite=True), "a record's head"))
    sizes = _blob_sizes(fields)
    if sum(sizes) != body_size:
        raise ValueError(f"blobs of {sum(sizes)} bytes in {body_size}")
    del fields["blobs"]
    return fields, sizes


def _blob_sizes(fields: Any) -> list[int]:
    sizes = strict.items(strict.mapping(fields, "a record's head").get("blobs"), "blobs")
    return [strict.integer(size, "size of a blob", 0, MAX_BODY) for size in sizes]

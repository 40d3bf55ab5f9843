"""Places in object storage: S3, Google, Azure, WebDAV or plain HTTP, through `obstore`, seen much as `pathlib.Path`.

Every failure is an `OSError` with a short `strerror`, as from a local disk, so that readers treat both alike.
Credentials, region and endpoint come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...), never from
the URL.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from embodied_vision.episodes.connection import Connection, connect, errors
from embodied_vision.errors import BadInput

if TYPE_CHECKING:
    from obstore import GetOptions

A = TypeVar("A")
B = TypeVar("B")

SCHEMES = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https", "file", "memory")
PARALLEL = 16
"""Requests at a time where many small objects are wanted."""
READ_CAP = 1 << 26
"""Bytes that an object which is read in one go may have."""

_GAP = 1 << 20
_LONGEST = 16 << 20
"""Bytes between two ranges that are fetched along, and of one request."""

_URL = re.compile(rf"({'|'.join(SCHEMES)}):/(?=/|[^/])")
_SEGMENT = re.compile(r"[^/\\\x00-\x1f\x7f]+")


@dataclass
class Known:
    """What is known of an episode's objects since it was opened, by key.

    Attributes:
        contents: of those that `prefetch` fetched.
        tags: what tells each object from a later one of the same name; reading another one is an error.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class RemotePath:
    """A place under a URL. Immutable; may be copied to other processes, except to forked ones that both use it.

    Args:
        connection: where it lies.
        parts: names from the connection's URL down to it.
        known: what is known of the objects, shared by all places under one episode.
    """

    __slots__ = ("_known", "connection", "parts")
    at_once = PARALLEL

    def __init__(self, connection: Connection, parts: tuple[str, ...] = (), known: Known | None = None) -> None:
        self.connection, self.parts, self._known = connection, parts, known

    @classmethod
    def parse(cls, url: str) -> RemotePath:
        """The place that a URL names.

        Raises:
            BadInput: the URL holds credentials, a query or a scheme that is unknown.
        """
        match = _URL.match(url)
        if match is None:
            raise BadInput(f"{url!r} is no URL of object storage; it begins with one of {', '.join(SCHEMES)}")
        scheme, rest = match[1], url[match.end() :].lstrip("/")
        split = urlsplit(f"{scheme}://{rest}")
        if "@" in split.netloc or split.query or split.fragment:
            where = f"{scheme}://{split.netloc.rpartition('@')[2]}{split.path}"
            raise BadInput(f"{where}: a URL of a store holds no credentials and no query; set them in the environment")
        slashes = ":///" if scheme in ("file", "memory") else "://"
        return cls(connect(f"{scheme}{slashes}{rest.rstrip('/')}".rstrip("/")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __reduce__(self) -> tuple[Callable[..., RemotePath], tuple[Any, ...]]:
        return _restore, (self.connection.url, self.parts, self._known)

    def __str__(self) -> str:
        return "/".join((self.connection.url, *self.parts))

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: str) -> RemotePath:
        """The place `name`, relative to this one.

        Raises:
            BadInput: the name would lead out of this place.
        """
        added = tuple(name.split("/"))
        if any(part in (".", "..") or not _SEGMENT.fullmatch(part) for part in added):
            raise BadInput(f"{name!r} is no name under {self}; names are relative and hold no '..'")
        return RemotePath(self.connection, self.parts + added, self._known)

    @property
    def name(self) -> str:
        """Its last part."""
        return self.parts[-1] if self.parts else self.connection.url.rpartition("/")[2]

    @property
    def key(self) -> str:
        """Its name in the connection's store."""
        return "/".join(self.parts)

    def pinned(self) -> RemotePath:
        """The same place, where objects that `size` or `sizes_under` has seen must be the same when they are read."""
        return RemotePath(self.connection, self.parts, Known())

    # ---- reading

    def read_bytes(self) -> bytes:
        """The whole object.

        Raises:
            OSError: it is missing, too big or cannot be read.
        """
        if self._known is not None and (known := self._known.contents.get(self.key)) is not None:
            return known
        import obstore

        with errors(self):
            result = obstore.get(self.connection.store, self.key)
            if result.meta["size"] <= READ_CAP:
                return bytes(result.bytes())
        raise OSError(errno.EFBIG, f"larger than {READ_CAP >> 20} MiB", str(self))

    def size(self) -> int:
        """Bytes of the object.

        Raises:
            OSError: it is missing or cannot be read.
        """
        import obstore

        with errors(self):
            return self._seen(self.key, obstore.head(self.connection.store, self.key))

    def is_file(self) -> bool:
        """Whether there is such an object.

        Raises:
            OSError: nobody can tell.
        """
        try:
            self.size()
        except FileNotFoundError:
            return False
        return True

    def tail(self, count: int) -> tuple[int, bytes]:
        """Bytes of the object, and its last `count` ones, fewer where it is shorter.

        Raises:
            OSError: it is missing or cannot be read.
        """
        import obstore

        if self.connection.url.startswith(("az", "adl", "abfs")):  # Azure knows no ranges from the end
            size = self.size()
            return size, self.read_ranges([(max(0, size - count), min(count, size))])[0] if size else b""
        with errors(self):
            result = obstore.get(self.connection.store, self.key, options=self._of_same({"range": {"suffix": count}}))
            first, last = result.range
            if last - first > count:
                raise OSError(errno.EIO, "the server ignores ranges", str(self))
            return int(result.meta["size"]), bytes(result.bytes())

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, size), in ascending order, near ones in one request; fewer where the object ends.

        Raises:
            OSError: it is missing, replaced or cannot be read, or a range begins after its end.
        """
        joined: list[tuple[int, int]] = []
        for offset, size in ranges:
            end = offset + size
            if joined and 0 <= offset - joined[-1][1] <= _GAP and end - joined[-1][0] <= _LONGEST:
                joined[-1] = joined[-1][0], end
            else:
                joined.append((offset, end))
        parts = [self._read(joined[0])] if len(joined) == 1 else in_parallel(self._read, joined)
        found, place = [], 0
        for offset, size in ranges:
            while not joined[place][0] <= offset <= offset + size <= joined[place][1]:
                place += 1
            first = offset - joined[place][0]
            found.append(parts[place][first : first + size])
        return found

    def _read(self, part: tuple[int, int]) -> bytes:
        import obstore

        with errors(self):
            return bytes(obstore.get(self.connection.store, self.key, options=self._of_same({"range": part})).bytes())

    def _of_same(self, options: GetOptions) -> GetOptions:
        tag = self._known.tags.get(self.key) if self._known is not None else None
        return {**options, "if_match": tag} if tag else options

    def _seen(self, key: str, meta: Mapping[str, Any]) -> int:
        if self._known is not None and meta["e_tag"]:
            self._known.tags.setdefault(key, str(meta["e_tag"]))
        return int(meta["size"])

    def stream(self) -> Iterator[bytes]:
        """The object in pieces of some MB.

        Raises:
            OSError: it is missing or cannot be read.
        """
        import obstore

        with errors(self):
            for part in obstore.get(self.connection.store, self.key).stream():
                yield bytes(part)

    def sha256(self) -> str:
        """Digest of the object, read in pieces.

        Raises:
            OSError: it is missing or cannot be read.
        """
        digest = hashlib.sha256()
        for part in self.stream():
            digest.update(part)
        return digest.hexdigest()

    # ---- what is there

    def sizes_under(self) -> dict[str, int]:
        """Bytes of all objects under this place, by their name relative to it.

        Raises:
            OSError: the store cannot be listed.
        """
        import obstore

        found = {}
        with errors(self):
            self._must_list()
            for part in obstore.list(self.connection.store, self.key or None):
                for entry in part:
                    found[str(entry["path"]).removeprefix(self.key).lstrip("/")] = self._seen(entry["path"], entry)
        return found

    def folders(self) -> list[str]:
        """Names of the places right under this one that hold objects.

        Raises:
            OSError: the store cannot be listed.
        """
        import obstore

        with errors(self):
            self._must_list()
            found = obstore.list_with_delimiter(self.connection.store, self.key or None)["common_prefixes"]
        return sorted(str(prefix).rpartition("/")[2] for prefix in found)

    def any_under(self) -> bool:
        """Whether there is an object under this place.

        Raises:
            OSError: the store cannot be listed.
        """
        import obstore

        with errors(self):
            self._must_list()
            return any(len(part) for part in obstore.list(self.connection.store, self.key or None, chunk_size=1))

    def prefetch(self, digests: Mapping[str, str]) -> None:
        """Fetch objects, by name, side by side, and keep those whose sha256 is as given.

        Raises:
            OSError: one is missing or cannot be read.
        """
        if self._known is None:
            raise ValueError("prefetch needs a place made by pinned")
        paths = [self / name for name in digests]
        contents = in_parallel(lambda path: path.read_bytes(), paths)
        for digest, path, content in zip(digests.values(), paths, contents, strict=True):
            if hashlib.sha256(content).hexdigest() == digest:
                self._known.contents[path.key] = content

    def holds(self, name: str) -> bool:
        """Whether `prefetch` has the object `name` at hand."""
        return self._known is not None and (self / name).key in self._known.contents

    # ---- writing

    def put(self, source: bytes | Path) -> None:
        """Write the object whole; nobody ever sees a part of it.

        Raises:
            OSError: it cannot be written.
        """
        import obstore

        with errors(self):
            obstore.put(self.connection.store, self.key, source)

    def put_new(self, content: bytes) -> bool:
        """Write the object unless there is one; whether it was written. In one step where the server can do that.

        Raises:
            OSError: it cannot be written.
        """
        import obstore
        from obstore import exceptions

        with errors(self):
            try:
                obstore.put(self.connection.store, self.key, content, mode="create")
            except exceptions.AlreadyExistsError:
                return False
            except exceptions.NotSupportedError:
                obstore.put(self.connection.store, self.key, content)
        return True

    def delete(self) -> None:
        """Delete the object, if it is there.

        Raises:
            OSError: it cannot be deleted.
        """
        import obstore

        with errors(self):
            try:
                obstore.delete(self.connection.store, self.key)
            except FileNotFoundError:
                return

    def _must_list(self) -> None:
        if not self.connection.lists:
            raise OSError(errno.ENOTSUP, "a plain HTTP server cannot be listed: open episodes by their id", str(self))


def in_parallel(work: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """`work` on every item, several at a time."""
    with ThreadPoolExecutor(min(PARALLEL, max(1, len(items))), "object-storage") as pool:
        return list(pool.map(work, items))


def is_url(text: str) -> bool:
    """Whether this names a place in object storage; also one whose `//` a `Path` has made `/`."""
    return _URL.match(text) is not None


def _restore(url: str, parts: tuple[str, ...], known: Known | None) -> RemotePath:
    return RemotePath(connect(url), parts, known)

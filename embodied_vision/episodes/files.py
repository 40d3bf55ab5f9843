"""Reading an episode's files where they lie: in a local folder or in object storage."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeAlias, TypeVar

from embodied_vision.episodes.regular import check_regular, open_regular, read_small
from embodied_vision.episodes.remote import RemotePath, in_parallel, is_url
from embodied_vision.errors import BadInput

T = TypeVar("T")

Location: TypeAlias = Path | RemotePath
"""Both join names by `/`, have a `name`, become what a user calls them by `str`, and are read by the functions here.

Every failure is an OSError.
"""

METADATA_CAP = 64 << 20
"""Bytes that a manifest or `zarr.json` may have."""


class OpenFile(Protocol):
    """A file that is read piece by piece, within a `with` block.

    Attributes:
        at_once: how many pieces to ask for in one call.
    """

    at_once: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def tail(self, count: int) -> tuple[int, bytes]:
        """Bytes of the file, and its last `count` ones, fewer where it is shorter."""

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, size), fewer where the file ends."""


class _LocalFile:
    """Held open, so that all pieces are of the same file."""

    at_once = 1

    def __init__(self, path: str) -> None:
        self._fd = open_regular(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def tail(self, count: int) -> tuple[int, bytes]:
        size = os.fstat(self._fd).st_size
        return size, os.pread(self._fd, count, max(0, size - count))

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [os.pread(self._fd, size, offset) for offset, size in ranges]


def location(path: str | os.PathLike[str] | RemotePath) -> Location:
    """The place that a path or a URL such as `s3://bucket/prefix` names.

    Raises:
        BadInput: a URL that is none of object storage, or no path at all.
    """
    if isinstance(path, RemotePath):
        return path
    text = os.fspath(path)
    if "\0" in text:
        raise BadInput(f"{text!r:.80} is no path: it holds a zero byte")
    return RemotePath.parse(text) if is_url(text) else Path(text)


def open_in(folder: Location, name: str) -> OpenFile:
    """The file `name` of a folder, to read pieces of."""
    return folder / name if isinstance(folder, RemotePath) else _LocalFile(f"{folder}/{name}")


def file_size(path: Location | str) -> int:
    """Bytes of a file."""
    if isinstance(path, RemotePath):
        return path.size()
    status = os.lstat(path)
    check_regular(status, path)
    return status.st_size


def read_metadata(path: Location) -> bytes:
    """A small file, whole."""
    return path.read_bytes() if isinstance(path, RemotePath) else read_small(path, METADATA_CAP)


def file_sha256(path: Location | str) -> str:
    """Digest of a file, read in pieces."""
    if isinstance(path, RemotePath):
        return path.sha256()
    with open(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sizes_under(folder: Location) -> dict[str, int]:
    """Bytes of every file and link under `folder`, by its name relative to it, in the order of names."""
    if isinstance(folder, RemotePath):
        return dict(sorted(folder.sizes_under().items()))
    found = {}
    for root, folders, names in os.walk(folder):
        for name in (*names, *(name for name in folders if os.path.islink(f"{root}/{name}"))):
            path = Path(root) / name
            found[str(path.relative_to(folder))] = os.lstat(path).st_size
    return dict(sorted(found.items()))


def folders_in(folder: Location) -> list[str]:
    """Names of the folders right in `folder`; none where it is missing."""
    if isinstance(folder, RemotePath):
        return folder.folders()
    try:
        return [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def each(folder: Location, work: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """`work` on every name; several at a time where each is a request."""
    return in_parallel(work, names) if isinstance(folder, RemotePath) else [work(name) for name in names]


def sizes_of(folder: RemotePath, names: Sequence[str]) -> dict[str, int]:
    """Bytes of each of these files that is there, in as few requests as the store allows."""
    if folder.connection.lists:
        return folder.sizes_under()

    def size(path: RemotePath) -> int | None:
        try:
            return path.size()
        except FileNotFoundError:
            return None

    sizes = in_parallel(size, [folder / name for name in names])
    return {name: size for name, size in zip(names, sizes, strict=True) if size is not None}

"""Opening what must be a plain file: never a link, and nothing that hangs, such as a named pipe."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

STORE_FOLDERS = ("episodes", "staging", "quarantine", "edits", "trash", "locks")


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a regular file; `flags` as of `os.open`.

    Raises:
        OSError: it cannot be opened, or is a link, a folder, a pipe, a socket or a device.
    """
    check_regular(os.lstat(path), path)  # before it is opened: opening some devices does something
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(os.fstat(fd), path)
    except OSError:
        os.close(fd)
        raise
    return fd


def check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Raises OSError where `status` is not that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"{_kind(status.st_mode)}, not a regular file", os.fspath(path))


def check_file(path: str | os.PathLike[str]) -> None:
    """Raises OSError where `path` is no regular file but, for instance, a link to one."""
    check_regular(os.lstat(path), path)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises OSError where `path` is no folder but, for instance, a link to one."""
    mode = os.lstat(path).st_mode
    if not stat.S_ISDIR(mode):
        raise OSError(errno.ENOTDIR, f"{_kind(mode)}, not a folder", os.fspath(path))


def check_own_folders(store: Path) -> None:
    """Make sure that what is written to a store goes nowhere else.

    Raises:
        OSError: one of its folders is a link, or no folder.
    """
    for name in STORE_FOLDERS:
        with suppress(FileNotFoundError):
            check_folder(store / name)


def read_small(path: Path, limit: int) -> bytes:
    """Contents of a regular file of at most `limit` bytes.

    Raises:
        OSError: as `open_regular`, or it is larger.
    """
    fd = open_regular(path)
    try:
        size = os.fstat(fd).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes, more than the {limit} that such a file may have", str(path))
        data = os.read(fd, size)
        while len(data) < size and (part := os.read(fd, size - len(data))):
            data += part
        return data
    finally:
        os.close(fd)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")

"""Fast DDS' files in /dev/shm: how much room there is, and which ones their dead owners left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embodied_vision.launching.domain import hold_name

FOLDER = Path("/dev/shm")
_PREFIX = "fastdds_"
_LOCK_SUFFIXES = ("_el", "_sl")
YOUNG_S = 3.0
"""A file younger than this may not have been locked by its owner yet."""


def free_bytes(folder: Path = FOLDER) -> int:
    """Free space for shared memory, 0 where there is none."""
    return shutil.disk_usage(folder).free if folder.is_dir() else 0


@contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    """Try to take the lock that Fast DDS holds on the file while its owner lives."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _mapped() -> frozenset[str]:
    """Names of Fast DDS files that some visible process has mapped."""
    names: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:  # the process has ended, or belongs to someone else: the locks still tell
            continue
        names.update(line.rsplit("/", 1)[1].split()[0] for line in text.splitlines() if f"/{_PREFIX}" in line)
    return frozenset(names)


def _groups(folder: Path) -> dict[str, list[Path]]:
    """Segment or port name → its files: memory, lock files and semaphore."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"*{_PREFIX}*")):
        name = path.name.removeprefix("sem.").removesuffix("_mutex")
        for suffix in _LOCK_SUFFIXES:
            name = name.removesuffix(suffix)
        if name.startswith(_PREFIX):
            groups.setdefault(name, []).append(path)
    return groups


def _is_old(path: Path, young_s: float) -> bool:
    try:
        return time.time() - path.stat().st_ctime > young_s
    except OSError:
        return False


def stale(folder: Path = FOLDER, young_s: float = YOUNG_S) -> list[Path]:
    """Files whose owners are dead: every lock is free, nobody has them mapped, and they are not brand new."""
    if not folder.is_dir():
        return []
    mapped = _mapped()
    found: list[Path] = []
    for name, files in _groups(folder).items():
        if name in mapped or not all(_is_old(path, young_s) for path in files):
            continue
        free = True
        for path in files:
            if path.name.endswith(_LOCK_SUFFIXES):
                with _exclusive(path) as taken:
                    free = free and taken
        if free:
            found.extend(files)
    return found


def abandoned(folder: Path = FOLDER) -> list[str]:
    """Ports whose owners are dead but that living processes still have open, until their lease has run out.

    What comes up on such a port may never hear those who write into it, and nothing tells it so. The locks are read
    from /proc: trying them would keep a process that starts meanwhile from its port.
    """
    ports = [name for name in _mapped() if name.startswith(f"{_PREFIX}port")]
    locked = _locked()
    return sorted(n for n in ports if not any(_identity(folder / f"{n}{s}") in locked for s in _LOCK_SUFFIXES))


def _locked() -> frozenset[str]:
    """Files that a visible process has locked, as /proc/locks names them: device and inode."""
    lines = Path("/proc/locks").read_text().splitlines()
    return frozenset(fields[5] for fields in map(str.split, lines) if fields[1] == "FLOCK")


def _identity(path: Path) -> str | None:
    """A file as /proc/locks names it, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"


def clean_stale(folder: Path = FOLDER, young_s: float = YOUNG_S) -> int:
    """Remove what dead processes left, one cleaner at a time.

    Returns:
        Bytes that became free.
    """
    held = hold_name("embodied_vision_shared_memory")
    if held is None:
        return 0
    freed = 0
    with held:
        for path in stale(folder, young_s):
            try:
                size = path.stat().st_blocks * 512
                path.unlink()
            except OSError:  # another user's file, or gone meanwhile
                continue
            freed += size
    return freed

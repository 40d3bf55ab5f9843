"""Changing a closed episode in one step that no crash can split.

STORE/edits/ID/lock      there while somebody changes the episode: who holds an flock on it
STORE/edits/ID/ID/       its next version; after the swap the former one, which goes
STORE/edits/ID/former/   the former version between two renames, where the file system cannot exchange folders
STORE/edits/ID/deleted/  what is being deleted

A new version is complete and on the disk before it takes the place of the old one. So whatever a dead process left is
settled by one rule, see `settle`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from embodied_vision.episodes.catalogue import forget
from embodied_vision.episodes.regular import check_folder, check_own_folders
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify_folder
from embodied_vision.errors import EpisodeError
from embodied_vision.renames import CANNOT_EXCHANGE, exchange
from embodied_vision.syncing import sync

WAIT_S = 10.0
"""How long an edit waits for another one of the same episode."""

_LOCK = "lock"
_FORMER = "former"
_DELETED = "deleted"
_POLL_S = 0.01
_ATTEMPTS = 100

Settled = Literal["finished", "dropped", "nothing"]


class Busy(EpisodeError):
    """An episode is being changed by another process."""


@contextmanager
def locked(store: EpisodeStore, episode_id: str, wait_s: float = WAIT_S) -> Iterator[Path]:
    """Be the only one who changes an episode; what a dead process left is settled before, and everything after.

    Returns:
        folder for the next version, STORE/edits/ID.

    Raises:
        Busy: another process changes the episode for longer than `wait_s`.
        OSError: the disk fails, or a folder of the store is a link to somewhere else.
    """
    check_own_folders(store.path)
    folder = store.edits_path / episode_id
    new = [path for path in (store.path, *store.path.parents) if not path.exists()]
    fd = _lock(folder, wait_s)
    try:
        for path in (store.edits_path, store.path, *(path.parent for path in new)):
            sync(path)  # a version is no safer than the names of the folders that lead to it
        settle(store, episode_id)
        try:
            yield folder
        finally:
            settle(store, episode_id)
            _unlock(folder)
    finally:
        os.close(fd)


def settle_left(store: EpisodeStore, episode_id: str) -> Settled | Literal["editing"]:
    """Put right what a dead process left of a change; "editing" where the process lives.

    Raises:
        OSError: as `locked`.
    """
    check_own_folders(store.path)
    folder = store.edits_path / episode_id
    try:
        fd = _lock(folder, 0.0)
    except Busy:
        return "editing"
    try:
        settled = settle(store, episode_id)
        _unlock(folder)
        return settled
    finally:
        os.close(fd)


def settle(store: EpisodeStore, episode_id: str) -> Settled:
    """Put right what was left of a change. The caller holds the lock.

    Where the episode is missing, its next version takes the place if it is complete, else the former one. Whatever
    else lies there goes: it is a former version, a deleted one or an unfinished next one.
    """
    folder, target = store.edits_path / episode_id, store.episodes_path / episode_id
    settled: Settled = "nothing"
    if not target.exists():
        for version in (folder / episode_id, folder / _FORMER):
            whole = version.name == _FORMER or verify_folder(version).ok
            if version.is_dir() and not version.is_symlink() and whole:
                settled = "finished" if version.name == episode_id else "dropped"
                appear(store, version, target)
                break
    for entry in sorted(folder.iterdir()):
        if entry.name != _LOCK:
            _remove(entry)
            settled = "dropped" if settled == "nothing" else settled
    return settled


def appear(store: EpisodeStore, version: Path, target: Path) -> None:
    """Let a complete version take a place that is free."""
    _make(store.episodes_path)
    _forget(store, target.name)
    os.rename(version, target)
    sync(store.episodes_path)
    sync(version.parent)


def swap(store: EpisodeStore, episode_id: str) -> None:
    """Let the next version, complete and on the disk, take the place of the episode. The caller holds the lock."""
    folder, target = store.edits_path / episode_id, store.episodes_path / episode_id
    _forget(store, episode_id)
    try:
        exchange(folder / episode_id, target)
    except OSError as error:
        if error.errno not in CANNOT_EXCHANGE:
            raise
        os.rename(target, folder / _FORMER)
        sync(folder)
        appear(store, folder / episode_id, target)
        return
    sync(store.episodes_path)
    sync(folder)


def take_out(store: EpisodeStore, episode_id: str, kept: Path | None = None) -> None:
    """Let an episode disappear, to `kept` or for ever. The caller holds the lock."""
    folder, source = store.edits_path / episode_id, store.episodes_path / episode_id
    target = folder / _DELETED if kept is None else kept
    _make(target.parent)
    _forget(store, episode_id)
    os.rename(source, target)
    sync(target.parent)
    sync(store.episodes_path)


def _make(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def _forget(store: EpisodeStore, episode_id: str) -> None:
    """The catalogue tells a folder by its inode, which the next version may be given again."""
    forget(store.path, episode_id)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _lock(folder: Path, wait_s: float) -> int:
    deadline = time.monotonic() + wait_s
    attempts = 0
    while True:
        attempts += 1
        try:
            with suppress(FileExistsError):  # of exist_ok a folder would be an error that goes while mkdir looks at it
                folder.mkdir(parents=True)
            check_folder(folder)
            fd = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            if attempts > _ATTEMPTS and time.monotonic() > deadline:
                raise  # no folder can be made here, as under /proc
            continue  # the one before took its folder away
        ours = False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(fd), os.stat(folder / _LOCK))
            if ours:
                return fd
        except FileNotFoundError:
            continue  # the one before took its lock away
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Busy(
                    f"episode {folder.name} is being changed by another process ({folder / _LOCK} is locked); "
                    "try again when that is done"
                ) from None
            time.sleep(_POLL_S)
        finally:
            if not ours:
                os.close(fd)


def _unlock(folder: Path) -> None:
    (folder / _LOCK).unlink()
    try:
        folder.rmdir()
    except OSError:
        return  # the next one is here already

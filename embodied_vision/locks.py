"""Locks on files: held by an open file, so that they end with the process that took them, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embodied_vision.errors import BadInput, RunFailed


@contextmanager
def exclusive(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock that no other process holds; the file says who has it.

    Args:
        path: of the lock's file, made where there is none and never removed.
        busy: what to tell when somebody else holds it, up to the remedy.

    Raises:
        RunFailed: somebody else does.
        BadInput: the file cannot be made.
    """
    with _opened(path) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "unknown process"
            raise RunFailed(f"{busy} (lock {path} is held by {holder})") from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Be one of those that `wait_for_shared` waits for."""
    with _opened(path) as fd:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield


def wait_for_shared(path: Path, patience_s: float, busy: str) -> None:
    """Block until nobody holds the lock `shared`.

    Raises:
        RunFailed: somebody still does after `patience_s`; `busy` tells what to do.
    """
    end = time.monotonic() + patience_s
    with _opened(path) as fd:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise RunFailed(f"{busy} (lock {path})") from error
                time.sleep(0.05)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BadInput(f"{path} cannot be opened ({error.strerror}); check the folder's permissions") from error
    try:
        yield fd
    finally:
        os.close(fd)

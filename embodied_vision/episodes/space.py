"""How much room a store's disk has, and whether the store is still the one that it was."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from embodied_vision.errors import EpisodeError


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user may still write where `path` is or will be.

    Raises:
        EpisodeError: no folder above it can be looked at.
    """
    folder = path
    while True:
        try:
            found = os.statvfs(folder)
        except (FileNotFoundError, NotADirectoryError):
            if folder.parent == folder:
                raise EpisodeError(f"{path}: no folder above it exists; give another store") from None
            folder = folder.parent
        except OSError as error:
            raise EpisodeError(f"{folder} cannot be looked at ({error.strerror}); check the disk") from error
        else:
            return found.f_bavail * found.f_frsize


class SpaceWatch:
    """Looks after a store in a thread of its own, because a disk that hangs holds up whoever asks it.

    Args:
        path: of the store.
        on_lost: told, from the thread, when the store cannot be looked at any more or is not the folder that it was.
        period_s: time between two looks.

    Raises:
        EpisodeError: the disk cannot be looked at.
    """

    def __init__(self, path: Path, on_lost: Callable[[EpisodeError], None], period_s: float = 1.0) -> None:
        self._path = path
        self._on_lost = on_lost
        self._period_s = period_s
        self._identity = self._look()
        self.free_bytes = free_bytes(path)
        """As of the last look."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="space watch", daemon=True)
        self._thread.start()

    def remember(self) -> None:
        """From now on this is the folder that the store must stay, such as when an episode was begun in it.

        Raises:
            EpisodeError: the disk cannot be looked at.
        """
        self._identity = self._look()

    def stop(self) -> None:
        """End the watch; does not wait for a disk that hangs."""
        self._done.set()

    def _work(self) -> None:
        while not self._done.wait(self._period_s):
            try:
                identity = self._look()
                self.free_bytes = free_bytes(self._path)
                if self._identity is not None and identity != self._identity:
                    raise EpisodeError(
                        f"{self._path} was taken away or replaced while episodes were written to it; bring the folder "
                        f"back, then run `embodied-vision episodes repair {self._path}`"
                    )
            except EpisodeError as error:
                self._on_lost(error)
                identity = None
            self._identity = identity

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise EpisodeError(f"{self._path} cannot be looked at ({error.strerror}); check the disk") from error
        return found.st_dev, found.st_ino

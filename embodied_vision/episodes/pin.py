"""Telling a reader that the episode it has open was changed on the disk since.

An edit swaps a whole new folder into the place of an episode, so a reader that goes on by path would mix two
versions: what it remembers of the one with files of the other. Edits that leave the data alone (outcome, tags) keep
their files by hard links, and readers do not notice; an edit that changes any data makes `MARKER` a new file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from embodied_vision.episodes.files import Location
from embodied_vision.episodes.remote import RemotePath
from embodied_vision.errors import EpisodeError

MARKER = "decisions/zarr.json"
"""In an episode's group: every episode has it, and it goes through every edit of the data."""


@dataclass(frozen=True)
class Pin:
    """The version of an episode's data that somebody has open.

    Attributes:
        group: folder of the episode's Zarr group.
        identity: of the marker file: device, inode, time of its writing in ns.
    """

    group: Location
    identity: tuple[int, int, int] | None

    @classmethod
    def of(cls, group: Location) -> Pin:
        """The version that lies there now."""
        return cls(group, identity(group / MARKER))

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is read by path within is of this version; what fails because the version is gone says so.

        Raises:
            EpisodeError: as `check`.
        """
        try:
            yield
        except EpisodeError:
            self.check()
            raise
        self.check()

    def check(self) -> None:
        """What was read by path before this call is of this version. In object storage each object is told by its tag.

        Raises:
            EpisodeError: the episode was changed or deleted meanwhile.
        """
        if identity(self.group / MARKER) != self.identity:
            raise EpisodeError(
                f"{str(self.group).rpartition('/')[0]} was changed or deleted since it was opened; open it again"
            )


def identity(path: Location) -> tuple[int, int, int] | None:
    """What tells a file or folder from its successor of the same name; None where there is none.

    Numbers of inodes are used again, at once even; the time of writing is not.
    """
    if isinstance(path, RemotePath):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns

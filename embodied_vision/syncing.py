"""Files and folders forced to the disk."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: Path) -> None:
    """Force a file, or a folder and everything in it, to the disk."""
    if not path.is_dir():
        sync(path)
        return
    for root, _, names in os.walk(path, topdown=False):
        for name in names:
            sync(Path(root) / name)
        sync(Path(root))

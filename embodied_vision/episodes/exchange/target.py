"""Exports appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.syncing import sync, sync_tree


@contextmanager
def atomic_target(target: Path) -> Iterator[Path]:
    """A path beside `target` and of its name, for a file or folder that becomes `target` when all went well.

    It is synced to the disk and renamed at the end; on any error nothing of it is left. Only a killed process leaves
    the hidden folder `.NAME.partial-…` beside the target.

    Raises:
        BadInput: `target` exists, or its folder cannot be written to.
        RunFailed: the disk is full or fails.
    """
    _refuse_existing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise BadInput(f"{target} cannot be made ({error.strerror}); give a path in a writable folder") from error
    try:
        yield beside / target.name
        sync_tree(beside / target.name)
        _refuse_existing(target)
        os.rename(beside / target.name, target)
        sync(target.parent)
    except OSError as error:
        raise RunFailed(
            f"{error.filename or target} cannot be written ({error.strerror or error}); nothing of {target} is left: "
            "free space or give another disk"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise BadInput(f"{target} exists and is never overwritten; give a new path, or remove it")

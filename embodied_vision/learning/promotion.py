"""Which checkpoint of a task is in use: a pointer that is swapped atomically, and the former one kept.

FOLDER/TASK/checkpoints/ID/   all candidates, promoted or not
FOLDER/TASK/current           link to the one in use; what the policy node loads and reloads
FOLDER/TASK/former            link to the one before
FOLDER/TASK/history.jsonl     one line an event, never rewritten
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.checkpoint import Checkpoint

CURRENT, FORMER, HISTORY = "current", "former", "history.jsonl"


class Pointer:
    """The checkpoint in use for one task, and the way back.

    Args:
        policies: folder of all tasks.
        task: name of the task.
    """

    def __init__(self, policies: Path, task: str) -> None:
        self.folder = policies / task
        self.task = task

    def path(self, checkpoint_id: str) -> Path:
        """Folder of a checkpoint by its id."""
        return self.folder / "checkpoints" / checkpoint_id

    @property
    def current(self) -> str | None:
        """Id of the checkpoint in use."""
        return self._target(CURRENT)

    @property
    def former(self) -> str | None:
        """Id of the one that was in use before."""
        return self._target(FORMER)

    def add(self, checkpoint: Checkpoint) -> Path:
        """Store a candidate without using it."""
        path = self.path(checkpoint.checkpoint_id)
        checkpoints.save(checkpoint, path)
        return path

    def promote(self, checkpoint_id: str, reason: str) -> None:
        """Use a stored checkpoint from now on. A reader of `current` sees the one or the other, never none.

        Raises:
            CheckpointError: it is not stored or damaged; the pointer stays.
        """
        checkpoints.load(self.path(checkpoint_id))
        before = self.current
        if before is not None and before != checkpoint_id:
            self._link(FORMER, before)
        self._link(CURRENT, checkpoint_id)
        self.log("promoted", checkpoint_id, before, reason)

    def rollback(self, reason: str = "asked for") -> str:
        """Use the former checkpoint again; the one in use becomes the former. Returns the id now in use.

        Raises:
            BadInput: there is no former one.
            CheckpointError: the former one is damaged; the pointer stays.
        """
        before, former = self.current, self.former
        if former is None or before is None:
            raise BadInput(f"nothing to roll back to in {self.folder}: no checkpoint was in use before this one")
        checkpoints.load(self.path(former))
        self._link(CURRENT, former)
        self._link(FORMER, before)
        self.log("rolled back", former, before, reason)
        return former

    def log(self, event: str, candidate: str, baseline: str | None, reason: str, **more: Any) -> None:
        """Add a line to the history."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "event": event,
            "task": self.task,
            "candidate": candidate,
            "baseline": baseline,
            "reason": reason,
            **more,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / HISTORY, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[dict[str, Any]]:
        """All events, oldest first."""
        path = self.folder / HISTORY
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other learners of this task out.

        Raises:
            RunFailed: another one is at work.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFailed(f"another learner is at work in {self.folder}; wait until it ends") from error
            yield

    def _target(self, name: str) -> str | None:
        link = self.folder / name
        return Path(os.readlink(link)).name if link.is_symlink() else None

    def _link(self, name: str, checkpoint_id: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        staging = self.folder / f".{name}.{uuid.uuid4().hex[:8]}"
        staging.symlink_to(Path("checkpoints") / checkpoint_id, target_is_directory=True)
        os.replace(staging, self.folder / name)
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""Which checkpoint of a task is in use: a pointer that is swapped atomically, and the former one kept.

FOLDER/TASK/checkpoints/ID/     all candidates, promoted or not
FOLDER/TASK/releases/NUMBER-ID/ what was put to use: links `current` and `former`, and `release.json`, which says
                                when, why, with which encoder and thresholds
FOLDER/TASK/in_use              link to a release, the only thing that is ever swapped
FOLDER/TASK/current             link to the checkpoint in use, through `in_use`; what the policy node loads
FOLDER/TASK/former              link to the one before, through `in_use`
FOLDER/TASK/history.jsonl       one line an event, see `history`

A checkpoint holds head, normalisation and the id of its encoder, a release adds where that encoder is found and the
thresholds it is watched by: all of it changes in one step, and a process killed at any moment leaves the one or the
other.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from embodied_vision.errors import BadInput, CheckpointError, RunFailed
from embodied_vision.learning import history
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.syncing import sync

_log = logging.getLogger(__name__)

CURRENT, FORMER, IN_USE, RELEASES, RELEASE = "current", "former", "in_use", "releases", "release.json"


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

    @property
    def release(self) -> Mapping[str, Any]:
        """What is known of the checkpoint in use: `time`, `event`, `reason`, `thresholds`; empty when there is none.

        Its `encoder` has the `id` of the one that it reads and the `name` by which that is loaded, empty where unknown.
        """
        return self._release()

    def stored(self) -> list[str]:
        """Ids of all stored checkpoints."""
        folder = self.folder / "checkpoints"
        return sorted(entry.name for entry in folder.iterdir() if "." not in entry.name) if folder.is_dir() else []

    def add(self, checkpoint: Checkpoint) -> Path:
        """Store a candidate without using it. One that is stored already, whole, stays as it is."""
        path = self.path(checkpoint.checkpoint_id)
        try:
            checkpoints.load(path)
        except CheckpointError:
            checkpoints.save(checkpoint, path)
        return path

    def promote(
        self,
        checkpoint_id: str,
        reason: str,
        *,
        expected: str | None = None,
        thresholds: Mapping[str, Any] | None = None,
        encoder: str = "",
    ) -> None:
        """Use a stored checkpoint from now on. A reader of `current` sees the one or the other, never none.

        Args:
            checkpoint_id: which.
            reason: for the history.
            expected: id of the checkpoint that it was compared with.
            thresholds: what it is watched by, JSON-ready, see `canary`.
            encoder: name or whole path of the encoder that it reads, where that is known.

        Raises:
            CheckpointError: it is not stored or damaged; the pointer stays.
            RunFailed: another checkpoint than `expected` is in use meanwhile; the pointer stays.
        """
        checkpoint = checkpoints.load(self.path(checkpoint_id))
        with self._swapping():
            before = self.current
            if expected is not None and before != expected:
                raise RunFailed(
                    f"{checkpoint_id} was compared with {expected}, and {before} is in use in {self.folder} "
                    "meanwhile; learn again"
                )
            former = before if before != checkpoint_id else self.former
            reads = self._encoder(checkpoint, encoder)
            self._swap("promoted", checkpoint_id, former, before, reason, thresholds or {}, encoder=reads)

    def rollback(self, reason: str = "asked for", *, expected: str | None = None, **more: Any) -> str:
        """Use the former checkpoint again; the one in use becomes the former. Returns the id now in use.

        It does not wait for a learner that is at work.

        Args:
            reason: for the history.
            expected: id of the checkpoint that is to go.
            more: of the history's line, JSON-ready.

        Raises:
            BadInput: there is no former one.
            CheckpointError: the former one is damaged; the pointer stays.
            RunFailed: another checkpoint than `expected` is in use meanwhile.
        """
        nothing = f"nothing to roll back to in {self.folder}: no checkpoint was in use before this one"
        if self.former is None:
            raise BadInput(nothing)  # before a lock is made in a folder that is none
        with self._swapping():
            before, former = self.current, self.former
            if former is None or before is None:
                raise BadInput(nothing)
            if expected is not None and before != expected:
                raise RunFailed(f"{expected} is no longer in use in {self.folder}, {before} is; nothing was changed")
            reads = self._encoder(checkpoints.load(self.path(former)))
            self._swap("rolled back", former, before, before, reason, {}, encoder=reads, **more)
            return former

    def purge(self, checkpoint_id: str, reason: str) -> None:
        """Delete a stored checkpoint for good. Where it is the former one, there is no way back afterwards.

        Raises:
            BadInput: it is in use.
        """
        with self._swapping():
            current = self.current
            if current == checkpoint_id:
                raise BadInput(f"checkpoint {checkpoint_id} is in use in {self.folder}; promote another one first")
            if self.former == checkpoint_id and current is not None:
                kept = self.release
                thresholds, reads = kept.get("thresholds", {}), kept.get("encoder", {})
                self._swap("purged", current, None, checkpoint_id, reason, thresholds, encoder=reads)
            gone = self.path(checkpoint_id).with_name(f".{checkpoint_id}.{uuid.uuid4().hex[:8]}")
            if self.path(checkpoint_id).exists():
                self.path(checkpoint_id).rename(gone)
            for left in (gone, *gone.parent.glob(f"{checkpoint_id}.*")):  # and what lies beside it, see `drift_known`
                shutil.rmtree(left, ignore_errors=True)

    def was_rolled_back(self, checkpoint_id: str) -> bool:
        """Whether a checkpoint was in use once and was taken back."""
        return any(
            line["event"] == "rolled back" and line["baseline"] == checkpoint_id
            for line in self.history()  # whoever promotes it again by hand is not hindered
        )

    def log(self, event: str, candidate: str, baseline: str | None, reason: str, **more: Any) -> None:
        """Add a line to the history."""
        with self._swapping():
            self._settle()
            history.append(self.folder, history.line(self.task, event, candidate, baseline, reason, **more))

    def history(self) -> list[dict[str, Any]]:
        """All events, oldest first."""
        lines = history.read(self.folder)
        return [*lines, *self._unlogged(lines)]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other learners of this task out.

        Raises:
            RunFailed: another one is at work.
        """
        with self._held(".lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    @contextmanager
    def _swapping(self) -> Iterator[None]:
        """Be the only one who swaps the pointer, for a moment."""
        with self._held(".swap", fcntl.LOCK_EX):
            yield

    @contextmanager
    def _held(self, name: str, how: int) -> Iterator[None]:
        with ExitStack() as opened:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                file = opened.enter_context(open(self.folder / name, "w", encoding="utf-8"))
            except OSError as error:
                raise BadInput(f"{self.folder} cannot be written ({error.strerror}); check its permissions") from error
            try:
                fcntl.flock(file, how)
            except BlockingIOError as error:
                raise RunFailed(f"another learner is at work in {self.folder}; wait until it ends") from error
            yield

    def _target(self, name: str) -> str | None:
        link = self.folder / IN_USE / name
        if not link.is_symlink():
            link = self.folder / name  # of an earlier layout, see `_adopt`
        return link.resolve().name if link.exists() else None

    def _release(self) -> dict[str, Any]:
        path = self.folder / IN_USE / RELEASE
        try:
            release = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            release = None
        if not isinstance(release, dict) or "release" not in release:
            _log.warning("%s is damaged: nobody watches the checkpoint in use, the way back is open", path)
            return {}
        return release

    def _encoder(self, checkpoint: Checkpoint, name: str = "") -> dict[str, str]:
        """What a checkpoint reads, by the name given or else by the last one under which it was put to use."""
        if not checkpoint.encoder_id:
            return {"id": "", "name": ""}
        uses = [line for line in self.history() if line.get("candidate") == checkpoint.checkpoint_id]
        names = [line.get("encoder", {}).get("name", "") for line in uses]
        return {"id": checkpoint.encoder_id, "name": name or next(filter(None, reversed(names)), "")}

    def _releases(self) -> list[Path]:
        """Folders of all releases, oldest first; what a killed process had not finished begins with a dot."""
        folder = self.folder / RELEASES
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def _unlogged(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The event of the release in use, where a process was killed between swap and log."""
        release = self._release()
        known = {line.get("release") for line in lines}
        return [release] if release and release["release"] not in known else []

    def _settle(self) -> None:
        """Finish what a killed process had swapped, and remove what it had not."""
        lines = history.read(self.folder)
        for line in self._unlogged(lines):
            history.append(self.folder, line)
            lines.append(line)
        known = {line.get("release") for line in lines}
        for release in self._releases():
            if release.name not in known:
                shutil.rmtree(release)
        self._lead_through()

    def _swap(
        self,
        event: str,
        current: str,
        former: str | None,
        before: str | None,
        reason: str,
        thresholds: Mapping[str, Any],
        **more: Any,
    ) -> None:
        try:
            self._settle()
            self._adopt()
            line = history.line(self.task, event, current, before, reason, thresholds=dict(thresholds), **more)
            self._put_to_use(current, former, line)
        except OSError as error:
            raise RunFailed(
                f"{self.folder} cannot be written ({error.strerror}), {self.current or 'nothing'} is in use; "
                "make room or check permissions, and try again"
            ) from error

    def _adopt(self) -> None:
        """Make a release of links as they were laid before there were releases; what they lead to stays the same."""
        current = self.current
        if current is not None and not (self.folder / IN_USE).is_symlink():
            line = history.line(self.task, "adopted", current, self.former, "in use before there were releases")
            self._put_to_use(current, self.former, line)

    def _put_to_use(self, current: str, former: str | None, line: Mapping[str, Any]) -> None:
        releases = self._releases()
        number = int(releases[-1].name.split("-")[0]) + 1 if releases else 1
        name = f"{number:04d}-{current}"
        line = {**line, "release": name}
        self._write_release(name, current, former, line)
        self._link(IN_USE, Path(RELEASES) / name)
        self._lead_through()
        history.append(self.folder, line)

    def _write_release(self, name: str, current: str, former: str | None, line: Mapping[str, Any]) -> None:
        """Complete and on the disk before anything leads to it."""
        releases = self.folder / RELEASES
        staging = releases / f".{name}.{uuid.uuid4().hex[:8]}"
        staging.mkdir(parents=True)
        for link, checkpoint_id in ((CURRENT, current), (FORMER, former)):
            if checkpoint_id is not None:
                (staging / link).symlink_to(Path("..") / ".." / "checkpoints" / checkpoint_id, target_is_directory=True)
        with open(staging / RELEASE, "w", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync(staging)
        staging.rename(releases / name)
        sync(releases)

    def _lead_through(self) -> None:
        """Let `current` and `former` lead through `in_use`, as far as it has them."""
        if not (self.folder / IN_USE).is_symlink():
            return
        for name in (CURRENT, FORMER):
            link, through = self.folder / name, Path(IN_USE) / name
            if not (self.folder / through).is_symlink():
                link.unlink(missing_ok=True)  # there is no former one any more
            elif not (link.is_symlink() and link.readlink() == through):
                self._link(name, through)

    def _link(self, name: str, target: Path) -> None:
        staging = self.folder / f".{name}.{uuid.uuid4().hex[:8]}"
        staging.symlink_to(target, target_is_directory=True)
        os.replace(staging, self.folder / name)
        sync(self.folder)


def other_encoder(current: Path, given: str) -> str:
    """What to add to a refusal of the policy behind a `current` link: where the encoder that it reads is found.

    Args:
        current: the link.
        given: id of the encoder at hand.

    Returns:
        Empty where that is the one, or where nobody said how it is loaded.
    """
    encoder = _behind(current).get("encoder", {})
    if not encoder.get("name") or encoder["id"] == given:
        return ""
    return f"; the one that it was promoted with is {encoder['name']}: launch the cell with --encoder {encoder['name']}"


def is_taken_back(current: Path, checkpoint_id: str) -> bool:
    """Whether what the `current` link leads to was put in the place of this checkpoint because that did worse."""
    release = _behind(current)
    return release.get("event") == "rolled back" and release.get("baseline") == checkpoint_id


def _behind(current: Path) -> Mapping[str, Any]:
    """The release that a `current` link leads through."""
    return Pointer(current.parent.parent, current.parent.name).release

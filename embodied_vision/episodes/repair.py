"""Bringing back episodes whose writer died."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from embodied_vision.episodes.commit import JOURNAL, commit, final_outcome, remove_staging
from embodied_vision.episodes.journal import JournalReader
from embodied_vision.episodes.regular import check_file, check_folder, check_own_folders, open_regular
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.swap import settle_left
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import EpisodeError
from embodied_vision.syncing import sync

INTERRUPTED = {"interrupted": True, "solved": False, "reward": 0.0}

State = Literal["recovered", "writing", "empty", "failed", "finished", "dropped", "editing"]


@dataclass(frozen=True)
class Repaired:
    """What became of one staging episode, or of one edit.

    Attributes:
        id: of the episode.
        state: "recovered" into the store; "writing": its writer lives, left alone; "empty": its writer died before
            the first record, removed; "failed": see `detail`, everything is kept. Of an edit whose process died:
            "finished", or "dropped": the episode is as it was before; "editing": its process lives, left alone.
        records: how many were brought back.
        detail: what could not be read, and where it is kept.
    """

    id: str
    state: State
    records: int = 0
    detail: str = ""


def repair(store: EpisodeStore) -> list[Repaired]:
    """Bring all episodes in staging back whose writer does not live any more, and settle edits of dead processes.

    They end with the outcome `close` was given, or with `INTERRUPTED`. A journal with unreadable stretches is kept
    in quarantine; nothing that was logged is ever deleted.

    Raises:
        EpisodeError: the disk is full or fails; what was in staging is still there.
    """
    results: list[Repaired] = []
    problems = []
    for episode_id in store.edit_ids():
        try:
            results += settle_edit(store, episode_id)
        except EpisodeError as error:
            problems.append(error)
    for episode_id in store.staging_ids():
        try:
            results.append(repair_one(store, episode_id))
        except EpisodeError as error:
            problems.append(error)  # what keeps one from coming back shall not keep the others
    if problems:
        raise problems[0]
    return results


def settle_edit(store: EpisodeStore, episode_id: str) -> list[Repaired]:
    """`repair` of what a dead process left when it changed a closed episode; nothing where there is nothing to tell."""
    try:
        settled = settle_left(store, episode_id)
    except OSError as error:
        raise EpisodeError(
            f"{error.filename or store.edits_path / episode_id} cannot be repaired ({error.strerror}); free space or "
            "fix the disk"
        ) from error
    return [] if settled == "nothing" else [Repaired(episode_id, settled, detail="an edit of the episode")]


def repair_one(store: EpisodeStore, episode_id: str) -> Repaired:
    """`repair` of a single staging episode."""
    staging = store.staging_path / episode_id
    try:
        check_own_folders(store.path)
        for path, check in ((staging, check_folder), (staging / JOURNAL, check_file)):
            try:
                check(path)
            except FileNotFoundError:
                raise
            except OSError as error:
                return Repaired(episode_id, "failed", detail=f"{path} is {error.strerror}; remove it by hand")
        with claim(staging / JOURNAL) as claimed:
            if not claimed:
                return Repaired(episode_id, "writing")
            return _bring_back(store, episode_id)
    except FileNotFoundError:
        if not staging.exists():
            return Repaired(episode_id, "writing", detail="closed meanwhile")
        try:
            staging.rmdir()
        except OSError:
            if (staging / JOURNAL).exists():
                return Repaired(episode_id, "writing")
            return Repaired(
                episode_id, "failed", detail=f"{staging} has no {JOURNAL}; look at it and remove it by hand"
            )
        return Repaired(episode_id, "empty")
    except OSError as error:
        raise EpisodeError(
            f"{error.filename or staging} cannot be repaired ({error.strerror}); free space or fix the disk"
        ) from error


def _bring_back(store: EpisodeStore, episode_id: str) -> Repaired:
    staging = store.staging_path / episode_id
    if (staging / JOURNAL).stat().st_size == 0:
        remove_staging(staging)
        return Repaired(episode_id, "empty")
    with JournalReader(staging / JOURNAL) as journal:
        records, gaps, ended = len(journal.records), journal.gaps, final_outcome(journal)
        if not records and not gaps:  # died in its first record: nothing was acknowledged
            remove_staging(staging)
            return Repaired(episode_id, "empty")
        if episode_id not in store.ids():
            try:
                commit(store, episode_id, journal, INTERRUPTED if ended is None else ended)
            except EpisodeError as error:
                if isinstance(error.__cause__, OSError):
                    raise
                return Repaired(episode_id, "failed", detail=f"{error}; kept in {_quarantine(store, episode_id)}")
        elif not verify(store, [episode_id])[0].ok:
            kept = _quarantine(store, episode_id)
            return Repaired(
                episode_id, "failed", detail=f"the closed episode is damaged; its journal is kept in {kept}"
            )
    if gaps:
        detail = (
            f"{sum(size for _, size in gaps)} bytes unreadable; the journal is kept in {_quarantine(store, episode_id)}"
        )
        return Repaired(episode_id, "recovered", records, detail)
    remove_staging(staging)
    return Repaired(episode_id, "recovered", records)


def _quarantine(store: EpisodeStore, episode_id: str) -> Path:
    store.quarantine_path.mkdir(exist_ok=True)
    target = store.quarantine_path / episode_id
    for number in count(2):
        if not os.path.lexists(target):
            break
        target = store.quarantine_path / f"{episode_id}.{number}"
    os.rename(store.staging_path / episode_id, target)
    for folder in (store.quarantine_path, store.staging_path, store.path):
        sync(folder)
    return target


@contextmanager
def claim(journal: Path) -> Iterator[bool]:
    """Lock a journal as its writer does; False where somebody else has it or took it away."""
    fd = open_regular(journal, os.O_RDWR)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            same = os.path.samestat(os.fstat(fd), os.stat(journal))
        except FileNotFoundError:
            same = False
        yield same
    finally:
        os.close(fd)

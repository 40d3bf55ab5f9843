"""What killed writers left in staging, for a program that can do their work again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from embodied_vision.episodes.commit import JOURNAL, final_outcome, remove_staging
from embodied_vision.episodes.journal import JournalReader
from embodied_vision.episodes.repair import claim, repair_one
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import EpisodeError

Mine = Callable[[Mapping[str, Any]], bool]


def clear(store: EpisodeStore, mine: Mine) -> list[str]:
    """Finish the complete episodes of dead writers and drop the unfinished ones, where the caller can repeat them.

    An episode is complete when its writer was told to close it. Those of live writers and of others stay as they
    are, for `repair`; of folders in which nothing was logged yet nothing stays.

    Args:
        store: where to look.
        mine: told an episode's `task`, `policy_id` and `attributes`, among others: whether the caller can repeat it.

    Returns:
        ids of the episodes that are in the store now.

    Raises:
        EpisodeError: the disk is full or fails; what was in staging is still there.
    """
    finished = []
    for episode_id in store.staging_ids():
        staging = store.staging_path / episode_id
        try:
            if _sort(staging, mine) == "complete" and repair_one(store, episode_id).state == "recovered":
                finished.append(episode_id)
        except FileNotFoundError:
            with suppress(OSError):  # a folder without a journal, if it is still there
                staging.rmdir()
        except OSError as error:
            raise EpisodeError(
                f"{error.filename or staging} cannot be cleared ({error.strerror}); free space or fix the disk"
            ) from error
    return finished


def _sort(staging: Path, mine: Mine) -> Literal["complete", "dropped", "other"]:
    with claim(staging / JOURNAL) as claimed:
        if not claimed:
            return "other"
        with JournalReader(staging / JOURNAL) as journal:
            started = bool(journal.records or journal.gaps)
            heads = [record.fields for record in journal.records if record.fields["kind"] == "header"]
            if started and not (heads and mine(heads[0])):
                return "other"
            complete = final_outcome(journal) is not None
        if not complete:
            remove_staging(staging)
        return "complete" if complete else "dropped"

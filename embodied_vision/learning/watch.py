"""Which closed episodes of a store wait to be learnt from, and the journal of the rounds that took them.

POLICIES/TASK/learner.jsonl holds one line an event: `begun` with the episodes that a round takes, then `ended` with
what came of it, or `failed`. A round without an end was broken off; its episodes still wait. What a checkpoint learnt
from stands in its own manifest, so a round that was killed right after its promotion is not done twice either.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embodied_vision.episodes.store import EpisodeStore, is_id
from embodied_vision.errors import EpisodeError
from embodied_vision.learning import json_lines
from embodied_vision.learning.dataset import teaches

JOURNAL = "learner.jsonl"


@dataclass
class Arrivals:
    """Closed episodes of a store, each looked at once.

    Attributes:
        store: where they lie.
        teaching: task → ids of the episodes that teach, oldest first; those of validation and test scenes never do.
        seen: task → number of closed episodes.
        damaged: id → what is wrong with it; left out.
    """

    store: EpisodeStore
    teaching: dict[str, list[str]] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    _known: dict[str, tuple[int, int]] = field(default_factory=dict)

    def look(self) -> list[str]:
        """Look at what was closed or changed since the last look; ids of these episodes.

        Raises:
            EpisodeError: the store cannot be listed.
        """
        there = _versions(self.store)
        if any(there.get(episode_id) != version for episode_id, version in self._known.items()):
            self.teaching, self.seen, self.damaged, self._known = {}, {}, {}, {}  # deleted or changed: count again
        new = [episode_id for episode_id in sorted(there) if episode_id not in self._known]
        for episode_id in new:
            self._known[episode_id] = there[episode_id]
            try:
                episode = self.store.open(episode_id)
            except EpisodeError as error:
                self.damaged[episode_id] = str(error)
                continue
            self.seen[episode.task] = self.seen.get(episode.task, 0) + 1
            ids = self.teaching.setdefault(episode.task, [])
            if teaches(episode):
                ids.append(episode_id)
        return new


def _versions(store: EpisodeStore) -> dict[str, tuple[int, int]]:
    """Closed episodes, each with what tells one version of its folder from the next."""
    try:
        with os.scandir(store.episodes_path) as entries:
            found = {entry.name: entry.stat() for entry in entries if is_id(entry.name) and entry.is_dir()}
    except FileNotFoundError:
        return {}  # no episode yet, or one was deleted this very moment: the next look tells
    except OSError as error:
        raise EpisodeError(f"{store.episodes_path} cannot be listed ({error.strerror}); check the disk") from error
    return {name: (stat.st_ino, stat.st_ctime_ns) for name, stat in found.items()}


class Journal:
    """What the learner of a task has done; survives a kill at any time.

    Args:
        folder: of the task, among the policies.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL

    def begin(self, episodes: Sequence[str]) -> str:
        """A round takes these episodes; its id.

        Raises:
            BadInput: the journal cannot be written.
        """
        round_id = uuid.uuid4().hex[:12]
        self._add("begun", round_id, episodes=list(episodes))
        return round_id

    def end(self, round_id: str, episodes: Sequence[str], outcome: Mapping[str, Any]) -> None:
        """The round came to an outcome: these episodes are consumed."""
        self._add("ended", round_id, episodes=list(episodes), outcome=dict(outcome))

    def fail(self, round_id: str, reason: str) -> None:
        """The round came to nothing; its episodes wait again."""
        self._add("failed", round_id, reason=reason)

    def records(self) -> list[dict[str, Any]]:
        """All lines, oldest first."""
        return json_lines.read(self.path)

    def consumed(self) -> set[str]:
        """Episodes of the rounds that came to an outcome."""
        return {episode for line in self.records() if line.get("event") == "ended" for episode in line["episodes"]}

    def broken_off(self) -> str | None:
        """Id of the last round, when nothing tells how it ended."""
        records = self.records()
        return str(records[-1]["round"]) if records and records[-1].get("event") == "begun" else None

    def _add(self, event: str, round_id: str, **more: Any) -> None:
        time = datetime.now(UTC).isoformat(timespec="seconds")
        json_lines.append(self.path, {"time": time, "event": event, "round": round_id, **more})


def waiting(teaching: Sequence[str], learnt: set[str], journal: Journal) -> list[str]:
    """Episodes that teach and that neither the checkpoint in use learnt from nor a round consumed, oldest first."""
    done = learnt | journal.consumed()
    return [episode for episode in teaching if episode not in done]

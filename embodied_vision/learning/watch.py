"""Which closed episodes of a store wait to be learnt from, and the journal of the rounds that took them.

POLICIES/TASK/learner.jsonl holds one line an event: `begun` with the episodes that a round takes, then `ended` with
what came of it, or `failed`. A round without an end was broken off; its episodes still wait. What a checkpoint learnt
from stands in its own manifest, so a round that was killed right after its promotion is not done twice either.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embodied_vision.episodes.corrections import CORRECTIONS
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore, is_id
from embodied_vision.errors import EpisodeError
from embodied_vision.learning import json_lines
from embodied_vision.learning.collect import ORACLE
from embodied_vision.learning.dataset import is_solved, may_teach, teaches
from embodied_vision.learning.holdout import SHARE, is_held_out

JOURNAL = "learner.jsonl"
STREAK = 10
SETTLED_NS = 2_000_000_000
"""The folder of the episodes may change once more within the same tick of its clock; not after so long."""


@dataclass(frozen=True)
class Seen:
    """A closed episode as far as it matters here.

    Attributes:
        id: of the episode.
        solved: whether nothing was left to do.
        useful: whether anything was done in it that helped.
        shown: whether somebody who knows did it or corrected it, an expert or a person, rather than a policy.
    """

    id: str
    solved: bool
    useful: bool
    shown: bool


@dataclass
class Arrivals:
    """Closed episodes of a store, each looked at once; those of validation and test scenes are left out.

    Attributes:
        store: where they lie.
        seen: task → episodes, oldest first.
        damaged: id → what is wrong with it; left out.
    """

    store: EpisodeStore
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    _known: dict[str, tuple[int, int]] = field(default_factory=dict)
    _changed_ns: int = -1

    def look(self) -> list[str]:
        """Look at what was closed or changed since the last look; ids of these episodes.

        Raises:
            EpisodeError: the store cannot be listed.
        """
        changed_ns = _changed_ns(self.store)
        if changed_ns == self._changed_ns and time.time_ns() - changed_ns > SETTLED_NS:
            return []  # a store of many episodes is not gone through every second
        self._changed_ns = changed_ns
        there = _versions(self.store)
        if any(there.get(episode_id) != version for episode_id, version in self._known.items()):
            self.seen, self.damaged, self._known = {}, {}, {}  # deleted or changed: look at all of them again
        new = [episode_id for episode_id in sorted(there) if episode_id not in self._known]
        for episode_id in new:
            self._known[episode_id] = there[episode_id]
            try:
                episode = self.store.open(episode_id)
            except EpisodeError as error:
                self.damaged[episode_id] = str(error)
                continue
            if not _tells(episode):
                continue
            self.seen.setdefault(episode.task, []).append(_seen(episode))
        for episodes in self.seen.values():
            episodes.sort(key=lambda seen: seen.id)
        return new


def is_shown(episode: Episode) -> bool:
    """Whether all of it is a demonstration: solved by an expert, or by somebody who is no policy."""
    return teaches(episode) and episode.policy_id in ("", ORACLE)


def is_corrected(episode: Episode) -> bool:
    """Whether an operator said what should have been done."""
    return bool(episode.attributes.get(CORRECTIONS))


def _tells(episode: Episode) -> bool:
    """Whether it says anything: it may teach, was not broken off, and somebody knows how it ended or corrected it."""
    known = "reward" in episode.outcome or is_corrected(episode)
    return known and not episode.outcome.get("aborted", False) and may_teach(episode.attributes)


def _seen(episode: Episode) -> Seen:
    solved, corrected = is_solved(episode), is_corrected(episode)
    helped = teaches(episode) if solved else float(episode.outcome.get("reward", 0.0)) > 0
    return Seen(episode.id, solved, corrected or helped, corrected or is_shown(episode))


@dataclass(frozen=True)
class Choice:
    """What a round would learn from.

    Attributes:
        fresh: episodes to learn from, oldest first.
        new: those of them that no round consumed yet.
        rehearsal: solved ones from before, of which some are repeated so that what they taught is kept.
        trouble: whether the policy in use is in trouble.
        failed: episodes since the trouble began in which nothing helped: of them is learnt what to avoid. They begin no
            round by themselves.
    """

    fresh: Sequence[str] = ()
    new: Sequence[str] = ()
    rehearsal: Sequence[str] = ()
    trouble: bool = False
    failed: Sequence[str] = ()


def choose(seen: Sequence[Seen], done: set[str], *, streak: int = STREAK, holdout: float = SHARE) -> Choice:
    """What to learn from: what was newly shown, and all that a policy in trouble managed in spite of it.

    A policy that solves all that comes has nothing to learn from its own work. It is in trouble from the end of the
    last row of `streak` solved episodes on, if it failed since. What it managed since then, and what failed, is learnt
    from in every round until the trouble is over: after a few episodes each single one is too little.

    Args:
        seen: episodes of a task, oldest first.
        done: ids that were learnt from, or consumed by a round that was refused.
        streak: so many solved episodes in a row show that all is well.
        holdout: share of the episodes that is never learnt from, see `holdout`.
    """
    own = [episode for episode in seen if not episode.shown]
    begins, row = 0, 0
    for index, episode in enumerate(own):
        row = row + 1 if episode.solved else 0
        begins = index + 1 if row >= streak else begins
    late = own[begins:]
    trouble = any(not episode.solved for episode in late)
    hard = {episode.id for episode in late} if trouble else set()
    kept = [episode for episode in seen if not is_held_out(episode.id, holdout)]
    usable = [episode for episode in kept if episode.useful]
    fresh = [e.id for e in usable if e.id in hard or (e.shown and e.id not in done)]
    taken = set(fresh)
    return Choice(
        fresh,
        [episode_id for episode_id in fresh if episode_id not in done],
        [episode.id for episode in usable if episode.solved and episode.id not in taken],
        trouble,
        tuple(episode.id for episode in kept if episode.id in hard and not episode.useful),
    )


def _changed_ns(store: EpisodeStore) -> int:
    """When an episode was last added, changed or removed; 0 before the first."""
    try:
        return store.episodes_path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise EpisodeError(f"{store.episodes_path} cannot be looked at ({error.strerror}); check the disk") from error


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
        now = datetime.now(UTC).isoformat(timespec="seconds")
        json_lines.append(self.path, {"time": now, "event": event, "round": round_id, **more})

"""A promoted policy in its first episodes: watched, and taken back when it does worse than the former one did.

After every episode two explanations are weighed: that it succeeds at the former policy's rate, which is known as far as
that one's episodes tell, and that it succeeds at any lower rate. Their ratio is a test martingale, so that a policy as
good as the former is taken back, at whatever episode, with probability `level` at most (Ville's inequality; as in
Ramdas et al. (2023), Statistical Science 38, 576–601). A sequential test needs no number of episodes set beforehand: a
policy that only fails is recognised within a few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from scipy.special import betainc, betaln

from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.gate import Pairs
from embodied_vision.learning.gate_evidence import is_solved
from embodied_vision.learning.promotion import Pointer

LEVEL = 0.05
MOST_FORMER = 50
"""Newest episodes of the former policy that its rate is taken from."""
Word = Literal["off", "watching", "passed", "rolled back"]


@dataclass(frozen=True)
class Plan:
    """By what a promoted policy is watched; part of its release.

    Attributes:
        episodes: so many of its own.
        former_solved, former_failed: what the former policy did.
        level: probability of taking back one that is as good.
    """

    episodes: int
    former_solved: int
    former_failed: int
    level: float = LEVEL

    def __post_init__(self) -> None:
        if self.episodes < 1 or min(self.former_solved, self.former_failed) < 0 or not 0 < self.level < 1:
            raise BadInput(f"{self} is no plan of a canary; give at least one episode and a level between 0 and 1")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def evidence(solved: int, failed: int, plan: Plan) -> float:
    """How many times more likely these outcomes are at a lower rate of success than at the former policy's."""
    s, f = plan.former_solved + 1, plan.former_failed + 1
    former = s / (s + f)
    as_before = betaln(s + solved, f + failed) - betaln(s, f)
    lower = betaln(solved + 1, failed + 1) + math.log(max(betainc(solved + 1, failed + 1, former), 1e-300))
    return math.exp(min(lower - math.log(former) - as_before, 700.0))


def failed_at(outcomes: Sequence[bool], plan: Plan) -> int | None:
    """Number of the episode, from 1, after which a policy is taken back; None when it is not."""
    solved = failed = 0
    for number, outcome in enumerate(outcomes[: plan.episodes], 1):
        solved, failed = solved + outcome, failed + (not outcome)
        if not outcome and evidence(solved, failed, plan) >= 1 / plan.level:
            return number
    return None


def plan(pointer: Pointer, store: EpisodeStore | None, compared: Sequence[Pairs], episodes: int) -> Plan:
    """A plan by what the policy in use did in its newest logged episodes, or else where it was compared."""
    done: list[bool] = []
    if store is not None and store.exists() and pointer.current is not None:
        done = [is_solved(e) for e in _finished(store, pointer.task, pointer.current)][-MOST_FORMER:]
    if not done:
        done = [solved for pairs in compared if pairs.task == pointer.task for solved in pairs.baseline][-MOST_FORMER:]
    return Plan(episodes, sum(done), len(done) - sum(done))


@dataclass(frozen=True)
class State:
    """How it goes.

    Attributes:
        word: "off" where nothing is watched.
        checkpoint: that is or was watched.
        now: in use.
        episodes, solved: of the watched policy so far.
        of: episodes to be watched.
        reason: in words.
    """

    word: Word
    checkpoint: str = ""
    now: str = ""
    episodes: Sequence[str] = ()
    solved: int = 0
    of: int = 0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def check(pointer: Pointer, store: EpisodeStore) -> State:
    """Look at the episodes that the promoted policy has closed so far, and take it back if they speak against it.

    Everything is read anew from release, store and history, so it may be called at any time and by anybody.

    Raises:
        CheckpointError: the former policy is damaged; the pointer stays.
        RunFailed: the disk is full.
    """
    release, current = pointer.release, pointer.current
    settings = release.get("thresholds", {}).get("canary")
    if not settings or current is None:
        return State("off", now=current or "", reason="no promoted policy is watched")
    plan = Plan(**settings)
    watched = [e for e in _finished(store, pointer.task, current) if e.created_ns >= _ns(release)][: plan.episodes]
    outcomes = [is_solved(episode) for episode in watched]
    ids, solved = [episode.id for episode in watched], sum(outcomes)
    counted = f"{solved} of {len(ids)} solved, the former policy {_rate(plan)}"
    number = failed_at(outcomes, plan)
    if number is not None:
        reason = f"canary: after {number} episodes, {counted}"
        now = pointer.rollback(reason, expected=current, episodes=ids[:number])
        return State("rolled back", current, now, ids, solved, plan.episodes, reason)
    if len(ids) < plan.episodes:
        return State("watching", current, current, ids, solved, plan.episodes, counted)
    if not any(line.get("watched") == release["release"] for line in pointer.history()):
        pointer.log("canary passed", current, pointer.former, counted, watched=release["release"], episodes=ids)
    return State("passed", current, current, ids, solved, plan.episodes, counted)


def _finished(store: EpisodeStore, task: str, policy_id: str) -> list[Episode]:
    """Closed episodes of a policy, oldest first. One that was broken off counts, and as a failure."""
    if not store.exists():
        return []
    found = store.select(task=task, policy_id=policy_id)
    return [episode for episode in found if "reward" in episode.outcome or episode.outcome.get("aborted")]


def _ns(release: Mapping[str, Any]) -> int:
    return round(datetime.fromisoformat(release["time"]).timestamp() * 1e9)


def _rate(plan: Plan) -> str:
    return f"{plan.former_solved} of {plan.former_solved + plan.former_failed}"

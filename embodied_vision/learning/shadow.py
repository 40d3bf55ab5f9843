"""A candidate in the shadow of the policy that acts: it decides on the same frames, nothing is done with it but to log.

FOLDER/TASK/shadow/CANDIDATE.jsonl   one line a decision, beside FOLDER/TASK/checkpoints/CANDIDATE

How a candidate's own action would have ended is known where it is the same as what was done. Where it differs nobody
knows, and it counts as a failure: the candidate can be shown to be no worse in the shadow, never to be better.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import EmbodiedVisionError
from embodied_vision.learning import json_lines
from embodied_vision.learning.gate import Pairs
from embodied_vision.learning.gate_evidence import is_solved, outcome_known, outside, same_action
from embodied_vision.learning.promotion import Pointer
from embodied_vision.policies.attempts import Attempts
from embodied_vision.policies.policy import Explanation, Policy
from embodied_vision.types import RGBD, Features, PickPlace


def log_path(candidate: Path) -> Path:
    """Where the decisions of a candidate in a folder are logged: among its task's policies, or beside it."""
    if candidate.parent.name == "checkpoints":
        return candidate.parent.parent / "shadow" / f"{candidate.name}.jsonl"
    return candidate.parent / f"{candidate.name}.shadow.jsonl"


@dataclass(frozen=True)
class Shadowed:
    """What a candidate would have done.

    Attributes:
        time: when it decided, UTC.
        decision_id: of the decision that was acted on.
        checkpoint_id: that acted.
        shadow_id: of the candidate.
        same: whether it would have taken the same object to the same place.
        action: what it decided, JSON-ready; None where it came to no decision.
        problem: what is wrong with that, empty when nothing is.
        seconds: that it took.
    """

    time: str
    decision_id: str
    checkpoint_id: str
    shadow_id: str
    same: bool
    action: Mapping[str, Any] | None
    problem: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


class Shadow:
    """Decides beside the policy that acts, on what that one saw.

    Args:
        folder: of the candidate.
        encoder: whose features are at hand.

    Raises:
        CheckpointError: it is missing, damaged, or reads another encoder.
    """

    def __init__(self, folder: Path, encoder: Encoder | None) -> None:
        self.policy = Policy.load(folder, encoder)
        self.path = log_path(folder)

    def follow(
        self, made: Explanation, acting: str, frames: tuple[RGBD, ...], features: tuple[Features, ...]
    ) -> Shadowed:
        """Decide on the frames of a decision, and log it; nothing that goes wrong here is raised.

        Args:
            made: the decision that is acted on.
            acting: id of the checkpoint that made it.
            frames, features: it was made on.
        """
        start = time.perf_counter()
        action: PickPlace | None = None
        problem, same = "", False
        try:
            action = self.policy.decide(frames, features, Attempts(made.failed))
            problem = outside(action, self.policy.workspace)
            same = not problem and same_action(made.scene, made.action, action)
        except EmbodiedVisionError as error:
            problem = f"no decision: {error}"
        line = Shadowed(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            decision_id=made.action.decision_id,
            checkpoint_id=acting,
            shadow_id=self.policy.checkpoint_id,
            same=same,
            action=action.to_dict() if action is not None and action.is_finite() else None,
            problem=problem,
            seconds=round(time.perf_counter() - start, 4),
        )
        json_lines.append(self.path, line.to_dict())
        return line


@dataclass(frozen=True)
class Summary:
    """What a candidate did in the shadow.

    Attributes:
        decisions, same: logged, and the same as what was done.
        problems: decisions that broke a rule or did not come about.
        solved, solved_same: episodes that ended well, and those of them in which it would have done the same.
        failed: episodes that ended badly.
    """

    decisions: int
    same: int
    problems: int
    solved: int
    solved_same: int
    failed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def pairs(pointer: Pointer, candidate_id: str, store: EpisodeStore | None) -> Pairs | None:
    """Episodes in which a candidate decided in the shadow every time; None when there are none.

    Raises:
        BadInput: the log cannot be read.
    """
    lines = _lines(pointer, candidate_id)
    if not lines or store is None or not store.exists():
        return None
    names, ours, theirs = [], [], []
    for episode in store.select(task=pointer.task):
        ids = [episode.decisions.action(index).decision_id for index in range(len(episode.decisions))]
        if not outcome_known(episode) or not all(decision in lines for decision in ids):
            continue
        solved = is_solved(episode)
        names.append(episode.id)
        ours.append(solved and all(lines[decision]["same"] for decision in ids))
        theirs.append(solved)
    return Pairs(pointer.task, "shadow", names, ours, theirs) if names else None


def problems(pointer: Pointer, candidate_id: str) -> list[str]:
    """Hard rules that a candidate broke in the shadow, the first in words."""
    found = [f"{line['decision_id']}: {line['problem']}" for line in _lines(pointer, candidate_id).values()]
    found = [words for words in found if not words.endswith(": ")]
    return [f"in the shadow of decision {found[0]} ({len(found)} such decisions)"] if found else []


def summary(pointer: Pointer, candidate_id: str, store: EpisodeStore | None) -> Summary:
    """Figures of a candidate in the shadow.

    Raises:
        BadInput: the log cannot be read.
    """
    lines = list(_lines(pointer, candidate_id).values())
    counted = pairs(pointer, candidate_id, store)
    repeated = [] if counted is None else list(zip(counted.candidate, counted.baseline, strict=True))
    solved = [ours for ours, theirs in repeated if theirs]
    return Summary(
        decisions=len(lines),
        same=sum(line["same"] for line in lines),
        problems=sum(bool(line["problem"]) for line in lines),
        solved=len(solved),
        solved_same=sum(solved),
        failed=len(repeated) - len(solved),
    )


def _lines(pointer: Pointer, candidate_id: str) -> dict[str, dict[str, Any]]:
    """By decision; of several of the same the last one."""
    return {line["decision_id"]: line for line in json_lines.read(log_path(pointer.path(candidate_id)))}

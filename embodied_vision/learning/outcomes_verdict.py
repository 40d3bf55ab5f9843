"""What is said of the actions of a scene, by the cameras and by an operator, and what follows for the scene.

No network and no ROS: who goes on by verdicts need not load what makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Word = Literal["success", "failure", "unsure"]
Ask = Callable[[str], bool | None]


@dataclass(frozen=True)
class Verdict:
    """What is said about one action.

    Attributes:
        word: success, failure or unsure.
        probability: of success; NaN where nothing can be said.
        reason: why it is unsure, or who says so when it is not the cameras; empty otherwise.
    """

    word: Word
    probability: float
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; a probability that is none is null."""
        return {**asdict(self), "probability": _finite(self.probability)}

    def __str__(self) -> str:
        sure = f", probability {self.probability:.2f}" if math.isfinite(self.probability) else ""
        return f"{self.word}{sure}" + (f": {self.reason}" if self.reason else "")


NOT_JUDGED = Verdict("unsure", math.nan, "it was not carried out, or the work was broken off")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def at_least(needed: int, probabilities: Iterable[float]) -> float:
    """Probability that at least so many of some actions succeeded, taken as independent; NaN where one is unknown.

    Args:
        needed: 1 or more.
        probabilities: of success, of each action.
    """
    counts = [1.0] + [0.0] * needed  # of exactly 0, 1, … successes, and at the end of `needed` or more
    for p in probabilities:
        counts[needed] += counts[needed - 1] * p
        for k in range(needed - 1, 0, -1):
            counts[k] = counts[k] * (1 - p) + counts[k - 1] * p
        counts[0] *= 1 - p
    return counts[needed]


def conclude(words: Sequence[Word], needed: int) -> dict[str, Any]:
    """How a scene ended, as `solved` and `reward` of its outcome; empty where an action that is left open decides.

    Args:
        words: of the actions that were carried out.
        needed: successes that solve the scene.
    """
    successes, unsure = words.count("success"), words.count("unsure")
    if words and successes >= needed:
        return {"solved": True, "reward": 1.0}
    if words and successes + unsure < needed:
        return {"solved": False, "reward": round(successes / needed, 6)}
    return {}


@dataclass
class _Action:
    """A decision; `verdict` is None until it was carried out, `said` where no operator was asked or none answered."""

    decision_id: str
    verdict: Verdict | None = None
    said: bool | None = None


class Tally:
    """The actions of one scene in their order, with what is known of each.

    Args:
        needed: successful actions that solve the scene.
        classifier_id: whose verdicts they are.
    """

    def __init__(self, needed: int, classifier_id: str) -> None:
        self._needed = needed
        self._classifier_id = classifier_id
        self._actions: list[_Action] = []

    def decided(self, decision_id: str) -> None:
        """The next decision was made."""
        self._actions.append(_Action(decision_id))

    def judge(self, verdict: Verdict, ask: Ask) -> bool:
        """Take the verdict on the last decision, which was carried out. Returns whether an operator was asked.

        Args:
            verdict: on it.
            ask: asks an operator what the cameras do not tell; None when nobody answers.
        """
        action, unsure = self._actions[-1], verdict.word == "unsure"
        if unsure:
            action.said = ask(f"did decision {action.decision_id} succeed? ~/yes or ~/no; the cameras are {verdict}")
        action.verdict = verdict
        return unsure

    @property
    def is_up_to_date(self) -> bool:
        """Whether there is a verdict on the last decision."""
        return bool(self._actions) and self._actions[-1].verdict is not None

    @property
    def solved(self) -> bool:
        """Whether as many actions succeeded as are needed."""
        return self._words.count("success") >= self._needed

    @property
    def reward(self) -> float:
        """Share of the needed successes that there are, 0 … 1."""
        return min(1.0, round(self._words.count("success") / self._needed, 6))

    @property
    def unknown(self) -> str:
        """Why nobody knows how the scene stands; empty where it is known."""
        if self.solved:
            return ""
        for action in self._actions:
            if action.verdict is not None and action.verdict.word == "unsure" and action.said is None:
                return f"nobody knows whether decision {action.decision_id} succeeded: {action.verdict.reason}"
        return ""

    def logged(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """An episode's outcome with all that was said.

        Of an episode that was not broken off `solved` and `reward` are left out where nobody knows them.

        Args:
            outcome: as the loop of work has it.
        """
        done = [action for action in self._actions if action.verdict is not None]
        cameras = [action.verdict.word for action in done if action.verdict is not None]
        found: dict[str, Any] = {
            **outcome,
            "judged": {
                "classifier": self._classifier_id,
                "needed": self._needed,
                "decisions": [
                    {**(action.verdict or NOT_JUDGED).to_dict(), "decision_id": action.decision_id}
                    for action in self._actions
                ],
                "successes": cameras.count("success"),
                "failures": cameras.count("failure"),
                "unsure": cameras.count("unsure"),
            },
        }
        if done:
            found["source"] = "cameras" if all(action.said is None for action in done) else "operator"
            found["probability"] = _finite(at_least(self._needed, map(_probability, done)))
        if any(action.said is not None for action in done):
            found["earned"] = [None if action.said is None else float(action.said) for action in self._actions]
        if self.unknown and not outcome.get("aborted", False):
            found.pop("solved", None)
            found.pop("reward", None)
        return found

    @property
    def _words(self) -> list[Word]:
        return [_word(action) for action in self._actions if action.verdict is not None]


def _word(action: _Action) -> Word:
    if action.said is not None:
        return "success" if action.said else "failure"
    return "unsure" if action.verdict is None else action.verdict.word


def _probability(action: _Action) -> float:
    if action.said is not None:
        return float(action.said)
    return math.nan if action.verdict is None else action.verdict.probability

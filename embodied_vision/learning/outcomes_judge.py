"""A classifier of outcomes at work: verdicts on actions, how far to believe them, and labels of logged episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.edit import relabel
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning.calibrated import Reliability, reliability
from embodied_vision.learning.outcomes import Classifier
from embodied_vision.learning.outcomes_network import logits
from embodied_vision.learning.outcomes_verdict import Verdict, at_least, conclude
from embodied_vision.learning.outcomes_views import Transition, View, scene_of, transitions, view_of
from embodied_vision.learning.statistics import Interval, wilson
from embodied_vision.types import RGBD, PickPlace

LEAST_SEEN = 0.3
"""Where less of a crop is seen, nothing is said."""


@dataclass(frozen=True)
class Measured:
    """How well a classifier judges outcomes that it never saw.

    Attributes:
        outcomes: known ones.
        successes: of them.
        accuracy: share judged right at a probability of a half, with Wilson's interval.
        reliability: of the probabilities.
        unsure: share about which nothing is said.
        wrong_successes: of those called successes, the share that were none.
        wrong_failures: of those called failures, the share that were none.
        auc: probability that a success gets a higher one than a failure; NaN where there are not both.
    """

    outcomes: int
    successes: int
    accuracy: Interval
    reliability: Reliability
    unsure: Interval
    wrong_successes: Interval
    wrong_failures: Interval
    auc: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "auc": self.auc if math.isfinite(self.auc) else None}


class Judge:
    """A classifier at work.

    Args:
        classifier: the trained one.
        encoder: whose features it reads.

    Raises:
        CheckpointError: it was trained with another encoder.
    """

    def __init__(self, classifier: Classifier, encoder: Encoder) -> None:
        if encoder.encoder_id != classifier.encoder_id:
            raise CheckpointError(
                f"the outcome classifier of {classifier.task!r} reads encoder {classifier.encoder_id}, given "
                f"{encoder.encoder_id}; use its encoder, or train it again"
            )
        self.classifier = classifier
        self._encoder = encoder
        self._network = classifier.network()

    def judge(self, before: Sequence[RGBD], after: Sequence[RGBD], action: PickPlace) -> Verdict:
        """Whether an action did what it should.

        Args:
            before: frames that it was decided on, one a camera.
            after: frames since, with the arm away again.
            action: what was done.
        """
        scenes = [scene_of(frames, self._encoder, self.classifier.workspace) for frames in (before, after)]
        return self.verdicts([view_of(scenes[0], scenes[1], action)])[0]

    def verdicts(self, views: Sequence[View]) -> list[Verdict]:
        """What is said of each view."""
        probability = self.classifier.calibration.probability(logits(self._network, views))
        return [self._verdict(view, float(p)) for view, p in zip(views, probability, strict=True)]

    def _verdict(self, view: View, probability: float) -> Verdict:
        if not math.isfinite(probability):
            return Verdict("unsure", math.nan, "the features are not finite; check the encoder")
        if view.seen() < LEAST_SEEN:
            return Verdict("unsure", probability, f"only {100 * view.seen():.0f} % around pick or place are seen")
        if probability >= self.classifier.sure:
            return Verdict("success", probability)
        if probability <= 1 - self.classifier.sure:
            return Verdict("failure", probability)
        return Verdict("unsure", probability, "it looks like neither")

    def episode(self, episode: Episode, cache: Path | None = None) -> dict[int, Verdict]:
        """Verdicts by the number of the decision; unsure where no frame was logged after it, or it was not begun.

        Raises:
            BadInput: the episode is of another task.
        """
        if episode.task != self.classifier.task:
            raise BadInput(
                f"episode {episode.id} is of task {episode.task!r}, the classifier judges {self.classifier.task!r}"
            )
        found = transitions(episode, self._encoder, self.classifier.workspace, cache)
        said = dict(zip([_number(t) for t in found], self.verdicts([t.view for t in found]), strict=True))
        blind = Verdict("unsure", math.nan, "no frame was logged after it")
        idle = Verdict("unsure", math.nan, "the arm did not begin it")
        return {number: said.get(number, blind) if begun else idle for number, begun in enumerate(episode.begun)}

    def measure(self, held_out: Sequence[Transition]) -> Measured:
        """Compare with known outcomes.

        Raises:
            BadInput: none is known.
        """
        known = [t for t in held_out if t.succeeded is not None and t.view.is_finite()]
        if not known:
            raise BadInput(
                f"no known outcome of {self.classifier.task!r} is held out; give a store with episodes whose reward "
                "is logged"
            )
        happened = np.array([bool(t.succeeded) for t in known])
        verdicts = self.verdicts([t.view for t in known])
        probability = np.array([verdict.probability for verdict in verdicts])
        words = np.array([verdict.word for verdict in verdicts])
        right = int(((probability >= 0.5) == happened).sum())
        called, refused = words == "success", words == "failure"
        return Measured(
            outcomes=len(known),
            successes=int(happened.sum()),
            accuracy=wilson(right, len(known)),
            reliability=reliability(probability, happened),
            unsure=wilson(int((words == "unsure").sum()), len(known)),
            wrong_successes=wilson(int((called & ~happened).sum()), int(called.sum())),
            wrong_failures=wilson(int((refused & happened).sum()), int(refused.sum())),
            auc=_auc(probability, happened),
        )


def label(store: EpisodeStore, episode: Episode, judge: Judge, cache: Path | None = None) -> dict[str, Any]:
    """Write what the cameras say into an episode's outcome, as its entry `judged`; the history keeps the former one.

    Where nobody else said how it ended, neither in the stream `reward` nor by hand, `solved` and `reward` follow, with
    `source` and `probability`: solved where every action is called a success, unsolved where one is called a failure,
    and neither where one is unsure. Where the task node said how many successes solve the scene, those decide, and what
    it ended because nobody knew how the scene stood is not called unsolved. What the arm did not begin does not count.
    Returns the outcome as it is now.

    Raises:
        BadInput: the episode is of another task.
        EpisodeError: it cannot be changed.
    """
    verdicts = judge.episode(episode, cache)
    done = [verdict for verdict, begun in zip(verdicts.values(), episode.begun, strict=True) if begun]
    words = [verdict.word for verdict in done]
    judged: dict[str, Any] = {
        "classifier": judge.classifier.classifier_id,
        "decisions": [verdict.to_dict() for verdict in verdicts.values()],
        "successes": words.count("success"),
        "failures": words.count("failure"),
        "unsure": words.count("unsure"),
    }
    said = _needed(episode)
    if said is not None:
        judged["needed"] = said
    outcome: dict[str, Any] = {"judged": judged}
    nobody_said = "reward" not in episode.streams and "earned" not in episode.outcome
    if nobody_said and not episode.outcome.get("aborted", False):
        needed = said or len(words)
        ended = conclude(words, needed)
        cut_short = said is not None and "solved" not in episode.outcome  # it might have been solved yet
        if ended and (ended["solved"] or not cut_short):
            probability = at_least(needed, (verdict.probability for verdict in done))
            sure = probability if math.isfinite(probability) else None
            outcome |= {**ended, "source": "cameras", "probability": sure}
    relabel(store, episode.id, outcome)
    return {**episode.outcome, **outcome}


def _needed(episode: Episode) -> int | None:
    """How many successes solve the scene, where the task node said so."""
    judged = episode.outcome.get("judged")
    needed = judged.get("needed") if isinstance(judged, dict) else None
    return needed if isinstance(needed, int) and needed > 0 else None


def _number(transition: Transition) -> int:
    return int(transition.source.rpartition("/")[2])


def _auc(probability: NDArray[np.float64], happened: NDArray[np.bool_]) -> float:
    good, bad = probability[happened], probability[~happened]
    if not len(good) or not len(bad):
        return math.nan
    higher = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
    return float(higher)

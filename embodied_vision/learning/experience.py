"""What logged episodes teach, decision by decision: what to do, what not to do, and what an operator would have done.

A solved episode of the oracle teaches all that it did. Of a policy's own work an action teaches that earned something;
one that earned nothing is to be avoided: its pick, where the object is seen to stand as it stood, else its place. Where
no reward was logged, the verdicts of an outcome classifier stand in, weighted by how sure it is. What an operator
corrected counts as a demonstration, whatever became of the action itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embodied_vision import geometry
from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.corrections import Correction, corrections
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.learning.dataset import SOLVED_REWARD, Example, beside_each_other, load_dataset, to_example
from embodied_vision.learning.outcomes_views import EARNED, after_frames, earned
from embodied_vision.learning.seeds import split_of
from embodied_vision.policies.attempts import STANDS_M
from embodied_vision.types import Scene, Workspace

Kind = Literal["demonstration", "earned", "corrected", "failed"]
Part = Literal["pick", "place"]
BOTH: frozenset[Part] = frozenset({"pick", "place"})
DEMONSTRATORS = frozenset({"oracle"})
"""Policy ids whose solved episodes teach all that was done in them."""


@dataclass(frozen=True)
class Weights:
    """How much each kind of sample counts.

    Attributes:
        demonstration: of the oracle.
        earned: an action of a policy's own that earned something.
        corrected: by an operator.
        failed: an action that is to be avoided.
    """

    demonstration: float = 1.0
    earned: float = 0.5
    corrected: float = 1.0
    failed: float = 0.2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise BadInput(f"weight of what is {name} is {value}; give a number that is not negative")


@dataclass(frozen=True, eq=False)
class Sample:
    """An example with what it teaches.

    Attributes:
        example: as training takes it; of what was corrected, as it should have been.
        weight: factor on its loss, positive.
        sign: +1 to do so, −1 to avoid it.
        about: what the sign is about: the pick, the place or both.
        kind: where it comes from.
    """

    example: Example
    weight: float
    sign: Literal[1, -1]
    about: frozenset[Part]
    kind: Kind

    @property
    def source(self) -> str:
        """Episode id and number of the decision."""
        return self.example.source


def samples(
    store: EpisodeStore,
    task: str,
    encoder: Encoder | None,
    workspace: Workspace,
    *,
    episode_ids: Iterable[str] | None = None,
    weights: Weights | None = None,
    cache: Path | None = None,
    on_damaged: Callable[[EpisodeError], None] | None = None,
) -> list[Sample]:
    """Weighted samples of a task, in the order of the episodes and their decisions; none of an empty store.

    Scenes of validation and test teach nothing, corrected or not.

    Args:
        store: where the episodes lie.
        task: name of the task.
        encoder: computes the features; None trains without any.
        workspace: what to map.
        episode_ids: which episodes; all of the task when None.
        weights: how much each kind counts; a kind of weight 0 is left out.
        cache: as of `load_dataset`.
        on_damaged: told of each damaged episode, which is then left out; without it the error is raised.

    Raises:
        BadInput: an episode that was asked for is of another task.
        EpisodeError: an episode is damaged and `on_damaged` is None.
    """
    counts = weights or Weights()
    wanted = None if episode_ids is None else set(episode_ids)
    found: list[Sample] = []
    for episode in _episodes(store, task, wanted, on_damaged):
        try:
            if len(episode.decisions) and _may_teach(episode):
                found += _of_episode(episode, store, encoder, workspace, counts, cache)
        except EpisodeError as error:
            if on_damaged is None:
                raise
            on_damaged(error)
    return found


def _episodes(
    store: EpisodeStore, task: str, wanted: set[str] | None, on_damaged: Callable[[EpisodeError], None] | None
) -> Iterable[Episode]:
    if not store.exists():
        return
    if wanted is None:
        yield from store.select(task=task, on_damaged=on_damaged)
        return
    for episode_id in sorted(wanted):
        try:
            episode = store.open(episode_id)
        except EpisodeError as error:
            if on_damaged is None:
                raise
            on_damaged(error)
            continue
        if episode.task != task:
            raise BadInput(f"episode {episode_id} is of task {episode.task!r}, asked for {task!r}; leave it out")
        yield episode


def _may_teach(episode: Episode) -> bool:
    seed = episode.attributes.get("seed")
    return seed is None or split_of(int(seed)) == "train"


def _of_episode(
    episode: Episode,
    store: EpisodeStore,
    encoder: Encoder | None,
    workspace: Workspace,
    weights: Weights,
    cache: Path | None,
) -> list[Sample]:
    corrected = corrections(episode)
    said = [
        _said(episode, number, reward, weights) if begun else None
        for number, (reward, begun) in enumerate(zip(earned(episode), episode.begun, strict=True))
    ]
    if not corrected and not any(said):
        return []
    examples = load_dataset(store, episode.task, encoder, workspace, episode_ids=[episode.id], cache=cache).examples
    found: dict[int, Sample] = {}
    for number, example in enumerate(examples):
        if (correction := corrected.get(number)) is not None:
            example = _corrected(episode, number, example, correction)
            found[number] = Sample(example, weights.corrected, 1, BOTH, "corrected")
        elif (entry := said[number]) is not None:
            kind, weight = entry
            about = BOTH if kind != "failed" else _fault(episode, number, example)
            if about:
                found[number] = Sample(example, weight, -1 if kind == "failed" else 1, about, kind)
    found = {number: sample for number, sample in found.items() if sample.weight > 0}
    right = [number for number, sample in found.items() if sample.sign > 0]
    together = dict(zip(right, beside_each_other([found[number].example for number in right]), strict=True))
    alone: dict[str, Any] = {"elsewhere": np.empty((0, 2)), "waiting": ()}
    return [
        replace(sample, example=together[number] if number in together else replace(sample.example, **alone))
        for number, sample in found.items()
    ]


def _said(episode: Episode, number: int, reward: float | None, weights: Weights) -> tuple[Kind, float] | None:
    """What an action is and how much it counts; None where nobody can tell."""
    outcome = episode.outcome
    if outcome.get("aborted", False):
        return None
    solved = bool(outcome.get("solved", float(outcome.get("reward", 0.0)) > SOLVED_REWARD))
    if episode.policy_id in DEMONSTRATORS and solved:
        return "demonstration", weights.demonstration
    if reward is not None:
        if reward > EARNED:
            return "earned", weights.earned
        # Of a solved episode, what earned nothing by itself may have been needed all the same.
        return ("failed", weights.failed) if reward < -EARNED or not solved else None
    verdict = _verdict(episode, number)
    if verdict is None:
        return None
    word, probability = verdict
    if word == "success":
        return "earned", weights.earned * probability
    return ("failed", weights.failed * (1 - probability)) if word == "failure" else None


def _verdict(episode: Episode, number: int) -> tuple[str, float] | None:
    """Word and probability of an outcome classifier, see `outcomes_judge.label`."""
    judged = episode.outcome.get("judged")
    try:
        entry = judged["decisions"][number] if judged is not None else None
        return (
            None if entry is None or entry["probability"] is None else (str(entry["word"]), float(entry["probability"]))
        )
    except (KeyError, IndexError, TypeError, ValueError):
        return None  # decisions were cut away since, or somebody else wrote it


def _corrected(episode: Episode, number: int, example: Example, correction: Correction) -> Example:
    action = correction.apply(episode.decisions.action(number))
    return to_example(example.scene, action, example.source)


def _fault(episode: Episode, number: int, example: Example) -> frozenset[Part]:
    """Whether pick or place was wrong, from what is seen afterwards; nothing where nothing is seen."""
    frames = after_frames(episode, number)
    if not frames:
        return frozenset()
    after = geometry.fuse_scene(frames, [], example.scene.workspace)
    stands = _stands(example, after)
    return frozenset() if stands is None else frozenset({"pick"} if stands else {"place"})


def _stands(example: Example, after: Scene) -> bool | None:
    """Whether the picked object is seen where it was; None where its cells are not seen any more."""
    mask = example.segment.mask
    if not mask.any():
        return True  # nothing was there to be taken
    seen = mask & after.valid
    if not seen.any():
        return None
    return abs(float(np.median(after.height[seen] - example.scene.height[seen]))) < STANDS_M


def count(given: Sequence[Sample]) -> dict[str, int]:
    """How many samples of each kind there are."""
    kinds: tuple[Kind, ...] = ("demonstration", "earned", "corrected", "failed")
    return {kind: sum(sample.kind == kind for sample in given) for kind in kinds}

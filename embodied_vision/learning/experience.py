"""What logged episodes teach, decision by decision: what to do, what not to do, and what an operator would have done.

A solved episode of the oracle teaches all that it did. Of a policy's own work an action teaches that earned something.
One that the arm carried out and that earned nothing is to be avoided, where it is certain what was wrong with it: the
pick, where the object is seen to stand as it stood, for that helped nothing and nobody; else the place, but only in a
task of which every right action earns something at once, for elsewhere it may have been the first step of two. Where no
reward was logged, the verdicts of an outcome classifier stand in, weighted by how sure it is. What an operator
corrected counts as a demonstration, whatever became of the action itself. What the arm did not begin teaches nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from embodied_vision import geometry
from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.corrections import Correction, corrections
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.learning.dataset import (
    Example,
    beside_each_other,
    is_solved,
    load_decisions,
    may_teach,
    to_example,
)
from embodied_vision.learning.outcomes_views import EARNED, after_frames, earned
from embodied_vision.policies.attempts import STANDS_M
from embodied_vision.types import Scene, Workspace

Kind = Literal["demonstration", "earned", "corrected", "failed"]
Part = Literal["pick", "place"]
BOTH: frozenset[Part] = frozenset({"pick", "place"})
DEMONSTRATORS = frozenset({"oracle"})
"""Policy ids whose solved episodes teach all that was done in them."""
LOOKED_INTO, LEAST_KNOWN = 20, 5
"""Demonstrations that are asked whether a task pays at once, and decisions of theirs that must be known to tell."""
QUIET_NS, STILL_RAD = 100_000_000, 0.005
"""An arm stands that moved no joint by more in so long."""
BARE_CELLS = 1.5
"""How far around a pick heights are compared where no object is seen there."""


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
    at_once: bool | None = None,
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
        at_once: whether every right action of the task earns something by itself; when None, what `earns_at_once`
            says of the store.
        cache: as of `load_dataset`.
        on_damaged: told of each damaged episode, which is then left out; without it the error is raised.

    Raises:
        BadInput: an episode that was asked for is of another task.
        EpisodeError: an episode is damaged and `on_damaged` is None.
    """
    counts = weights or Weights()
    wanted = None if episode_ids is None else set(episode_ids)
    if at_once is None:
        at_once = counts.failed > 0 and earns_at_once(store, task)
    found: list[Sample] = []
    for episode in _episodes(store, task, wanted, on_damaged):
        try:
            if len(episode.decisions) and may_teach(episode.attributes):
                found += _of_episode(episode, store, encoder, workspace, counts, at_once, cache)
        except EpisodeError as error:
            if on_damaged is None:
                raise
            on_damaged(error)
    return found


def earns_at_once(store: EpisodeStore, task: str) -> bool:
    """Whether every right action of a task earns something by itself, as far as solved demonstrations in a store tell.

    Where one of theirs earned nothing, or what they earned is not known, nobody can say of an action that earned
    nothing that it was not needed.
    """
    known: list[bool] = []
    for demonstrator in ("", *DEMONSTRATORS) if store.exists() else ():
        solved = store.select(task, {"solved": True}, policy_id=demonstrator, on_damaged=lambda _: None)
        for episode in islice(solved, LOOKED_INTO):
            with suppress(EpisodeError):
                known += _earned_anything(episode)
    return len(known) >= LEAST_KNOWN and all(known)


def _earned_anything(episode: Episode) -> list[bool]:
    """Of each decision that the arm began whether it earned something, as far as that is known."""
    found: list[bool] = []
    for number, (reward, begun) in enumerate(zip(earned(episode), episode.begun, strict=True)):
        if begun and reward is not None:
            found.append(reward > EARNED)
        elif begun and (verdict := _verdict(episode, number)) is not None and verdict[0] != "unsure":
            found.append(verdict[0] == "success")
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


def _of_episode(
    episode: Episode,
    store: EpisodeStore,
    encoder: Encoder | None,
    workspace: Workspace,
    weights: Weights,
    at_once: bool,
    cache: Path | None,
) -> list[Sample]:
    corrected = corrections(episode)
    rewards = earned(episode)
    said = [
        _said(episode, number, reward, weights) if begun else None
        for number, (reward, begun) in enumerate(zip(rewards, episode.begun, strict=True))
    ]
    telling = {number for number, entry in enumerate(said) if entry is not None and entry[1] > 0} | set(corrected)
    if not telling:
        return []
    found: dict[int, Sample] = {}
    for number, example in load_decisions(store, episode, encoder, workspace, cache, numbers=telling).items():
        if (correction := corrected.get(number)) is not None:
            example = _corrected(episode, number, example, correction)
            found[number] = Sample(example, weights.corrected, 1, BOTH, "corrected")
        elif (entry := said[number]) is not None:
            kind, weight = entry
            lost = (rewards[number] or 0.0) < -EARNED
            about = BOTH if kind != "failed" else _fault(episode, number, example, at_once or lost)
            if about:
                found[number] = Sample(example, weight, -1 if kind == "failed" else 1, about, kind)
    found = {number: sample for number, sample in found.items() if sample.weight > 0}
    right = [number for number, sample in found.items() if sample.sign > 0]
    together = dict(zip(right, beside_each_other([found[number].example for number in right]), strict=True))
    return [
        replace(sample, example=together[number]) if number in together else sample for number, sample in found.items()
    ]


def _said(episode: Episode, number: int, reward: float | None, weights: Weights) -> tuple[Kind, float] | None:
    """What an action is and how much it counts; None where nobody can tell."""
    outcome = episode.outcome
    if outcome.get("aborted", False):
        return None
    if episode.policy_id in DEMONSTRATORS and bool(outcome.get("solved", is_solved(episode))):
        return "demonstration", weights.demonstration
    if reward is not None:
        return ("earned", weights.earned) if reward > EARNED else ("failed", weights.failed)
    verdict = _verdict(episode, number)
    if verdict is None:
        return None
    word, probability = verdict
    if word == "success":
        return "earned", weights.earned * probability
    return ("failed", weights.failed * (1 - probability)) if word == "failure" else None


def _verdict(episode: Episode, number: int) -> tuple[str, float] | None:
    """Word and probability of an outcome classifier, see `outcomes_judge.label`; by the decision's id, where given."""
    judged = episode.outcome.get("judged")
    try:
        entries = judged["decisions"] if judged is not None else []
        named = {each["decision_id"]: each for each in entries if "decision_id" in each}
        entry = named.get(episode.decisions.action(number).decision_id) if named else entries[number]
        return (
            None if entry is None or entry["probability"] is None else (str(entry["word"]), float(entry["probability"]))
        )
    except (KeyError, IndexError, TypeError, ValueError):
        return None  # decisions were cut away since, or somebody else wrote it


def _corrected(episode: Episode, number: int, example: Example, correction: Correction) -> Example:
    action = correction.apply(episode.decisions.action(number))
    return to_example(example.scene, action, example.source)


def _fault(episode: Episode, number: int, example: Example, at_once: bool) -> frozenset[Part]:
    """Whether pick or place was wrong, from what is seen afterwards; nothing where that is not certain."""
    if example.primitive != "pick_place":
        return frozenset()  # of what is dragged and pushed on every stroke may be needed, and nothing stands as before
    frames = after_frames(episode, number)
    if not frames or not _at_rest(episode, number):
        return frozenset()
    stands = _stands(example, geometry.fuse_scene(frames, [], example.scene.workspace))
    if stands:
        return frozenset({"pick"})
    return frozenset({"place"}) if stands is False and at_once else frozenset()


def _at_rest(episode: Episode, number: int) -> bool:
    """Whether the arm stood when the frames after a decision were taken.

    Decisions are made at rest. After the last one the joints tell, where they are logged: an episode may have been
    ended by hand in the middle of a motion.
    """
    if number + 1 < len(episode.decisions) or "joint_state" not in episode.streams:
        return True
    stamps, values = episode.stream("joint_state")
    if not len(values):
        return True
    late = values[stamps >= stamps[-1] - QUIET_NS, : values.shape[1] // 2]
    return bool((np.ptp(late, axis=0) < STILL_RAD).all())


def _stands(example: Example, after: Scene) -> bool | None:
    """Whether what was picked is seen where it was; None where its cells are not seen any more.

    Where no object is seen that could be told from what is around it, the cells at the pick stand for it.
    """
    scene, picked = example.scene, example.segment
    mask = picked.mask
    if not mask.any():
        rows, columns = np.indices(mask.shape)
        mask = np.hypot(rows - picked.anchor[0], columns - picked.anchor[1]) <= BARE_CELLS
    seen = mask & after.valid & scene.valid
    if not seen.any():
        return None
    return abs(float(np.median(after.height[seen] - scene.height[seen]))) < STANDS_M


def count(given: Sequence[Sample]) -> dict[str, int]:
    """How many samples of each kind there are."""
    kinds: tuple[Kind, ...] = ("demonstration", "earned", "corrected", "failed")
    return {kind: sum(sample.kind == kind for sample in given) for kind in kinds}

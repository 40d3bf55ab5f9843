"""What a round learns from: what is to be done, and what failed and is to be avoided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.learning.dataset import Dataset, Example, left_out_note, load_dataset
from embodied_vision.learning.environments import FIRST_RENDERER
from embodied_vision.learning.experience import Sample, Weights, samples
from embodied_vision.types import Workspace

MOST_FAILED = 30
"""Episodes of a round of which nothing but failures is learnt, the newest; they are held in memory as well."""


@dataclass(frozen=True)
class Lessons:
    """What episodes teach.

    Attributes:
        good: what is to be done; holds no example where there is none.
        failed: what is to be avoided.
    """

    good: Dataset
    failed: Sequence[Sample] = ()

    @property
    def episode_ids(self) -> list[str]:
        """Every episode that teaches anything, sorted."""
        return sorted({*self.good.episode_ids, *(episode_of(sample.source) for sample in self.failed)})


def lessons(
    store: EpisodeStore,
    task: str,
    encoder: Encoder | None,
    workspace: Workspace,
    *,
    whole: Iterable[str],
    judged: Iterable[str],
    failed: Iterable[str] = (),
    weights: Weights | None = None,
    at_once: bool | None = None,
) -> Lessons:
    """Read what episodes teach.

    Args:
        store: where they lie.
        task: they must all be of this task.
        encoder: computes the features; None trains without any.
        workspace: what to map.
        whole: episodes in which all that the arm did was right.
        judged: episodes of which each decision teaches what became of it, or what an operator made of it.
        failed: others of which the same is learnt, but that may be damaged: such a one is left out.
        weights, at_once: as of `experience.samples`.

    Raises:
        BadInput: an episode is of another task, or two renderers drew them.
        EpisodeError: one of `whole` or `judged` is damaged.
    """
    whole, judged = sorted(set(whole)), sorted(set(judged))
    episodes = [store.open(episode_id) for episode_id in (*whole, *judged)]
    begun = {episode.id: episode.begun for episode in episodes}
    for episode_id in sorted(set(failed) - set(begun)):
        with suppress(EpisodeError):
            episode = store.open(episode_id)
            begun[episode_id] = episode.begun
            episodes.append(episode)
    simulated = {e.id: int(e.attributes["seed"]) for e in episodes if e.attributes.get("seed") is not None}
    drawn = {str(e.attributes.get("renderer") or FIRST_RENDERER) for e in episodes if e.id in simulated}
    if len(drawn) > 1:
        raise BadInput(f"episodes of {task} were drawn by {' and '.join(sorted(drawn))}; log them with one renderer")
    examples: list[Example] = []
    if whole:
        examples += load_dataset(store, task, encoder, workspace, episode_ids=whole).examples
    given: list[Sample] = []
    for ids, on_damaged in ((judged, None), (sorted(set(begun) - {*whole, *judged}), _leave_out)):
        if ids:
            given += samples(
                store,
                task,
                encoder,
                workspace,
                episode_ids=ids,
                weights=weights,
                at_once=at_once,
                on_damaged=on_damaged,
            )
    examples += [sample.example for sample in given if sample.sign > 0]
    never = {f"{name}/{number}" for name, told in begun.items() for number, moved in enumerate(told) if not moved}
    used = {episode_of(example.source) for example in examples}
    good = Dataset(
        examples,
        sorted(used),
        task,
        encoder.encoder_id if encoder is not None else "",
        sorted(simulated[episode_id] for episode_id in used if episode_id in simulated),
        "".join(drawn),
        len(never - {example.source for example in examples}),  # what was corrected teaches all the same
    )
    return Lessons(good, [sample for sample in given if sample.sign < 0])


def _leave_out(_: EpisodeError) -> None:
    """Nothing depends on a failure that cannot be read."""


def episode_of(source: str) -> str:
    """Id of the episode of an example's or a sample's source."""
    return source.partition("/")[0]


def note(outcome: Mapping[str, Any]) -> str:
    """What a user is told, beside its decision, of what a round learnt from; empty where nothing is to be said.

    Args:
        outcome: as of `learn.Outcome.to_dict`.
    """
    failed, left_out = int(outcome.get("failed", 0)), int(outcome.get("left_out", 0))
    avoided = f"to be avoided: {failed} action{'s' if failed > 1 else ''} that failed" if failed else ""
    return "; ".join(filter(None, [avoided, left_out_note(left_out)]))

"""Deciding again, offline, on what was logged: the same checkpoint must come to the same action, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.region import encode_frame
from embodied_vision.episodes.reader import Decision, Episode
from embodied_vision.errors import EmbodiedVisionError, EpisodeError
from embodied_vision.geometry import yaw_of
from embodied_vision.policies.attempts import Attempts
from embodied_vision.policies.policy import Policy
from embodied_vision.types import FloatArray, PickPlace


@dataclass(frozen=True)
class Comparison:
    """A logged decision beside the one made again on the same frames.

    Attributes:
        index: of the decision in its episode.
        decision_id: of the logged decision.
        identical: poses, scores and primitive are equal bit for bit.
        same_ids: the logged decision was made by this checkpoint on this encoder and artefact; a difference is then
            a fault.
        pick_mm, place_mm: distances of the poses; None where no decision came about again.
        pick_deg, place_deg: differences of their yaws.
        error: why no decision came about again, or "".
    """

    index: int
    decision_id: str
    identical: bool
    same_ids: bool
    pick_mm: float | None = None
    place_mm: float | None = None
    pick_deg: float | None = None
    place_deg: float | None = None
    error: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether replay failed: it should have been identical and is not."""
        return self.same_ids and not self.identical


@dataclass(frozen=True, eq=False)
class Redecided:
    """A logged decision and what came of it now.

    Attributes:
        comparison: by how much they differ.
        logged: the logged action.
        again: the action that came about now, None where none did.
    """

    comparison: Comparison
    logged: PickPlace
    again: PickPlace | None


def replay_decisions(episode: Episode, policy: Policy, encoder: Encoder) -> Iterator[Comparison]:
    """The comparisons of `redecide` alone."""
    return (step.comparison for step in redecide(episode, policy, encoder))


def redecide(episode: Episode, policy: Policy, encoder: Encoder) -> Iterator[Redecided]:
    """Decide again on the lossless frames of every decision, in as many threads as the log names.

    Raises:
        EpisodeError: the episode holds no decisions, or a frame is damaged.
    """
    if len(episode.decisions) == 0:
        raise EpisodeError(f"episode {episode.id} holds no decisions; replay one that a policy acted in")
    threads = torch.get_num_threads()
    try:
        for index in range(len(episode.decisions)):
            yield _compare(index, episode.decisions[index], policy, encoder)
    finally:
        torch.set_num_threads(threads)


def _compare(index: int, decision: Decision, policy: Policy, encoder: Encoder) -> Redecided:
    info, logged = decision.info, decision.action
    same_ids = (
        info.get("checkpoint_id") == policy.checkpoint_id
        and info.get("encoder_id") == encoder.encoder_id
        and info.get("artefact_id") == encoder.artefact_id
    )
    try:
        again = _decide(decision, policy, encoder)
    except EmbodiedVisionError as error:
        failed = Comparison(index, logged.decision_id, False, same_ids, error=str(error))
        return Redecided(failed, logged, None)
    comparison = Comparison(
        index,
        logged.decision_id,
        _identical(logged, again),
        same_ids,
        pick_mm=_distance_mm(logged.pick, again.pick),
        place_mm=_distance_mm(logged.place, again.place),
        pick_deg=_turn_deg(logged.pick, again.pick),
        place_deg=_turn_deg(logged.place, again.place),
    )
    return Redecided(comparison, logged, again)


def _decide(decision: Decision, policy: Policy, encoder: Encoder) -> PickPlace:
    info: Any = decision.info
    if info.get("frames_missing") or not decision.frames:
        raise EpisodeError(f"the frames {info.get('frames_missing', 'of this decision')} were not logged")
    torch.set_num_threads(int(info.get("encoder_threads") or 1))
    features = [encode_frame(encoder, frame) for frame in decision.frames]
    torch.set_num_threads(int(info.get("threads") or 1))
    return policy.decide(decision.frames, features, Attempts(info.get("failed", ())))


def _identical(one: PickPlace, other: PickPlace) -> bool:
    poses = (one.pick, other.pick), (one.place, other.place)
    return (
        all(np.asarray(a, float).tobytes() == np.asarray(b, float).tobytes() for a, b in poses)
        and dict(one.scores) == dict(other.scores)
        and one.primitive == other.primitive
        and one.stamp_ns == other.stamp_ns
    )


def _distance_mm(one: FloatArray, other: FloatArray) -> float:
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3]) * 1000)


def _turn_deg(one: FloatArray, other: FloatArray) -> float:
    turn = np.degrees(yaw_of(one) - yaw_of(other))
    return float(abs((turn + 180) % 360 - 180))

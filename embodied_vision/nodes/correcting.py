"""`~/correct` of the recorder: what an operator would have done instead of a decision, kept with its episode."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from embodied_vision.episodes.corrections import CORRECTIONS, Correction, Target, keep, make_correction
from embodied_vision.episodes.frames import RawFrame, depth_mm
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.geometry import depth_to_metres
from embodied_vision.nodes.deferred import Answer, DeferredTrigger
from embodied_vision.nodes.lifecycle import ManagedNode
from embodied_vision.types import RGBD, PickPlace

NEWEST = 8
"""Decisions that can be corrected through the service; earlier ones by `embodied-vision episodes correct`."""
Note = Callable[[str, Any], None]


@dataclass
class LoggedEpisode:
    """An episode whose decisions may be corrected.

    Attributes:
        note: sets an attribute of it while it is open; None from the moment it ends.
        id: once it is closed, empty before.
    """

    note: Note | None
    id: str = ""
    _given: list[dict[str, Any]] = field(default_factory=list)

    def take(self, correction: Correction) -> None:
        """Keep a correction with the open episode: in its journal, so that a crash does not lose it."""
        assert self.note is not None
        self._given.append(correction.to_dict())
        self.note(CORRECTIONS, list(self._given))


class Corrections:
    """Keeps the newest decisions and what they were made on at hand. Maps and files are a thread's work."""

    def __init__(self, node: ManagedNode) -> None:
        """Declare parameters and service on a node that is being made."""
        node.param("correct_decision", "", "id of the decision that ~/correct is about; empty for the newest one")
        node.param(
            "correct_pick", "", "where it should have picked, X,Y,YAW or X,Y,YAW,Z: m, degrees; empty: as it was"
        )
        node.param("correct_place", "", "where it should have let go, as correct_pick; empty: as it was")
        node.param("correct_by", "", "who says so; ~/correct refuses nobody's corrections")
        node.param("correct_note", "", "words to keep with the correction")
        self._node = node
        self._newest: OrderedDict[str, tuple[LoggedEpisode, PickPlace, tuple[RawFrame, ...]]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "corrections")
        DeferredTrigger(node, "~/correct", self._correct)

    def add(self, episode: LoggedEpisode, action: PickPlace, frames: Sequence[RawFrame]) -> None:
        """A decision was logged."""
        self._newest[action.decision_id] = (episode, action, tuple(frames))
        while len(self._newest) > NEWEST:
            self._newest.popitem(last=False)

    def _correct(self, answer: Answer) -> None:
        value, newest = self._node.value, self._newest
        decision_id = value("correct_decision") or next(reversed(newest), "")
        if not newest:
            answer.give(False, "no decision was logged yet")
            return
        if decision_id not in newest:
            remedy = "`embodied-vision episodes correct` takes it"
            answer.give(False, f"decision {decision_id!r} is not among the newest {NEWEST}; {remedy}")
            return
        episode, action, frames = newest[decision_id]
        if episode.note is None and not episode.id:
            answer.give(False, "its episode is just being closed; try again")
            return
        try:
            targets = [
                Target.parse(value(name), name) if value(name) else None for name in ("correct_pick", "correct_place")
            ]
        except BadInput as error:
            answer.give(False, str(error))
            return
        who, words, store = value("correct_by"), value("correct_note"), EpisodeStore(value("store"))

        def make() -> Correction:
            seen = [RGBD(f.color, depth_to_metres(depth_mm(f)), f.camera, f.stamp_ns) for f in frames]
            return make_correction(action, seen, *targets, who=who, how="service", note=words)

        def work() -> None:
            try:
                made = make()
            except EmbodiedVisionError as error:
                refused = str(error)
                self._node.post(lambda: answer.give(False, refused))
                return
            self._node.post(lambda: self._keep(episode, made, store, answer))

        self._thread.submit(work)

    def _keep(self, episode: LoggedEpisode, made: Correction, store: EpisodeStore, answer: Answer) -> None:
        """On the node's thread, which alone knows whether the episode is open."""
        if episode.note is not None:
            episode.take(made)
            answer.give(True, made.decision_id)
            return

        def work() -> None:
            try:
                keep(store, episode.id, made)
            except EmbodiedVisionError as error:
                refused = str(error)
                self._node.post(lambda: answer.give(False, refused))
                return
            self._node.post(lambda: answer.give(True, made.decision_id))

        if not episode.id:
            answer.give(False, "its episode is just being closed; try again")
            return
        self._thread.submit(work)

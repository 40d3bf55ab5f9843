"""What the gate judges by: scenes run by both policies, logged episodes that both decide again, and what they cost."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embodied_vision.calibration import read_cameras
from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.reader import Decision, Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import EmbodiedVisionError
from embodied_vision.learning.dataset import SOLVED_REWARD, to_example
from embodied_vision.learning.gate import Cost, Pairs
from embodied_vision.learning.scene_results import SceneResult
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.attempts import Attempts
from embodied_vision.policies.folder import WEIGHTS
from embodied_vision.policies.policy import Policy
from embodied_vision.types import FloatArray, PickPlace, Scene, Workspace

SAME_OBJECT_M = 0.03
"""Picks whose objects' centroids lie nearer to each other take the same object."""
SAME_PLACE_M = 0.015
SAME_YAW_RAD = math.radians(15)
_TIMED = 9


def simulated(
    task: str, candidate: Sequence[SceneResult], baseline: Sequence[SceneResult], *, is_new: bool = True
) -> Pairs:
    """Results of both on the same scenes, in the same order."""
    return Pairs(
        task=task,
        source="simulation",
        names=[str(result.seed) for result in candidate],
        candidate=[result.solved for result in candidate],
        baseline=[result.solved for result in baseline],
        candidate_score=[result.reward for result in candidate],
        baseline_score=[result.reward for result in baseline],
        is_new=is_new,
    )


def broken_rules(candidate: Sequence[SceneResult], baseline: Sequence[SceneResult], workspace: Workspace) -> list[str]:
    """Hard rules that a candidate broke in simulation, in words.

    An action that is not finite or lies outside the workspace is one too many; the guard may refuse it no more often
    than the policy in use.
    """
    wild = [
        f"scene {result.seed}: {problem}"
        for result in candidate
        for action in result.actions
        if (problem := outside(PickPlace.from_dict(action), workspace))
    ]
    found = [f"candidate {wild[0]}" + (f", and {len(wild) - 1} more" if len(wild) > 1 else "")] if wild else []
    ours, theirs = ([result for result in results if result.refused] for results in (candidate, baseline))
    if len(ours) > len(theirs):
        found.append(
            f"the guard refused actions of the candidate in {len(ours)} scenes, of the policy in use in {len(theirs)}; "
            f"scene {ours[0].seed}: {ours[0].refused[0]}"
        )
    return found


def outside(action: PickPlace, workspace: Workspace) -> str:
    """What is wrong with where an action goes, empty when nothing is."""
    if not action.is_finite():
        return "an action is not finite"
    for name, pose in (("pick", action.pick), ("place", action.place)):
        for axis, value, (low, high) in zip("xy", pose[:2, 3], (workspace.x, workspace.y), strict=True):
            if not low <= value <= high:
                return f"{name} at {axis} = {value:.3f} m lies outside the workspace, {low:g} to {high:g} m"
    return ""


def same_action(scene: Scene, one: PickPlace, other: PickPlace) -> bool:
    """Whether two actions on a scene take the same object to the same place, wherever on it they pick.

    Turns of an object that look alike count as the same.
    """
    if one.primitive != other.primitive:
        return False
    if one.primitive != "pick_place":
        return _apart_m(one.pick, other.pick) < SAME_PLACE_M and _apart_m(one.place, other.place) < SAME_PLACE_M
    first, second = to_example(scene, one), to_example(scene, other)
    cell_m = scene.workspace.cell
    turn = 2 * math.pi / first.fold
    yaw = abs(math.remainder(first.yaw_rad - second.yaw_rad, turn))
    return (
        float(np.linalg.norm(first.segment.anchor - second.segment.anchor)) * cell_m < SAME_OBJECT_M
        and float(np.linalg.norm(first.place - second.place)) * cell_m < SAME_PLACE_M
        and yaw < SAME_YAW_RAD
    )


def _apart_m(one: FloatArray, other: FloatArray) -> float:
    return float(np.linalg.norm(one[:2, 3] - other[:2, 3]))


@dataclass(frozen=True)
class Reader:
    """A policy and the encoder that it reads.

    Attributes:
        policy: the head.
        encoder: None when it reads none.
    """

    policy: Policy
    encoder: Encoder | None

    @classmethod
    def load(cls, folder: Path, encoder: Encoder | None) -> Reader:
        """Read a checkpoint's folder; `encoder` is used where it reads one.

        Raises:
            CheckpointError: it is missing, damaged, or was trained with another encoder.
        """
        checkpoint = checkpoints.load(folder)
        eyes = encoder if checkpoint.encoder_id else None
        return cls(Policy(checkpoint, eyes), eyes)

    def decide(self, decision: Decision) -> tuple[PickPlace, Scene]:
        """Decide again on the frames of a logged decision."""
        eyes = self.encoder
        features = [eyes.encode(frame.color, frame.stamp_ns) for frame in decision.frames] if eyes is not None else []
        made = self.policy.explain(decision.frames, features, Attempts(decision.info.get("failed", ())))
        return made.action, made.scene


@dataclass(frozen=True)
class Redone:
    """An episode as a policy would have acted in it.

    Attributes:
        repeats: whether it takes every decision as it was logged.
        problems: hard rules that it broke, in words.
    """

    repeats: bool
    problems: Sequence[str]


def redo(episode: Episode, reader: Reader) -> Redone:
    """Decide again wherever a policy decided in an episode; one that comes to no decision does not repeat it."""
    repeats, problems = True, []
    for decision in episode.decisions:
        try:
            again, scene = reader.decide(decision)
        except EmbodiedVisionError:
            repeats = False
            continue
        problem = outside(again, reader.policy.workspace)
        if problem:
            problems.append(f"episode {episode.id}: {problem}")
        repeats = repeats and not problem and same_action(scene, decision.action, again)
    return Redone(repeats, problems)


def outcome_known(episode: Episode) -> bool:
    """Whether it is known how an episode ended."""
    return "reward" in episode.outcome and not episode.outcome.get("aborted", False) and len(episode.decisions) > 0


def is_solved(episode: Episode) -> bool:
    """Whether it ended well."""
    return float(episode.outcome.get("reward", 0.0)) > SOLVED_REWARD and not episode.outcome.get("aborted", False)


def logged(
    task: str,
    store: EpisodeStore,
    episode_ids: Sequence[str],
    candidate: Reader,
    baseline: Reader,
    report: Callable[[str], None] | None = None,
) -> tuple[Pairs | None, list[str]]:
    """How both decide again in logged episodes whose outcome is known; and the hard rules that the candidate broke.

    A policy is taken to succeed where it repeats every decision of a success. What would come of a decision that
    differs is not known, and counts as a failure: a candidate that succeeds in another way seems worse than it is, and
    none is taken for better than it is.

    Args:
        task: of the episodes.
        store: where they lie.
        episode_ids: neither of the two learnt from any.
        candidate, baseline: the two.
        report: called with the id of every episode that is done.

    Raises:
        EpisodeError: an episode is damaged.
    """
    names: list[str] = []
    ours: list[bool] = []
    theirs: list[bool] = []
    broken: list[str] = []
    for episode in _known(store, episode_ids):
        solved = is_solved(episode)
        again = redo(episode, candidate)
        names.append(episode.id)
        ours.append(solved and again.repeats)
        theirs.append(solved and redo(episode, baseline).repeats)
        broken += again.problems
        if report is not None:
            report(episode.id)
    return (Pairs(task, "logged", names, ours, theirs) if names else None), [f"candidate, {p}" for p in broken[:1]]


def _known(store: EpisodeStore, episode_ids: Sequence[str]) -> Iterator[Episode]:
    return (episode for episode in map(store.open, episode_ids) if outcome_known(episode))


def cost(
    candidate: Path, baseline: Path, encoder: Encoder | None, baseline_encoder: Encoder | None
) -> tuple[Cost, Cost]:
    """What a decision of each takes on the same made-up map, timed in turns so that a busy machine slows both.

    Where the two read different encoders, encoding an image of the simulated cell's size is part of the decision.

    Raises:
        CheckpointError: one cannot be loaded, or was trained with another encoder than is given for it.
    """
    readers = [Reader.load(candidate, encoder), Reader.load(baseline, baseline_encoder)]
    encodes = readers[0].policy.encoder_id != readers[1].policy.encoder_id
    times: list[list[float]] = [[], []]
    scenes = [_made_up(reader) for reader in readers]
    camera, rng = read_cameras()[0], np.random.default_rng(0)
    for turn in range(_TIMED + 1):
        image = rng.integers(0, 256, (camera.height, camera.width, 3), np.uint8)  # another one: some encoders reuse
        for which in (0, 1) if turn % 2 else (1, 0):
            eyes = readers[which].encoder if encodes else None
            start = time.perf_counter()
            if eyes is not None:
                eyes.encode(image)
            readers[which].policy.explain_scene(scenes[which])
            if turn:  # the first one warms up
                times[which].append(1000 * (time.perf_counter() - start))
    ours, theirs = (
        Cost(statistics.median(taken), (folder / WEIGHTS).stat().st_size)
        for taken, folder in zip(times, (candidate, baseline), strict=True)
    )
    return ours, theirs


def _made_up(reader: Reader) -> Scene:
    """A table with two boxes."""
    workspace, features = reader.policy.workspace, reader.policy.checkpoint.config.features
    rows, columns = workspace.shape
    rng = np.random.default_rng(0)
    height = np.zeros((rows, columns), np.float32)
    color = np.full((rows, columns, 3), 120, np.uint8)
    for left in (columns // 4, columns // 2):
        height[rows // 3 : rows // 2, left : left + columns // 10] = 0.04
        color[rows // 3 : rows // 2, left : left + columns // 10] = (200, 40, 40)
    grid = rng.normal(size=(rows, columns, features)).astype(np.float32) if features else None
    return Scene(color, height, grid, np.ones((rows, columns), bool), workspace, 0)


def held_out_of_both(ids: Sequence[str], *policies: Policy) -> list[str]:
    """Episodes that none of these policies learnt from."""
    learnt = {episode for policy in policies for episode in policy.checkpoint.training.get("episodes", ())}
    return [episode for episode in ids if episode not in learnt]

"""What is seen of a decision's outcome: the map around pick and place, before the motion and after it.

The frames before are those that the decision was made on; the frames after are those of the next decision or, after the
last one, the last that were logged. What it earned comes from the stream `reward`, where a simulator or an operator
wrote one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from embodied_vision import geometry
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.region import encode_frame
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import EpisodeError
from embodied_vision.learning.seeds import split_of
from embodied_vision.policies import maps
from embodied_vision.types import RGBD, PickPlace, Scene, Workspace

CELLS = 56
"""Edge of the crops in cells: a square of 40 cells fits in at any turn."""
POOL = 2
"""Cells along each axis that share a feature."""
EARNED = 1e-6
"""An action that earned more was a success."""
LAYOUT = 1
"""Counts the ways in which views are laid out; a cache of another one is made anew."""
SIMULATED = ("oracle", "practice")
"""Sources of episodes whose rewards are those of single actions."""

Part = Literal["fit", "calibrate", "held-out"]


@dataclass(frozen=True, eq=False)
class View:
    """Crops around the pick (0) and the place (1), before (0) and after (1).

    Attributes:
        geometry: float16 (2, 2, 5, CELLS, CELLS): color against the map's exposure, height, valid.
        features: float16 (2, 2, D, CELLS / POOL, CELLS / POOL), 0 where nothing is seen.
    """

    geometry: NDArray[np.float16]
    features: NDArray[np.float16]

    def is_finite(self) -> bool:
        """Whether everything that was seen is a number."""
        return bool(np.isfinite(self.geometry).all() and np.isfinite(self.features).all())

    def seen(self) -> float:
        """Least share of cells seen, of the four crops."""
        return float(self.geometry[:, :, 4].astype(np.float32).mean((2, 3)).min())


@dataclass(frozen=True, eq=False)
class Transition:
    """A decision and what came of it.

    Attributes:
        view: what was seen.
        earned: reward that it earned, None where nobody said.
        source: episode id and number of the decision.
        scene: what tells its scene from others: the seed of a simulated one, else the episode's id.
    """

    view: View
    earned: float | None
    source: str
    scene: str

    @property
    def succeeded(self) -> bool | None:
        """Whether it earned anything, None where nobody said."""
        return None if self.earned is None else self.earned > EARNED


def view_of(before: Scene, after: Scene, action: PickPlace) -> View:
    """Crop both maps around both poses of an action.

    Args:
        before: map with features that was decided on.
        after: map with features of the same workspace once the arm is away again.
        action: what was done in between.
    """
    cells = [geometry.xy_to_cell(pose[:2, 3], before.workspace) for pose in (action.pick, action.place)]
    shapes, features = [], []
    for cell in cells:
        cell = np.where(np.isfinite(cell), cell, -1e4)
        for scene in (before, after):
            # Whole pairs of cells, so that pooled features lie under the same crop.
            first = np.floor((cell - (CELLS - 1) / 2) / POOL + 0.5).astype(int) * POOL
            part = Scene(
                color=maps.crop_array(scene.color, first, CELLS),
                height=maps.crop_array(scene.height, first, CELLS),
                features=None,
                valid=maps.crop_array(scene.valid, first, CELLS),
                workspace=scene.workspace,
                stamp_ns=scene.stamp_ns,
            )
            shapes.append(maps.stack_geometry(part, maps.Exposure.of(scene)).numpy())
            assert scene.features is not None
            dense = maps.crop_array(scene.features, first, CELLS)
            features.append(maps.pool_features(dense, part.valid, POOL).transpose(2, 0, 1))
    size = CELLS // POOL
    return View(
        geometry=np.stack(shapes).reshape(2, 2, maps.GEOMETRY_CHANNELS, CELLS, CELLS).astype(np.float16, order="C"),
        features=np.stack(features).reshape(2, 2, -1, size, size).astype(np.float16, order="C"),
    )


def scene_of(frames: Sequence[RGBD], encoder: Encoder, workspace: Workspace) -> Scene:
    """The map of some frames, one a camera, with their features."""
    return geometry.fuse_scene(frames, [encode_frame(encoder, f) for f in frames], workspace)


def earned(episode: Episode) -> list[float | None]:
    """What each decision of an episode earned, None where nobody said.

    What an operator says counts first: the outcome's entry `earned`, a list of one number a decision, null where that
    one is left to others. Else it is what was logged before the next decision that the arm began. Demonstrations log
    what an action earned, a running cell the score so far: which of them a stream holds is told by the episode's total.
    """
    stamps = [int(stamp) for stamp in episode.decisions.stamps_ns]
    found = _logged_rewards(episode, stamps)
    by_hand = _by_hand(episode.outcome.get("earned"), len(stamps))
    return [said if said is not None else reward for said, reward in zip(by_hand, found, strict=True)]


def _logged_rewards(episode: Episode, stamps: Sequence[int]) -> list[float | None]:
    if "reward" not in episode.streams or not stamps:
        return [None] * len(stamps)
    times, values = episode.stream("reward")
    rewards = values[:, 0]
    total = float(episode.outcome.get("reward", 0.0))
    per_action = episode.attributes.get("source") in SIMULATED or (
        math.isclose(float(rewards.sum()), total, abs_tol=1e-6)
        and not math.isclose(float(rewards[-1]), total, abs_tol=1e-6)
    )
    found: list[float | None] = [None] * len(stamps)
    begun = [number for number, was_begun in enumerate(episode.begun) if was_begun]
    for number, following in zip(begun, [*begun[1:], None][: len(begun)], strict=True):
        stamp = stamps[number]
        until = stamps[following] if following is not None else np.iinfo(np.int64).max
        within = (times > stamp) & (times <= until)
        if not within.any() or not np.isfinite(rewards[within]).all():
            continue
        if per_action:
            found[number] = float(rewards[within].sum())
        else:
            before = rewards[times <= stamp]
            found[number] = float(rewards[within][-1] - (before[-1] if len(before) else 0.0))
    return found


def _by_hand(said: Any, count: int) -> list[float | None]:
    """What was said of each decision; nothing of any where one entry cannot be used."""
    nothing: list[float | None] = [None] * count
    if not isinstance(said, list) or len(said) != count:
        return nothing
    for each in said:
        if each is None:
            continue
        if isinstance(each, bool) or not isinstance(each, int | float) or not math.isfinite(each):
            return nothing
    return [None if each is None else float(each) for each in said]


def after_frames(episode: Episode, number: int) -> tuple[RGBD, ...]:
    """The frames after a decision, one a camera; empty where none was logged."""
    decisions = episode.decisions
    if number + 1 < len(decisions):
        return decisions[number + 1].frames
    stamp = int(decisions.stamps_ns[number])
    found = []
    for camera in episode.cameras:
        frames = episode.frames(camera)
        if not len(frames) or int(frames.stamps_ns[-1]) <= stamp:
            return ()
        found.append(frames[-1])
    return tuple(found)


def transitions(
    episode: Episode, encoder: Encoder, workspace: Workspace, cache: Path | None = None
) -> list[Transition]:
    """The decisions of an episode that frames after were logged of, in their order.

    Args:
        episode: closed one of a task that is done by picks and places.
        encoder: whose features are seen.
        workspace: what to map.
        cache: folder for what was computed, which may be deleted at any time; None keeps nothing.

    Raises:
        EpisodeError: its data are damaged.
        EncoderError: the encoder cannot take the images.
    """
    views = _cached(episode, encoder, workspace, cache)
    rewards = earned(episode)
    scene = f"{episode.task}/{episode.attributes.get('seed', episode.id)}"
    return [Transition(view, rewards[number], f"{episode.id}/{number}", scene) for number, view in views.items()]


def logged(
    store: EpisodeStore,
    task: str,
    encoder: Encoder,
    workspace: Workspace,
    cache: Path | None = None,
    on_damaged: Callable[[EpisodeError], None] | None = None,
) -> Iterator[tuple[Episode, list[Transition]]]:
    """The transitions of every episode of a task, oldest first.

    Args:
        store: where they lie; an empty one yields none.
        task: name of the task.
        encoder, workspace, cache: as of `transitions`.
        on_damaged: told of each damaged episode, which is then left out; without it the error is raised.
    """
    for episode in store.select(task=task, on_damaged=on_damaged) if store.exists() else iter(()):
        try:
            found = transitions(episode, encoder, workspace, cache)
        except EpisodeError as error:
            if on_damaged is None:
                raise
            on_damaged(error)
            continue
        yield episode, found


def _cached(episode: Episode, encoder: Encoder, workspace: Workspace, cache: Path | None) -> dict[int, View]:
    if cache is None:
        return _views(episode, encoder, workspace)
    identity = [LAYOUT, encoder.encoder_id, workspace.to_dict(), episode.decisions_digest(), episode.closed_ns]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / "outcomes" / f"{episode.id}-{key}.safetensors"
    try:
        stored = load_file(path)
        return {
            int(number): View(stored["geometry"][i], stored["features"][i])
            for i, number in enumerate(stored["numbers"])
        }
    except (FileNotFoundError, SafetensorError, KeyError):
        views = _views(episode, encoder, workspace)
    tensors: dict[str, NDArray[Any]] = {"numbers": np.array(list(views), np.int64)}
    if views:
        tensors["geometry"] = np.stack([view.geometry for view in views.values()])
        tensors["features"] = np.stack([view.features for view in views.values()])
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{uuid.uuid4().hex}")
    try:
        save_file(tensors, staging)
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)
    return views


def _views(episode: Episode, encoder: Encoder, workspace: Workspace) -> dict[int, View]:
    decisions, found = episode.decisions, dict[int, View]()
    before: Scene | None = None
    for number in range(len(decisions)):
        decision = decisions[number]
        frames = after_frames(episode, number)
        if not decision.frames or not frames or decision.action.primitive == "grasp":
            before = None
            continue
        before = before if before is not None else scene_of(decision.frames, encoder, workspace)
        after = scene_of(frames, encoder, workspace)
        found[number] = view_of(before, after, decision.action)
        before = after if number + 1 < len(decisions) else None
    return found


def part_of(episode: Episode) -> Part:
    """What an episode is for. Scenes of validation calibrate, those of test are held out; of all others, three fifths
    are learnt from, a fifth calibrates, and a fifth is held out, drawn by the scene: none is in two parts.
    """
    seed = episode.attributes.get("seed")
    split = "train" if seed is None else split_of(int(seed))
    if split != "train":
        return "calibrate" if split == "validation" else "held-out"
    name = f"{episode.task}/{episode.id if seed is None else seed}"
    drawn = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
    return "fit" if drawn < 0.6 else "calibrate" if drawn < 0.8 else "held-out"

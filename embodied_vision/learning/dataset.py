"""Demonstrations as training examples: fused scenes, cached on disk, with the object and the place they teach."""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from embodied_vision import geometry
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.region import encode_frame
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.schema import DECISIONS_BEGUN
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.environments import FIRST_RENDERER
from embodied_vision.learning.seeds import split_of
from embodied_vision.policies.maps import Normalisation, pool_features, require_poolable
from embodied_vision.policies.networks import NetworkConfig
from embodied_vision.policies.segments import Segment, fold, place_support, point_at, segment_at
from embodied_vision.types import PickPlace, Primitive, Scene, Workspace

POOL = NetworkConfig.coarse_pool
SOLVED_REWARD = 0.99
"""An episode teaches when its total reward, in [0, 1], lies above this."""
SAME_HEIGHT_M = 0.004
"""Heights at which objects are let go count as the same when their central 90 % spread no further."""
SAME_COLOR = 40
"""Of 255: an object whose cells differ less, in every channel, from a later picture has stayed where it was."""


@dataclass(frozen=True, eq=False)
class Example:
    """One decision of a demonstration, in cells of the map.

    Attributes:
        scene: what was seen; features may be float16.
        segment: the object that was picked.
        place: (2,) fractional cell where the object's anchor went.
        yaw_rad: turn of the object.
        fold: so many turns of it are alike.
        release_m: how far above the seen support the object was let go.
        tip_m: heights of the tool's tip at the two poses, in the base frame.
        primitive: what was done with the two poses.
        elsewhere: (M, 2) fractional cells of other places of the same episode: where this object did not go.
        waiting: objects that are picked later in the episode and stand here already where they are picked then.
        source: episode id and number of the decision.
        pooled_features: float16 (h, w, D), mean of the features over the seen ones of `POOL` × `POOL` cells.
    """

    scene: Scene
    segment: Segment
    place: NDArray[np.float64]
    yaw_rad: float
    release_m: float
    tip_m: tuple[float, float]
    primitive: Primitive = "pick_place"
    elsewhere: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    waiting: Sequence[Segment] = ()
    fold: int = 1
    source: str = ""
    pooled_features: NDArray[np.float16] | None = None


def to_example(scene: Scene, action: PickPlace, source: str = "") -> Example:
    """Read a demonstrated action on its scene; a rigid object's centroid stands for wherever it was picked."""
    pick = geometry.xy_to_cell(action.pick[:2, 3], scene.workspace)
    place = geometry.xy_to_cell(action.place[:2, 3], scene.workspace)
    rigid = action.primitive == "pick_place"
    yaw = geometry.yaw_of(action.place) - geometry.yaw_of(action.pick) if rigid else 0.0
    segment = segment_at(scene, pick) if rigid else point_at(scene, pick)
    c, s = math.cos(yaw), math.sin(yaw)
    arm = segment.anchor - pick
    anchor_place = place + np.array([c * arm[0] - s * arm[1], s * arm[0] + c * arm[1]])
    thickness_m = segment.top_m - segment.support_m
    release_m = float(action.place[2, 3]) - thickness_m - place_support(scene, segment, anchor_place, yaw)
    return Example(
        scene=scene,
        segment=segment,
        place=anchor_place,
        yaw_rad=math.remainder(yaw, 2 * math.pi),
        release_m=release_m,
        tip_m=(float(action.pick[2, 3]), float(action.place[2, 3])),
        primitive=action.primitive,
        fold=fold(segment) if rigid else 1,
        source=source,
        pooled_features=_pool_features(scene),
    )


def _pool_features(scene: Scene) -> NDArray[np.float16] | None:
    """Once for each example: features are smoother than the map, so turning the pooled ones loses nothing."""
    if scene.features is None:
        return None
    require_poolable(scene.valid.shape, POOL)
    return pool_features(scene.features, scene.valid, POOL).astype(np.float16)


@dataclass(frozen=True)
class Dataset:
    """Examples of one task.

    Attributes:
        examples: in the order of their episodes.
        episode_ids: the episodes they come from, sorted.
        task: their task.
        encoder_id: whose features they carry, empty for none.
        scene_seeds: of the simulated ones among the episodes, sorted.
        renderer: who drew the simulated ones, empty when all are real.
        left_out: decisions of these episodes that the arm never began, which are no examples therefore.
    """

    examples: Sequence[Example]
    episode_ids: Sequence[str]
    task: str
    encoder_id: str
    scene_seeds: Sequence[int] = ()
    renderer: str = ""
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of the features over the seen cells of up to 64 scenes."""
        first = self.examples[0].scene.features
        if first is None:
            return Normalisation.identity(0)
        step = max(1, len(self.examples) // 64)
        cells = [e.scene.features[e.scene.valid][::7] for e in self.examples[::step] if e.scene.features is not None]
        values = np.concatenate(cells).astype(np.float64)
        std = np.maximum(values.std(0), 1e-3 * max(float(values.std()), 1e-6))
        return Normalisation(values.mean(0).astype(np.float32), std.astype(np.float32))

    def release_m(self) -> float:
        """Median height above their support at which the demonstrations let go."""
        return float(np.median([example.release_m for example in self.examples]))

    def hang_m(self) -> float | None:
        """How far the tip was above what carries the object when it let go, where that was always the same.

        None where it followed from the thickness that is seen, which is told by the smaller spread: the sides of
        a disk on a stack of disks cannot be seen, but all are as thick.
        """
        release_m = np.array([example.release_m for example in self.examples])
        hang_m = release_m + [example.segment.top_m - example.segment.support_m for example in self.examples]
        if _spread(release_m) <= max(_spread(hang_m), SAME_HEIGHT_M):
            return None
        return float(np.median(hang_m))

    def tip_m(self) -> tuple[float, float]:
        """Median heights of the tool's tip at the two poses of the demonstrations, m."""
        pick_m, place_m = np.median([example.tip_m for example in self.examples], axis=0)
        return float(pick_m), float(place_m)

    @property
    def primitive(self) -> Primitive:
        """What the demonstrations do with the two poses of an action."""
        return self.examples[0].primitive

    def digest(self) -> str:
        """16 hex digits that name the data: episodes, encoder and task."""
        text = json.dumps([self.task, self.encoder_id, list(self.episode_ids), len(self.examples)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _spread(values: NDArray[np.float64]) -> float:
    low, high = np.percentile(values, [5, 95])
    return float(high - low)


def left_out_note(count: int) -> str:
    """What a user is told of so many decisions that are no examples; nothing of none."""
    if not count:
        return ""
    return f"left out: {count} decision{'s' if count > 1 else ''} that the arm refused or never began"


def renderer_of(training: Mapping[str, Any]) -> str:
    """Who drew what a checkpoint learnt from, by the `training` section of its manifest."""
    return str(training.get("renderer") or FIRST_RENDERER)


def teaching_ids(store: EpisodeStore, task: str) -> list[str]:
    """Ids of the solved episodes of a task, oldest first, but for those of validation and test scenes."""
    return [episode.id for episode in store.select(task=task) if teaches(episode)]


def teaches(episode: Episode) -> bool:
    """Whether an episode is a demonstration: solved by what the arm did, and not of a validation or test scene."""
    acted = episode.attributes.get(DECISIONS_BEGUN) != []
    return acted and is_solved(episode) and may_teach(episode.attributes)


def is_solved(episode: Episode) -> bool:
    """Whether nothing was left to do at its end."""
    outcome = episode.outcome
    return float(outcome.get("reward", 0.0)) > SOLVED_REWARD and not outcome.get("aborted", False)


def may_teach(attributes: Mapping[str, Any]) -> bool:
    """Whether it is no validation or test scene. Scenes of a simulator carry their seed; a real cell has none."""
    seed = attributes.get("seed")
    return seed is None or split_of(int(seed)) == "train"


def load_dataset(
    store: EpisodeStore,
    task: str,
    encoder: Encoder | None,
    workspace: Workspace,
    *,
    episode_ids: Iterable[str],
    cache: Path | None = None,
) -> Dataset:
    """Fuse, encode and cache every decision of the given episodes, of which those that the arm began are examples.

    What the arm refused, or never began for another reason, did not bring about how the episode ended. An episode that
    says nothing about it, a simulated or an older one, has begun all of its decisions.

    Args:
        store: where they lie.
        task: they must all be of this task.
        encoder: computes the features; None trains without any.
        workspace: what to map.
        episode_ids: which episodes.
        cache: folder for fused scenes, keyed by encoder and workspace; may be deleted at any time. Beside the
            episodes when not given.

    Raises:
        BadInput: no decision is left to learn from, an episode is of another task, or two renderers drew them.
    """
    ids = sorted(episode_ids)
    examples: list[Example] = []
    seeds: set[int] = set()
    drawn: dict[str, int] = {}
    left_out = 0
    for episode_id in ids:
        episode = store.open(episode_id)
        if episode.task != task:
            raise BadInput(f"episode {episode_id} is of task {episode.task!r}, asked for {task!r}; leave it out")
        if (seed := episode.attributes.get("seed")) is not None:
            seeds.add(int(seed))
            renderer = episode.attributes.get("renderer") or FIRST_RENDERER
            drawn[renderer] = drawn.get(renderer, 0) + 1
        told = episode.begun
        begun = [number for number, was_begun in enumerate(told) if was_begun]
        left_out += len(told) - len(begun)
        demonstrated = load_decisions(store, episode, encoder, workspace, cache, numbers=begun)
        examples += beside_each_other(list(demonstrated.values()))
    if not examples:
        refused = f" and holds a decision that the arm began ({left_out} were never begun)" if left_out else ""
        raise BadInput(
            f"no demonstration of {task!r} in {store.path} ended with reward > {SOLVED_REWARD}{refused}; "
            f"make some: embodied-vision collect --task {task} --output {store.path}"
        )
    if len(drawn) > 1:
        counts = " and ".join(f"{count} by {name}" for name, count in sorted(drawn.items()))
        raise BadInput(
            f"demonstrations of {task!r} in {store.path} were drawn {counts}, and a policy learns one renderer's "
            "pictures; collect with one --renderer into a store of its own"
        )
    encoder_id = encoder.encoder_id if encoder is not None else ""
    return Dataset(examples, ids, task, encoder_id, sorted(seeds), "".join(drawn), left_out)


def load_decisions(
    store: EpisodeStore,
    episode: Episode,
    encoder: Encoder | None,
    workspace: Workspace,
    cache: Path | None = None,
    *,
    numbers: Collection[int] | None = None,
) -> dict[int, Example]:
    """Decisions of an episode by their number, each by itself, whether or not the arm began them.

    Args:
        store, encoder, workspace, cache: as of `load_dataset`.
        episode: whose.
        numbers: which; all when None.
    """
    folder = (cache if cache is not None else store.path / "cache") / _cache_key(encoder, workspace)
    index = _read_index(episode, encoder, workspace, folder / f"{episode.id}.json")
    return {
        number: to_example(
            _read_scene(folder / f"{episode.id}-{number}.safetensors", workspace, int(action["stamp_ns"])),
            PickPlace.from_dict(action),
            f"{episode.id}/{number}",
        )
        for number, action in enumerate(index["actions"])
        if numbers is None or number in numbers
    }


def beside_each_other(episode: Sequence[Example]) -> list[Example]:
    """The examples of one episode, each knowing the places of the others and the objects of the later ones."""
    places = np.array([example.place for example in episode]).reshape(-1, 2)
    return [
        replace(
            example,
            elsewhere=np.delete(places, i, axis=0),
            waiting=[later.segment for later in episode[i + 1 :] if _waits(example, later)],
        )
        for i, example in enumerate(episode)
    ]


def _waits(example: Example, later: Example) -> bool:
    """Whether the object of a later decision is seen where it will be picked, and is not the one picked now."""
    mask = later.segment.mask
    if not mask.any() or (mask & example.segment.mask).any():
        return False
    higher = np.abs(example.scene.height[mask] - later.scene.height[mask])
    other = np.abs(example.scene.color[mask].astype(int) - later.scene.color[mask]).max(-1)
    seen = example.scene.valid[mask] & (higher < SAME_HEIGHT_M) & (other < SAME_COLOR)
    return bool(seen.mean() > 0.9)


def _cache_key(encoder: Encoder | None, workspace: Workspace) -> str:
    identity = [encoder.encoder_id if encoder is not None else "", workspace.to_dict()]
    return "scenes-" + hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _read_index(episode: Episode, encoder: Encoder | None, workspace: Workspace, marker: Path) -> dict[str, Any]:
    """What the marker says; the cache is filled first where it was not, or for decisions that were changed since."""
    digest = episode.decisions_digest()
    if marker.is_file():
        index: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        if index.get("decisions_sha256") == digest:
            return index
    _fill_cache(episode, encoder, workspace, marker, digest)
    return dict(json.loads(marker.read_text(encoding="utf-8")))


def _fill_cache(
    episode: Episode, encoder: Encoder | None, workspace: Workspace, marker: Path, decisions_sha256: str
) -> None:
    """One file a decision, then the marker that says they are all there."""
    marker.parent.mkdir(parents=True, exist_ok=True)
    actions: list[dict[str, Any]] = []
    for number, decision in enumerate(episode.decisions):
        features = [encode_frame(encoder, f) for f in decision.frames] if encoder is not None else []
        scene = geometry.fuse_scene(decision.frames, features, workspace)
        tensors: dict[str, NDArray[Any]] = {"color": scene.color, "height": scene.height, "valid": scene.valid}
        if scene.features is not None:
            tensors["features"] = scene.features.astype(np.float16)
        target = marker.with_name(f"{episode.id}-{number}.safetensors")
        staging = target.with_name(f".{uuid.uuid4().hex}")
        save_file(tensors, staging)
        os.replace(staging, target)
        actions.append({**decision.action.to_dict(), "stamp_ns": scene.stamp_ns})
    staging = marker.with_name(f".{uuid.uuid4().hex}")
    index = {"actions": actions, "decisions_sha256": decisions_sha256}
    staging.write_text(json.dumps(index), encoding="utf-8")
    os.replace(staging, marker)


def _read_scene(path: Path, workspace: Workspace, stamp_ns: int) -> Scene:
    tensors = load_file(path)
    return Scene(
        color=tensors["color"],
        height=tensors["height"],
        features=tensors.get("features"),
        valid=tensors["valid"],
        workspace=workspace,
        stamp_ns=stamp_ns,
    )

"""What a policy knows: the scenes and actions of its training data, and how unusual a new one is beside them.

A scene is described by mean and spread of its encoder features and colors over the cells that are seen, an action by
where it picks and places. Half of the episodes give mean and principal axes, the other half the distances that are
usual (Mahalanobis; what lies off the axes counts by its mean there). So the share of usual distances that are as large
is a valid p value: for what is drawn as the training data were, it is at most α with probability α (split conformal,
Vovk et al., "Algorithmic Learning in a Random World", 2005).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from embodied_vision import geometry
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.policies import folder as folders
from embodied_vision.types import PickPlace, Scene

if TYPE_CHECKING:
    from embodied_vision.learning.dataset import Dataset

FORMAT = "embodied-vision-known-1"
KEPT_VARIANCE = 0.95
LEAST_EPISODES = 10
STRIDE = 3
"""Every so many cells along each axis describe a scene."""

Vector = NDArray[np.float64]


def describe_scene(scene: Scene) -> Vector:
    """(2 D + 8,) mean and spread of features and colors over the seen cells, mean height and share of seen cells."""
    every = (slice(None, None, STRIDE), slice(None, None, STRIDE))
    valid = scene.valid[every]
    parts: list[Any] = []
    if scene.features is not None:
        parts.append(scene.features[every][valid].astype(np.float64))
    parts += [scene.color[every][valid].astype(np.float64) / 255]
    values = np.concatenate(parts, axis=1) if valid.any() else np.zeros((1, sum(part.shape[1] for part in parts)))
    height = float(scene.height[every][valid].mean()) if valid.any() else 0.0
    return np.concatenate([values.mean(0), values.std(0), [10 * height, float(valid.mean())]])


def describe_action(action: PickPlace) -> Vector:
    """(6,) x and y of pick and place in m, and the turn between them as cosine and sine, a tenth each."""
    turn = geometry.yaw_of(action.place) - geometry.yaw_of(action.pick)
    return np.array([*action.pick[:2, 3], *action.place[:2, 3], 0.1 * np.cos(turn), 0.1 * np.sin(turn)], float)


def score_of(action: PickPlace) -> float:
    """The least of the probabilities that a policy gave its decision; NaN where it gave none."""
    given = [value for value in action.scores.values() if math.isfinite(value) and 0 <= value <= 1]
    return min(given, default=math.nan)


@dataclass(frozen=True, eq=False)
class Reference:
    """Vectors of one kind as they usually are.

    Attributes:
        mean: (K,) of the first half.
        axes: (C, K) principal ones.
        variance: (C + 1,) along each axis, and of what lies off them.
        distances: sorted (N,), of the second half.
    """

    mean: Vector
    axes: Vector
    variance: Vector
    distances: Vector

    @classmethod
    def fit(cls, vectors: ArrayLike, groups: Sequence[str]) -> Reference:
        """Learn what is usual.

        Args:
            vectors: (N, K).
            groups: of each, the episode that it comes from; all of an episode go to the same half.

        Raises:
            BadInput: of fewer than `LEAST_EPISODES` episodes, or some that are not finite.
        """
        values, names = np.asarray(vectors, float), sorted(set(groups))
        if len(names) < LEAST_EPISODES:
            raise BadInput(f"{len(names)} episodes say too little about what is usual; {LEAST_EPISODES} are needed")
        if not np.isfinite(values).all():
            bad = sorted({group for group, v in zip(groups, values, strict=True) if not np.isfinite(v).all()})
            raise BadInput(f"episodes {', '.join(bad[:3])} hold numbers that are not finite; check the encoder")
        order = np.random.default_rng(len(names)).permutation(len(names))
        first = {names[i] for i in order[: len(names) // 2]}
        chosen = np.array([group in first for group in groups])
        fitted, usual = values[chosen], values[~chosen]
        mean = fitted.mean(0)
        _, singular, axes = np.linalg.svd(fitted - mean, full_matrices=False)
        power = singular**2 / max(len(fitted) - 1, 1)
        total = float(power.sum())
        count = int(np.searchsorted(np.cumsum(power), KEPT_VARIANCE * total) + 1) if total > 0 else 1
        count = min(count, max(1, len(fitted) // 3), len(power))
        floor = max(1e-6 * total, 1e-12)
        # As seen by vectors that the axes were not fitted to, which have more off them.
        off = usual - mean - (usual - mean) @ axes[:count].T @ axes[:count]
        variance = np.maximum([*power[:count], float((off**2).sum(1).mean())], floor)
        made = cls(mean, axes[:count], variance, np.zeros(0))
        return cls(mean, axes[:count], variance, np.sort([made.distance(vector) for vector in usual]))

    def distance(self, vector: ArrayLike) -> float:
        """How far a vector (K,) lies from what is usual; infinite where it is not finite.

        Raises:
            BadInput: it has another length.
        """
        value = np.asarray(vector, float)
        if value.shape != self.mean.shape:
            raise BadInput(f"described by {value.shape[0]} numbers, known are {len(self.mean)}; fit it again")
        if not np.isfinite(value).all():
            return float("inf")
        centred = value - self.mean
        along = self.axes @ centred
        off = centred - along @ self.axes
        return float(np.sqrt(np.sum(along**2 / self.variance[:-1]) + np.sum(off**2) / self.variance[-1]))

    def p_value(self, vector: ArrayLike) -> float:
        """Share of usual vectors that are as far away, in (0, 1]; with the new one among them."""
        count = len(self.distances)
        further = count - int(np.searchsorted(self.distances, self.distance(vector), side="left"))
        return (further + 1) / (count + 1)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All numbers, to be stored under a name."""
        return {f"{name}.{key}": torch.from_numpy(np.ascontiguousarray(value)) for key, value in vars(self).items()}

    @classmethod
    def from_tensors(cls, name: str, tensors: Mapping[str, Tensor]) -> Reference:
        """Read what `tensors` made.

        Raises:
            KeyError: something is missing.
        """
        return cls(*(tensors[f"{name}.{key}"].double().numpy() for key in ("mean", "axes", "variance", "distances")))


@dataclass(frozen=True, eq=False)
class Known:
    """What a policy knows.

    Attributes:
        checkpoint_id: the policy.
        encoder_id: whose features describe a scene.
        task: of the training data.
        episodes: they are.
        scenes, actions: what is usual.
    """

    checkpoint_id: str
    encoder_id: str
    task: str
    episodes: Sequence[str]
    scenes: Reference
    actions: Reference = field(repr=False)

    @classmethod
    def of(cls, dataset: Dataset, actions: Sequence[PickPlace], checkpoint_id: str) -> Known:
        """From the data that a policy was trained on.

        Args:
            dataset: its examples, with what they say.
            actions: of each example.
            checkpoint_id: the policy.

        Raises:
            BadInput: too few episodes, or numbers that are not finite.
        """
        groups = [example.source.split("/")[0] for example in dataset.examples]
        scenes = np.stack([describe_scene(example.scene) for example in dataset.examples])
        acted = np.stack([describe_action(action) for action in actions])
        return cls(
            checkpoint_id,
            dataset.encoder_id,
            dataset.task,
            tuple(dataset.episode_ids),
            Reference.fit(scenes, groups),
            Reference.fit(acted, groups),
        )


def save(known: Known, folder: Path) -> None:
    """Write it beside `folder` and rename it into place."""
    about = {"checkpoint_id": known.checkpoint_id, "encoder_id": known.encoder_id, "task": known.task}
    manifest = {"format": FORMAT, **about, "episodes": list(known.episodes)}
    card = f"# What policy {known.checkpoint_id} knows\n\nScenes and actions of {len(known.episodes)} episodes.\n"
    folders.write(folder, {**known.scenes.tensors("scenes"), **known.actions.tensors("actions")}, manifest, card)


def load(folder: Path) -> Known:
    """Read it after every file's sha256 was checked.

    Raises:
        CheckpointError: it is missing, damaged or of another format.
    """
    manifest = folders.read_manifest(folder, FORMAT, "record of what a policy knows")
    tensors = folders.read_weights(folder, manifest)
    try:
        return Known(
            checkpoint_id=str(manifest["checkpoint_id"]),
            encoder_id=str(manifest["encoder_id"]),
            task=str(manifest["task"]),
            episodes=tuple(map(str, manifest["episodes"])),
            scenes=Reference.from_tensors("scenes", tensors),
            actions=Reference.from_tensors("actions", tensors),
        )
    except (KeyError, TypeError) as error:
        path = folder / folders.MANIFEST
        raise CheckpointError(f"{path} is incomplete ({error!r}); fit it again: `learn drift fit`") from error


def beside(checkpoint: Path) -> Path:
    """Where it lies unless told otherwise: next to the policy's folder."""
    folder = checkpoint.resolve()
    return folder.with_name(folder.name + ".known")

"""Labelled grasps from an episode store, with the maps that they were made on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embodied_vision import geometry
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.region import encode_frame
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.grasp_configuration import Variation
from embodied_vision.learning.seeds import split_of
from embodied_vision.policies import grasp_maps, maps
from embodied_vision.policies.grasp_network import GraspNet
from embodied_vision.policies.maps import Normalisation
from embodied_vision.types import RGBD, Features, PickPlace, Scene, Workspace

LABELLED = "success"
"""What a decision's info holds when it is a labelled grasp."""
FINE_PX = 200
"""Images with more rows than this are learnt from at half their resolution too, so that either camera will do."""


@dataclass(frozen=True, eq=False)
class GraspScene:
    """A scene with the grasps that were tried in it.

    Attributes:
        views: its map as seen by the camera, and by one of half the resolution where there is one.
        episode_id: where it comes from.
        cells: (N, 2) fractional map cells of the tips.
        yaws_rad: (N,) of the jaw.
        heights_m: (N,) of the tips.
        lifts_m: (N,) heights that the tips were raised to.
        success: (N,) bool.
    """

    views: tuple[Scene, ...]
    episode_id: str
    cells: NDArray[np.float64]
    yaws_rad: NDArray[np.float64]
    heights_m: NDArray[np.float64]
    lifts_m: NDArray[np.float64]
    success: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GraspDataset:
    """Scenes with labelled grasps.

    Attributes:
        scenes: the scenes.
        task: name of the task.
        workspace: of the maps.
        renderers: who drew the scenes.
    """

    scenes: tuple[GraspScene, ...]
    task: str
    workspace: Workspace
    renderers: tuple[str, ...]

    @property
    def attempts(self) -> int:
        """Number of labelled grasps."""
        return sum(len(scene.success) for scene in self.scenes)

    @property
    def successes(self) -> int:
        """How many of them lifted an object."""
        return int(sum(scene.success.sum() for scene in self.scenes))

    def digest(self) -> str:
        """16 hex digits that tell this data from any other."""
        digest = hashlib.sha256(repr(self.workspace.to_dict()).encode())
        for scene in self.scenes:
            digest.update(f"{scene.episode_id} {len(scene.success)} {len(scene.views)}\n".encode())
        return digest.hexdigest()[:16]

    def lift_m(self) -> float:
        """Height that grasps are lifted to: the median."""
        return float(np.median(np.concatenate([scene.lifts_m for scene in self.scenes])))

    def normalisation(self) -> Normalisation:
        """Of the encoder features, over all seen cells."""
        first = self.scenes[0].views[0].features
        if first is None:
            return Normalisation.identity(0)
        cells = [s.views[0].features[s.views[0].valid] for s in self.scenes if s.views[0].features is not None]
        everything = np.concatenate(cells).astype(np.float32)
        return Normalisation(everything.mean(0), np.maximum(everything.std(0), 1e-3))

    def parted(self, share: float) -> tuple[GraspDataset, GraspDataset]:
        """The scenes without, and with only, every so many-th, so that the second part has about `share` of them.

        Neither part is empty where there are two scenes.
        """
        every = min(max(2, round(1 / share)), max(2, len(self.scenes)))
        kept = tuple(s for k, s in enumerate(self.scenes) if k % every != every - 1)
        return replace(self, scenes=kept), replace(self, scenes=self.scenes[every - 1 :: every])


def to_scene(views: Sequence[Scene], attempts: Sequence[tuple[PickPlace, bool]], episode_id: str = "") -> GraspScene:
    """A scene from its maps and what was tried in it."""
    poses = np.array([action.pick for action, _ in attempts]).reshape(-1, 4, 4)
    return GraspScene(
        views=tuple(views),
        episode_id=episode_id,
        cells=geometry.xy_to_cell(poses[:, :2, 3], views[0].workspace),
        yaws_rad=np.array([geometry.yaw_of(pose) for pose in poses]),
        heights_m=poses[:, 2, 3],
        lifts_m=np.array([action.place[2, 3] for action, _ in attempts]),
        success=np.array([success for _, success in attempts], bool),
    )


def load_grasps(
    store: EpisodeStore, task: str, encoder: Encoder | None, workspace: Workspace, most: int | None = None
) -> GraspDataset:
    """All labelled grasps of a task, but those of validation and test scenes; what a guard refused teaches nothing.

    Args:
        store: where they are.
        task: name of the task.
        encoder: computes features, None for none.
        workspace: what to map.
        most: grasps to take at most, those of the oldest scenes.

    Raises:
        BadInput: there are none.
    """
    scenes: list[GraspScene] = []
    renderers: set[str] = set()
    left = most if most is not None else np.inf
    for episode in _labelled(store, task):
        attempts = [
            (decision.action, bool(decision.info[LABELLED]))
            for decision in episode.decisions
            if decision.action.primitive == "grasp" and LABELLED in decision.info and "refused" not in decision.info
        ]
        if not attempts or left < 1:
            continue
        attempts = attempts[: int(min(left, len(attempts)))]
        left -= len(attempts)
        scenes.append(to_scene(_views(episode.decisions[0].frames, encoder, workspace), attempts, episode.id))
        renderers.add(str(episode.attributes.get("renderer", "")))
    if not scenes:
        raise BadInput(
            f"no labelled grasps of {task!r} in {store.path}; make some: python -m embodied_vision_sim.grasp_labels "
            f"--output {store.path}"
        )
    return GraspDataset(tuple(scenes), task, workspace, tuple(sorted(renderers)))


def _labelled(store: EpisodeStore, task: str) -> Iterator[Episode]:
    for episode in sorted(store.select(task), key=lambda episode: episode.id):
        seed = episode.attributes.get("seed")
        if seed is None or split_of(int(seed)) == "train":
            yield episode


def _views(frames: Sequence[RGBD], encoder: Encoder | None, workspace: Workspace) -> list[Scene]:
    resolutions = [list(frames)]
    if frames[0].camera.height > FINE_PX:
        resolutions.append([grasp_maps.halved(frame) for frame in frames])
    return [grasp_maps.fuse(seen, _features(seen, encoder), workspace) for seen in resolutions]


def _features(frames: Sequence[RGBD], encoder: Encoder | None) -> list[Features]:
    return [encode_frame(encoder, frame) for frame in frames] if encoder is not None else []


@dataclass(frozen=True, eq=False)
class Batch:
    """Attempts as the network sees them.

    Attributes:
        views: (N, C, S, S) turned so that the jaw closes along the columns.
        points: (N, 2) float, the tip in fractional cells of its view.
        depths: (N, K) weight of each depth, at most 1 in all; 0 where the tip's height is none of them.
        success: (N,) float.
    """

    views: Tensor
    points: Tensor
    depths: Tensor
    success: Tensor


def depth_weights(
    scene: Scene, cells: NDArray[np.float64], heights_m: NDArray[np.float64], depths_m: Sequence[float], floor_m: float
) -> NDArray[np.float64]:
    """Which depths below the local top the tips had, (N, K): linear between neighbours, shared where they coincide."""
    rows, columns = np.clip(np.floor(cells + 0.5).astype(int), 0, np.array(scene.valid.shape) - 1).T
    candidates = grasp_maps.tip_heights(grasp_maps.top_map(scene)[rows, columns], depths_m, floor_m).T
    spacing = float(np.diff(np.sort(depths_m)).max()) if len(depths_m) > 1 else 0.01
    weights: NDArray[np.float64] = np.maximum(0.0, 1.0 - np.abs(candidates - heights_m[:, None]) / spacing)
    return weights / np.maximum(1.0, weights.sum(1, keepdims=True))


def view_of(
    stack: Tensor, cell: NDArray[np.float64], yaw_rad: float, offset: NDArray[np.float64], size: int
) -> tuple[Tensor, NDArray[np.float64]]:
    """A view (C, size, size) in which the jaw closes along the columns, and the tip's place (2,) in its cells.

    Args:
        stack: (C, H, W) the map.
        cell: (2,) fractional cell of the tip.
        yaw_rad: of the jaw.
        offset: (2,) of the tip from the view's middle, in cells of the view.
        size: edge in cells.
    """
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    centre = cell - np.array([[c, -s], [s, c]]) @ offset
    return maps.turn(stack, centre, np.array([yaw_rad]), size)[0], (size - 1) / 2 + offset


def mirrored(view: Tensor, point: NDArray[np.float64], axis: int) -> tuple[Tensor, NDArray[np.float64]]:
    """A view (C, S, S) and a point in it, seen in a mirror across its rows (axis 0) or columns (1)."""
    other = point.copy()
    other[axis] = view.shape[-1] - 1 - point[axis]
    return torch.flip(view, (1 + axis,)), other


class Attempts:
    """The attempts of a dataset, ready to be drawn from.

    Args:
        dataset: where they are from.
        normalisation: of the encoder features.
        depths_m: below the local top, K choices.
        floor_m: least height of the tip.
    """

    def __init__(
        self, dataset: GraspDataset, normalisation: Normalisation, depths_m: Sequence[float], floor_m: float
    ) -> None:
        self._stacks = [[maps.stack_scene(view, normalisation) for view in s.views] for s in dataset.scenes]
        self._scene = np.concatenate([np.full(len(s.success), k) for k, s in enumerate(dataset.scenes)])
        self._cells = np.concatenate([s.cells for s in dataset.scenes])
        self._yaws = np.concatenate([s.yaws_rad for s in dataset.scenes])
        self._depths = [
            np.concatenate([depth_weights(s.views[k % len(s.views)], s.cells, s.heights_m, depths_m, floor_m)
                            for s in dataset.scenes])
            for k in range(2)
        ]  # fmt: skip
        self.success = np.concatenate([s.success for s in dataset.scenes])
        self._kinds = [np.flatnonzero(self.success == kind) for kind in (True, False)]

    def __len__(self) -> int:
        return len(self.success)

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Indices (count,), successes and failures in equal parts as far as there are both."""
        kinds = [kind for kind in self._kinds if len(kind)]
        return np.array([rng.choice(kinds[k % len(kinds)]) for k in range(count)])

    def batch(
        self, net: GraspNet, indices: NDArray[np.int64], vary: tuple[Variation, np.random.Generator] | None = None
    ) -> Batch:
        """Attempts as the network sees them, varied and mirrored at random; without `vary` as the camera saw them."""
        views, points, depths = [], [], []
        for index in indices:
            resolution = int(vary[1].integers(len(self._stacks[self._scene[index]]))) if vary is not None else 0
            stack = net.project(self._stacks[self._scene[index]][resolution])
            cell, yaw = self._cells[index], float(self._yaws[index])
            if vary is None:
                view, point = view_of(stack, cell, yaw, np.zeros(2), net.config.crop)
            else:
                view, point = _varied_view(stack, cell, yaw, net.config.crop, *vary)
            views.append(view)
            points.append(point)
            depths.append(self._depths[resolution][index])
        return Batch(
            torch.stack(views),
            torch.from_numpy(np.array(points)).float(),
            torch.from_numpy(np.array(depths)).float(),
            torch.from_numpy(self.success[indices]).float(),
        )


def _varied_view(
    stack: Tensor, cell: NDArray[np.float64], yaw_rad: float, size: int, variation: Variation, rng: np.random.Generator
) -> tuple[Tensor, NDArray[np.float64]]:
    """A view and the tip in it: shifted, turned a little, mirrored, and seen differently."""
    offset = rng.uniform(-variation.shift_cells, variation.shift_cells, 2)
    view, point = view_of(stack, cell, yaw_rad + float(rng.normal(0.0, variation.yaw_rad)), offset, size)
    for axis in np.flatnonzero(rng.integers(2, size=2)):
        view, point = mirrored(view, point, int(axis))
    return _varied(view, variation, rng), point


def _varied(view: Tensor, variation: Variation, rng: np.random.Generator) -> Tensor:
    """Colors swapped and scaled, heights shifted and noisy; what is unseen stays so."""
    geometric = maps.GEOMETRY_CHANNELS
    gains = torch.from_numpy(rng.uniform(1 - variation.gain, 1 + variation.gain, (3, 1, 1))).float()
    color = view[torch.from_numpy(rng.permutation(3))] * gains
    noise = rng.normal(0.0, variation.noise_m, view.shape[1:]) + rng.normal(0.0, variation.height_m)
    seen = view[geometric - 1 : geometric]
    height = view[3:4] + torch.from_numpy(noise / maps.HEIGHT_UNIT_M).float() * seen
    return torch.cat([color, height, seen, view[geometric:]])

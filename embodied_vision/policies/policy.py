"""Frames and features in, one pick-and-place decision out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_vision import geometry
from embodied_vision.encoders.base import Encoder
from embodied_vision.errors import BadInput
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies import decoding, maps
from embodied_vision.policies.attempts import Attempts
from embodied_vision.policies.binding import require_encoder, require_features
from embodied_vision.policies.networks import CoarseNet, NetworkConfig
from embodied_vision.policies.segments import Segment, climb, highest, place_support, point_at, segment_at
from embodied_vision.types import RGBD, Features, PickPlace, Scene, Workspace

OVERTRAVEL_M = 0.0015
"""The tool aims this far below the seen surface, so that the cup seals."""
PICKS, PLACES, APART_CELLS, LEAST_SHARE = 4, 6, 2, 1e-5
"""Picks and places that are weighed against each other: so many at most, so many coarse cells apart, none so much less
likely than the likeliest."""
HOLLOW_SHARE = 0.02
"""Where nothing stands at a likely pick, what stands within `APART_CELLS` is picked, at cells of such a share of it."""
PRIOR_WEIGHT = 0.5
"""Exponent of the coarse stage's probability of a cell: learnt from few scenes it is too sure of itself, and the fine
stage is the better judge."""
IN_VAIN = 0.01
"""Factor on the probability of what was picked in vain, for every time."""
LEAST_HEIGHT_M = 0.003
"""What stands out less from what is around it is neither dragged nor, where anything else is likely, picked."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """A decision with what led to it.

    Attributes:
        action: the decision.
        scene: the fused map it was made on.
        segment: the object that is picked.
        pick_probability: float64 (h, w) on the pooled map.
        place_probability: float64 (h, w) on the pooled map.
        fine_probability: float64 (window, window) around the coarse place, all yaws together.
        place: (2,) fractional map cell where the object's anchor goes.
        yaw_rad: turn of the object, in (−π, π].
        failed: x, y in m of earlier picks that took nothing, which were made less likely.
    """

    action: PickPlace
    scene: Scene
    segment: Segment
    pick_probability: NDArray[np.float64]
    place_probability: NDArray[np.float64]
    fine_probability: NDArray[np.float64]
    place: NDArray[np.float64]
    yaw_rad: float
    failed: tuple[tuple[float, float], ...] = ()


class Policy:
    """A trained pick-and-place head.

    Same checkpoint, machine, threads, frames and failed attempts: same decision, bit for bit.
    """

    def __init__(self, checkpoint: checkpoints.Checkpoint, encoder: Encoder | None) -> None:
        """Bind a checkpoint to the encoder it was trained with.

        Raises:
            CheckpointError: it was trained with another encoder, or its weights do not fit.
        """
        require_encoder(checkpoint, encoder)
        self.checkpoint = checkpoint
        self.checkpoint_id = checkpoint.checkpoint_id
        self.encoder_id = checkpoint.encoder_id
        self.workspace: Workspace = checkpoint.workspace
        self.task = checkpoint.task
        self._network = checkpoint.network()
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolves faster on a CPU
        self._angles = maps.rotations(checkpoint.config.bins if checkpoint.primitive == "pick_place" else 1)

    @classmethod
    def load(cls, path: str | Path, encoder: Encoder | None) -> Policy:
        """Read a checkpoint folder.

        Raises:
            CheckpointError: it is missing, damaged, or was trained with another encoder.
        """
        return cls(checkpoints.load(Path(path)), encoder)

    def decide(
        self, frames: Sequence[RGBD], features: Sequence[Features], attempts: Attempts | None = None
    ) -> PickPlace:
        """The next pick and place for these frames, one a camera, and their features in the same order.

        Args:
            frames: what is seen.
            features: of the frames.
            attempts: what was tried before in this episode.

        Raises:
            BadInput: features of another encoder or of other frames, or with non-finite values; nothing is seen.
        """
        return self.explain(frames, features, attempts).action

    def explain(
        self, frames: Sequence[RGBD], features: Sequence[Features], attempts: Attempts | None = None
    ) -> Explanation:
        """`decide`, with the maps that led to the decision."""
        require_features(features, self.encoder_id)
        for feature in features:
            if not np.isfinite(feature.grid).all():
                raise BadInput(
                    f"features stamped {feature.stamp_ns} hold {int((~np.isfinite(feature.grid)).sum())} non-finite "
                    "values; check the encoder's weights and runtime, no decision is made on them"
                )
        return self.explain_scene(geometry.fuse_scene(frames, features, self.workspace), attempts)

    @torch.inference_mode()
    def explain_scene(self, scene: Scene, attempts: Attempts | None = None) -> Explanation:
        """Decide on a map that is already fused; see `decide` for errors."""
        if not scene.valid.any():
            raise BadInput(
                f"no camera sees any of the workspace x {self.workspace.x}, y {self.workspace.y}; "
                "check the depth stream and the calibration"
            )
        config = self.checkpoint.config
        exposure = maps.Exposure.of(scene)
        pooled = maps.pool_scene(scene, self.checkpoint.normalisation, config.coarse_pool, exposure)
        views = SymmetricViews(self._network.coarse, pooled)
        pick_probability = views.pick()
        failed = attempts.failed(scene) if attempts is not None and self.checkpoint.primitive != "push" else ()
        for point in failed:
            cell = geometry.xy_to_cell(np.array(point), self.workspace)
            vain = segment_at(scene, cell) if self.checkpoint.primitive == "pick_place" else point_at(scene, cell)
            pick_probability[_covered(vain, pick_probability.shape, config.coarse_pool)] *= IN_VAIN
        segment = self._object(scene, pick_probability)
        picked = picked_weights(segment, pooled.shape[-2:], config.coarse_pool)
        place_probability = views.place(torch.from_numpy(picked))
        middles = [
            np.floor(_unpooled(decoding.peak_at(place_probability, mode, 1), config.coarse_pool)) + 0.5
            for mode in decoding.modes(place_probability, PLACES, APART_CELLS, LEAST_SHARE)
        ]
        window = np.moveaxis(np.indices((config.window, config.window)), 0, -1) - (config.window - 1) / 2
        cells = _pooled(np.stack(middles)[:, None, None] + window, config.coarse_pool)
        prior = torch.from_numpy(PRIOR_WEIGHT * decoding.log_between(place_probability, cells)).float()
        best, logits = self._fine(scene, exposure, segment, middles, prior)
        offset, yaw, confidence = decoding.place_and_yaw(logits)
        place = middles[best] + offset - (config.window - 1) / 2
        scores = {"pick": float(pick_probability.max()), "place": confidence}
        return Explanation(
            action=self._action(scene, segment, place, yaw, scores),
            scene=scene,
            segment=segment,
            pick_probability=pick_probability,
            place_probability=place_probability,
            fine_probability=decoding.softmax(logits).sum(0),
            place=place,
            yaw_rad=yaw,
            failed=failed,
        )

    def _object(self, scene: Scene, pick_probability: NDArray[np.float64]) -> Segment:
        """What to pick: of the objects under the likeliest cells the one with the largest probability in all."""
        factor = self.checkpoint.config.coarse_pool
        modes = decoding.modes(pick_probability, PICKS, APART_CELLS, LEAST_SHARE)
        if self.checkpoint.primitive != "pick_place":
            cells = [_unpooled(decoding.peak_at(pick_probability, mode, 1), factor) for mode in modes]
            if self.checkpoint.primitive == "push":
                return point_at(scene, cells[0])
            points = [point_at(scene, climb(scene, cell)) for cell in cells]
            return next((point for point in points if _rises(point)), points[0])
        segments: list[Segment] = []
        for mode in modes:
            i, j = np.floor(_unpooled(mode.astype(float), factor) + 0.5).astype(int)
            if not any(segment.mask[i, j] for segment in segments):
                segments.append(_standing(scene, pick_probability, mode, factor))
        totals = [float(pick_probability[_covered(s, pick_probability.shape, factor)].sum()) for s in segments]
        standing = [_stands(segment) for segment in segments]  # on the table there is nothing to take
        return segments[int(np.lexsort((totals, standing))[-1])]

    def _fine(
        self,
        scene: Scene,
        exposure: maps.Exposure,
        segment: Segment,
        middles: Sequence[NDArray[np.float64]],
        prior: torch.Tensor,
    ) -> tuple[int, NDArray[np.float64]]:
        """The best of P places, and its logits (R, window, window).

        Args:
            scene: the fused map.
            exposure: that of the map.
            segment: what is placed.
            middles: P corners of cells, half-integer.
            prior: (P, window, window) logits that are added for every turn.
        """
        config, fine = self.checkpoint.config, self._network.fine
        patch, mask, anchor = object_crop(scene, segment, config, exposure)
        # An even number of cells about the corner of four is cut out without interpolation.
        around = [maps.stack_geometry(maps.crop(scene, middle, config.key)[0], exposure) for middle in middles]
        refused = torch.from_numpy(self._off_the_map(segment, middles))  # the guard would refuse it
        keys = fine.keys(torch.stack(around)[None])
        kernels = fine.kernels(fine.query_views(patch, mask, anchor, self._angles)[None])
        alone = self.checkpoint.primitive != "pick_place"
        # Every other turn tells places apart; the rest is for the best of them.
        some = fine.scores(kernels[:, ::2], keys, alone=alone)[0] + prior[:, None]
        some[refused[:, ::2]] = -math.inf
        best = int(some.flatten(1).logsumexp(1).argmax())
        logits = prior.new_empty(len(self._angles), *prior.shape[1:])
        logits[::2] = some[best]
        if not alone:
            logits[1::2] = fine.scores(kernels[:, 1::2], keys[:, best : best + 1], alone=alone)[0, 0] + prior[best]
        logits[refused[best]] = -math.inf
        return best, logits.double().numpy()

    def _off_the_map(self, segment: Segment, middles: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
        """Whether the tool would let go off the map: (P, R, window, window) for places, turns and cells about them."""
        size, grasp = self.checkpoint.config.window, segment.grasp - segment.anchor
        about = np.moveaxis(np.indices((size, size)), 0, -1) - (size - 1) / 2
        releases = np.stack([maps.rotation(angle) @ grasp for angle in self._angles])
        cells = np.stack(middles)[:, None, None, None] + releases[:, None, None] + about
        return np.any((cells < 0) | (cells > np.array(self.workspace.shape) - 1), axis=-1)

    def _action(
        self, scene: Scene, segment: Segment, place: NDArray[np.float64], yaw: float, scores: dict[str, float]
    ) -> PickPlace:
        primitive = self.checkpoint.primitive
        c, s = math.cos(yaw), math.sin(yaw)
        grasp = segment.grasp - segment.anchor
        release = place + np.array([c * grasp[0] - s * grasp[1], s * grasp[0] + c * grasp[1]])
        pick_xy = geometry.cell_to_xy(segment.grasp, self.workspace)
        place_xy = geometry.cell_to_xy(release, self.workspace)
        if primitive == "push":
            heading = math.atan2(place_xy[1] - pick_xy[1], place_xy[0] - pick_xy[0])
            (pick_z, place_z), (pick_yaw, place_yaw) = self.checkpoint.tip_m, (heading, heading)
        else:
            below_m = place_support(scene, segment, place, yaw)
            pick_z = segment.top_m - OVERTRAVEL_M
            hang_m = self.checkpoint.hang_m
            if hang_m is None:
                hang_m = segment.top_m - segment.support_m + self.checkpoint.release_m
            place_z = below_m + hang_m
            # Half the turn before and half after: the wrist stays within ±90° of straight.
            pick_yaw, place_yaw = -yaw / 2, yaw / 2
        return PickPlace(
            pick=geometry.tool_down(float(pick_xy[0]), float(pick_xy[1]), pick_z, pick_yaw),
            place=geometry.tool_down(float(place_xy[0]), float(place_xy[1]), place_z, place_yaw),
            primitive=primitive,
            scores=scores,
            stamp_ns=scene.stamp_ns,
        )


def _rises(segment: Segment) -> bool:
    """Whether a segment stands out from what is around it."""
    return segment.top_m - segment.support_m > LEAST_HEIGHT_M


def _stands(segment: Segment) -> bool:
    """Whether a segment is an object that stands out from what is around it."""
    return bool(segment.mask.any()) and _rises(segment)


def _standing(scene: Scene, probability: NDArray[np.float64], mode: NDArray[np.int_], factor: int) -> Segment:
    """The object at a likely cell; where there is none, in the hollow of one say, at the likeliest cell about it."""
    segment = segment_at(scene, _unpooled(mode.astype(float), factor))
    if _stands(segment):
        return segment
    about = np.argwhere(probability > HOLLOW_SHARE * probability[tuple(mode)])
    about = about[np.abs(about - mode).max(1) <= APART_CELLS]
    for first in factor * about[np.argsort(-probability[tuple(about.T)])]:
        i, j = (int(k) for k in first)
        cell = highest(scene, (slice(i, i + factor), slice(j, j + factor)))
        if cell is None or scene.height[cell] <= segment.top_m + LEAST_HEIGHT_M:
            continue
        other = segment_at(scene, np.array(cell, float))
        if _stands(other):
            return other
    return segment


class SymmetricViews:
    """The coarse stage, asked about a map and its seven turns by 90° and mirror images, answers averaged.

    What is to be done does not depend on how the map lies, so eight answers are one opinion with less noise.
    """

    def __init__(self, net: CoarseNet, pooled: torch.Tensor) -> None:
        """Run the network.

        Args:
            net: the coarse stage.
            pooled: (5 + D, h, w).
        """
        self._net = net
        self._out: list[tuple[list[tuple[int, bool]], torch.Tensor, torch.Tensor]] = []
        for quarters in ((0, 2), (1, 3)):
            symmetries = [(quarter, mirror) for quarter in quarters for mirror in (False, True)]
            views = torch.stack([_seen(pooled, *symmetry) for symmetry in symmetries])
            self._out.append((symmetries, *net(views)))

    def pick(self) -> NDArray[np.float64]:
        """Probability (h, w) of the pick."""
        return self._average([pick for _, pick, _ in self._out])

    def place(self, picked: torch.Tensor) -> NDArray[np.float64]:
        """Probability (h, w) of the place for what covers `picked`, weights (h, w) that sum to one."""
        return self._average(
            [
                self._net.place(rest, torch.stack([_seen(picked, *symmetry) for symmetry in symmetries]))
                for symmetries, _, rest in self._out
            ]
        )

    def _average(self, answers: Sequence[torch.Tensor]) -> NDArray[np.float64]:
        """Probability (h, w) from logits (N, …) of each batch of views, turned back."""
        return _average(
            [
                _unseen(logits, *symmetry)
                for (symmetries, _, _), answer in zip(self._out, answers, strict=True)
                for symmetry, logits in zip(symmetries, answer, strict=True)
            ]
        )


def _seen(array: torch.Tensor, quarter: int, mirror: bool) -> torch.Tensor:
    """(…, h, w) mirrored, then turned by quarters."""
    return torch.rot90(array.flip(-1) if mirror else array, quarter, (-2, -1))


def _unseen(array: torch.Tensor, quarter: int, mirror: bool) -> torch.Tensor:
    """Inverse of `_seen`."""
    turned = torch.rot90(array, -quarter, (-2, -1))
    return turned.flip(-1) if mirror else turned


def _average(logits: Sequence[torch.Tensor]) -> NDArray[np.float64]:
    """Probability (h, w), normalised mean of the logarithms of several opinions."""
    return decoding.softmax(
        torch.stack(list(logits)).double().flatten(1).log_softmax(1).mean(0).view(logits[0].shape).numpy()
    )


def object_crop(
    scene: Scene, segment: Segment, config: NetworkConfig, exposure: maps.Exposure
) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.float64]]:
    """What the fine stage sees of an object, not yet turned; `exposure` is that of the scene.

    Returns:
        Network input (5, S, S), the object's cells (S, S) float, and (2,) its anchor in cells of the crop.
    """
    size = config.query + 4  # holds the round view of the object, and what its interpolation reaches for
    part, anchor = maps.crop(scene, segment.anchor, size)
    mask = maps.crop_array(segment.mask, np.round(segment.anchor - anchor).astype(int), size)
    return maps.stack_geometry(part, exposure), torch.from_numpy(mask.astype(np.float32)), anchor


def picked_weights(segment: Segment, shape: Sequence[int], factor: int) -> NDArray[np.float32]:
    """Share (h, w) of the object on each pooled cell, summing to one; at its anchor when it has no cells."""
    rows, columns = shape
    weights = segment.mask.reshape(rows, factor, columns, factor).mean((1, 3)).astype(np.float32)
    if not weights.any():
        i, j = np.clip(np.floor((segment.anchor + 0.5) / factor).astype(int), 0, [rows - 1, columns - 1])
        weights[i, j] = 1
    normal: NDArray[np.float32] = weights / weights.sum()
    return normal


def _covered(segment: Segment, shape: Sequence[int], factor: int) -> NDArray[np.bool_]:
    """Pooled cells (h, w) that an object covers any of, at least the one under its anchor."""
    return picked_weights(segment, shape, factor) > 0


def _pooled(cell: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Inverse of `_unpooled`."""
    return (cell + 0.5) / factor - 0.5


def _unpooled(cell: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Fractional cell of the pooled map to fractional cell of the map."""
    return (cell + 0.5) * factor - 0.5

"""Frames and features in, one grasp out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from embodied_vision import geometry
from embodied_vision.control.motion import plan
from embodied_vision.control.robot import RobotModel
from embodied_vision.encoders.base import Encoder
from embodied_vision.errors import BadInput, Refused
from embodied_vision.policies import grasp_checkpoint, grasp_maps, maps
from embodied_vision.policies.binding import require_encoder, require_features
from embodied_vision.types import RGBD, Features, PickPlace, Scene, Workspace

LEAST_REACH_M = 0.004
"""What the fingers must reach below the local top: a jaw that closes above everything holds nothing."""
APART_CELLS = 3
"""Proposals lie farther than this from each other, or are turned by more than one of the angles tried."""
PROPOSALS = 16
"""How many are tried on the arm before none is found."""

Index = tuple[int, int, int, int]
"""Yaw, depth, row, column."""


@dataclass(frozen=True, eq=False)
class GraspMaps:
    """What a decision is made on.

    Attributes:
        scene: the fused map.
        logits: float64 (R, K, H, W), smoothed: yaw, depth, cell; −∞ where geometry rules a grasp out.
        heights_m: float64 (K, H, W) of the tip.
    """

    scene: Scene
    logits: NDArray[np.float64]
    heights_m: NDArray[np.float64]


class GraspPolicy:
    """A trained grasp head. Same checkpoint, machine and threads: same decision, bit for bit."""

    def __init__(
        self, checkpoint: grasp_checkpoint.GraspCheckpoint, encoder: Encoder | None, robot: RobotModel | None = None
    ) -> None:
        """Bind a checkpoint to the encoder it was trained with, and to an arm.

        Args:
            checkpoint: what was trained.
            encoder: whose features it reads, None when it reads none.
            robot: the arm that is to reach what is decided; None asks no arm.

        Raises:
            CheckpointError: it was trained with another encoder, or its weights do not fit.
        """
        require_encoder(checkpoint, encoder)
        self.checkpoint = checkpoint
        self.checkpoint_id = checkpoint.checkpoint_id
        self.encoder_id = checkpoint.encoder_id
        self.workspace: Workspace = checkpoint.workspace
        self.task = checkpoint.task
        self._robot = robot
        self._network = checkpoint.network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._angles = grasp_maps.angles(checkpoint.config.angles)

    @classmethod
    def load(cls, path: str | Path, encoder: Encoder | None, robot: RobotModel | None = None) -> GraspPolicy:
        """Read a checkpoint folder.

        Raises:
            CheckpointError: it is missing, damaged, or was trained with another encoder.
        """
        return cls(grasp_checkpoint.load(Path(path)), encoder, robot)

    def decide(self, frames: Sequence[RGBD], features: Sequence[Features]) -> PickPlace:
        """The grasp most likely to lift something, among those that the arm reaches.

        Args:
            frames: one a camera.
            features: of the same frames in the same order, empty for a policy that reads none.

        Raises:
            BadInput: features of another encoder or of other frames; nothing is seen.
            Refused: rule `no_grasp`, nothing in sight can be gripped or reached.
        """
        found = self.judge(frames, features)
        for action in self.proposals(found, PROPOSALS):
            if self._reachable(action):
                return action
        raise Refused(
            "no_grasp", "grasps that are possible and within reach", 0, "at least 1", "look into the bin, is it empty?"
        )

    def judge(self, frames: Sequence[RGBD], features: Sequence[Features]) -> GraspMaps:
        """How likely a grasp succeeds, everywhere; see `decide` for errors."""
        require_features(features, self.encoder_id)
        return self.judge_scene(grasp_maps.fuse(frames, features, self.workspace))

    @torch.inference_mode()
    def judge_scene(self, scene: Scene) -> GraspMaps:
        """`judge` for a map that is already fused."""
        if not scene.valid.any():
            raise BadInput(
                f"no camera sees any of the workspace x {self.workspace.x}, y {self.workspace.y}; "
                "check the depth stream and the calibration"
            )
        checkpoint = self.checkpoint
        stack = self._network.project(maps.stack_scene(scene, checkpoint.normalisation))
        size = grasp_maps.view_size(self.workspace, checkpoint.config.multiple)
        views = maps.turn(stack, grasp_maps.middle(self.workspace), self._angles, size)
        views = views.contiguous(memory_format=torch.channels_last)
        logits = grasp_maps.turned_back(self._network(views), self._angles, self.workspace)
        # What holds only on a single cell or at a single angle is not trusted.
        smooth = functional.avg_pool2d(logits, 3, 1, 1, count_include_pad=False)
        smooth = 0.5 * smooth + 0.25 * (smooth.roll(1, 0) + smooth.roll(-1, 0))
        heights, possible = self._possible(scene)
        return GraspMaps(scene, np.where(possible, smooth.double().numpy(), -np.inf), heights)

    def _possible(self, scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Heights (K, H, W) of the tip, and where it may close at all."""
        checkpoint = self.checkpoint
        top = grasp_maps.top_map(scene)
        heights = grasp_maps.tip_heights(top, checkpoint.config.depths_m, checkpoint.floor_m)
        return heights, grasp_maps.inside(self.workspace) & (top - heights >= LEAST_REACH_M)

    def proposals(self, found: GraspMaps, count: int) -> list[PickPlace]:
        """The best `count` grasps that lie apart from each other, the best first; fewer where there are no more."""
        chosen: list[PickPlace] = []
        left = found.logits.copy()
        while len(chosen) < count and np.isfinite(best := left.max()):
            index = _index(int(left.argmax()), left.shape)
            chosen.append(self._action(found, index, float(best)))
            _clear(left, index)
        return chosen

    def samples(self, found: GraspMaps, count: int, rng: np.random.Generator) -> list[PickPlace]:
        """`count` grasps drawn in proportion to exp(logit), apart from each other; fewer where there are no more."""
        chosen: list[PickPlace] = []
        left = found.logits.copy()
        while len(chosen) < count and np.isfinite(left.max()):
            weights = np.exp(left - left.max()).ravel()
            index = _index(int(rng.choice(weights.size, p=weights / weights.sum())), left.shape)
            chosen.append(self._action(found, index, float(left[index])))
            _clear(left, index)
        return chosen

    def _action(self, found: GraspMaps, index: Index, logit: float) -> PickPlace:
        turn, depth, row, column = index
        x, y = (float(v) for v in geometry.cell_to_xy((row, column), self.workspace))
        z, yaw = float(found.heights_m[depth, row, column]), float(self._angles[turn])
        return PickPlace(
            pick=geometry.tool_down(x, y, z, yaw),
            place=geometry.tool_down(x, y, self.checkpoint.lift_m, yaw),
            primitive="grasp",
            scores={"grasp": 1.0 / (1.0 + float(np.exp(-logit)))},
            stamp_ns=found.scene.stamp_ns,
        )

    def _reachable(self, action: PickPlace) -> bool:
        if self._robot is None:
            return True
        try:
            plan(self._robot, np.asarray(self._robot.home, float), action)
        except Refused:
            return False
        return True


def _index(flat: int, shape: tuple[int, ...]) -> Index:
    turn, depth, row, column = (int(k) for k in np.unravel_index(flat, shape))
    return turn, depth, row, column


def _clear(logits: NDArray[np.float64], index: Index) -> None:
    """Rule out what is nearly the same grasp as one that is taken already."""
    turn, _, row, column = index
    near = np.arange(turn - 1, turn + 2) % logits.shape[0]
    rows = slice(max(row - APART_CELLS, 0), row + APART_CELLS + 1)
    columns = slice(max(column - APART_CELLS, 0), column + APART_CELLS + 1)
    logits[near, :, rows, columns] = -np.inf

"""A table with blocks under a camera that looks straight down, an encoder without weights, and episodes of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.geometry import depth_to_metres, quantise_depth, tool_down
from embodied_vision.types import RGBD, Camera, Features, PickPlace, Workspace

ROWS, COLUMNS = 144, 272
CAMERA_M = 0.9
BLOCK_M = 0.06
TABLE = (120, 110, 100)
WORKSPACE = Workspace()
TASK = "move-the-block"


def camera(name: str = "front") -> Camera:
    """Right above the middle of the workspace, image rows along −x, columns along −y."""
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    pose[:3, 3] = 0.5, 0.0, CAMERA_M
    focal = 0.97 * COLUMNS * CAMERA_M / 1.024
    K = np.array([[focal, 0, (COLUMNS - 1) / 2], [0, focal, (ROWS - 1) / 2], [0, 0, 1.0]])
    return Camera(name, COLUMNS, ROWS, K, pose)


def frame(blocks: Sequence[tuple[float, float]], stamp_ns: int, light: float = 1.0) -> RGBD:
    """What the camera sees of red blocks of 6 × 6 × 4 cm at (x, y)."""
    eye = camera()
    v, u = np.mgrid[:ROWS, :COLUMNS]
    x = 0.5 - (v - eye.K[1, 2]) / eye.K[1, 1] * CAMERA_M
    y = -(u - eye.K[0, 2]) / eye.K[0, 0] * CAMERA_M
    height = np.zeros((ROWS, COLUMNS))
    color = np.full((ROWS, COLUMNS, 3), TABLE, float)
    for bx, by in blocks:
        on = (np.abs(x - bx) < BLOCK_M / 2) & (np.abs(y - by) < BLOCK_M / 2)
        height[on], color[on] = 0.04, (200, 40, 40)
    depth = depth_to_metres(quantise_depth(CAMERA_M - height))
    return RGBD(np.clip(color * light, 0, 255).astype(np.uint8), depth, eye, stamp_ns)


@dataclass(frozen=True)
class PatchEncoder:
    """Means of color in patches of 8 px, and the red share: an encoder without weights.

    Attributes:
        broken: it computes NaN.
    """

    encoder_id: str = "patches-1"
    artefact_id: str = "numpy"
    dimension: int = 4
    broken: bool = False

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        rows, columns = (edge // 8 for edge in color.shape[:2])
        patches = color[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8, 3).mean((1, 3)) / 255
        red = patches[..., :1] - patches[..., 1:2]
        grid = np.concatenate([patches, red], axis=2).astype(np.float32)
        if self.broken:
            grid[:] = np.nan
        return Features(grid, (8.0, 8.0), self.encoder_id, self.artefact_id, stamp_ns)


def action(pick: tuple[float, float], place: tuple[float, float], stamp_ns: int, **more: Any) -> PickPlace:
    """Take what is at `pick`, with its top at 4 cm, to `place`."""
    return PickPlace(tool_down(*pick, 0.04), tool_down(*place, 0.042), stamp_ns=stamp_ns, **more)


@dataclass
class Cell:
    """Writes episodes of one or more moves of the block, some of which fail."""

    store: EpisodeStore
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    clock_ns: int = 1_700_000_000_000_000_000

    def _tick(self) -> int:
        self.clock_ns += 1_000_000_000
        return self.clock_ns

    def episode(
        self,
        succeeds: Sequence[bool] = (True,),
        *,
        seed: int | None = None,
        reward: bool = True,
        light: float = 1.0,
        outcome: dict[str, Any] | None = None,
        scores: dict[str, float] | None = None,
        policy_id: str = "p1",
    ) -> str:
        """Move the block as often as `succeeds` has entries; where one is False it stays where it was.

        Args:
            succeeds: whether each move does what it should.
            seed: of the scene, as of a simulated one.
            reward: whether the score is logged.
            light: factor on the colors.
            outcome: how the episode ends; told by the last move when left out.
            scores: of the decisions.
            policy_id: who acted.
        """
        attributes = {} if seed is None else {"seed": seed, "renderer": "software"}
        at = self._somewhere()
        score = 0.0
        with EpisodeWriter(
            self.store,
            task=TASK,
            robot="panda_suction",
            cameras=[camera()],
            policy_id=policy_id,
            attributes=attributes,
            color_codec="lossless",
        ) as writer:
            before = frame([at], self._tick(), light)
            for good in succeeds:
                goal = self._somewhere()
                writer.append_decision(action(at, goal, before.stamp_ns, scores=scores or {}), [before])
                at = goal if good else at
                before = frame([at], self._tick(), light)
                writer.append_frame(before)
                if reward:
                    score += good / len(succeeds)
                    writer.append("reward", before.stamp_ns, [score])
            end = (
                {"reward": score, "solved": bool(succeeds) and all(succeeds)}
                if reward
                else {"reason": "stopped by hand"}
            )
            return writer.close(outcome if outcome is not None else end)

    def _somewhere(self) -> tuple[float, float]:
        return float(self.rng.uniform(0.32, 0.68)), float(self.rng.uniform(-0.42, 0.42))

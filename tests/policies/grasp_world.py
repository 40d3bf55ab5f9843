"""A tiny world for the grasp head: a bar in a bin, which a jaw must close across."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from embodied_vision import geometry
from embodied_vision.learning.grasp_dataset import GraspDataset, GraspScene, to_scene
from embodied_vision.policies.grasp_checkpoint import GraspCheckpoint
from embodied_vision.policies.grasp_maps import BIN
from embodied_vision.policies.grasp_network import GraspConfig, GraspNet
from embodied_vision.policies.maps import Normalisation
from embodied_vision.types import PickPlace, Scene
from policies import synthetic

BAR_M = (0.08, 0.028)
"""Length and width."""
TOP_M, LIFT_M = 0.04, 0.24
MIDDLE = np.array([0.52, 0.0])
TINY = GraspConfig(widths=(8, 8), angles=6, crop=32)


def bar(xy: NDArray[np.float64], yaw_rad: float, top_m: float = TOP_M) -> Scene:
    """A bar whose length lies along `yaw_rad`."""
    scene = synthetic.empty_scene(workspace=BIN)
    rows, columns = scene.valid.shape
    cells = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    own = np.abs((geometry.cell_to_xy(cells, BIN) - xy) @ np.array([[c, -s], [s, c]])) <= np.array(BAR_M) / 2
    inside = own.all(-1)
    scene.height[inside], scene.color[inside] = top_m, synthetic.RED
    return scene


class AcrossTheBar(nn.Module):
    """Logits that are highest where a bar of this size lies along the rows, round the tip, at the middle depth."""

    def __init__(self) -> None:
        super().__init__()
        self.config = GraspConfig()
        rows, columns = np.indices((31, 31)) - 15
        length, width = np.array(BAR_M) / 2 / BIN.cell
        inside = (np.abs(rows) <= length) & (np.abs(columns) <= width)
        around = (np.abs(rows) <= length + 3) & (np.abs(columns) <= width + 3) & ~inside
        kernel = inside / inside.sum() - around / around.sum()
        self.kernel = torch.from_numpy(kernel).float()[None, None]

    def project(self, stack: Tensor) -> Tensor:
        return stack

    def forward(self, views: Tensor) -> Tensor:
        score = 10 * functional.conv2d(views[:, 3:4], self.kernel, padding=15)
        return torch.cat([score - 1, score, score - 1], 1)


def random_checkpoint(seed: int = 5, encoder_id: str = "", config: GraspConfig = TINY) -> GraspCheckpoint:
    return GraspCheckpoint(
        task="grasp-diverse",
        encoder_id=encoder_id,
        workspace=BIN,
        config=config,
        normalisation=Normalisation.identity(config.features),
        weights=GraspNet.seeded(config, seed).state_dict(),
        lift_m=LIFT_M,
    )


def attempt(x: float, y: float, z: float, yaw: float) -> PickPlace:
    return PickPlace(geometry.tool_down(x, y, z, yaw), geometry.tool_down(x, y, LIFT_M, yaw), primitive="grasp")


def labelled(seed: int, count: int = 12) -> GraspScene:
    """A bar, and attempts that lift it when they close near its middle, low, and across it."""
    rng = np.random.default_rng(seed)
    xy, yaw = MIDDLE + rng.uniform(-0.06, 0.06, 2), float(rng.uniform(0, math.pi))
    attempts = []
    for _ in range(count):
        at, turn = xy + rng.uniform(-0.03, 0.03, 2), yaw + float(rng.choice([0.0, rng.uniform(-1.5, 1.5)]))
        lifts = bool(np.linalg.norm(at - xy) < 0.02 and abs(math.remainder(turn - yaw, math.pi)) < 0.45)
        attempts.append((attempt(*at, 0.01, turn), lifts))
    return to_scene([bar(xy, yaw)], attempts, f"scene {seed}")


def dataset(scenes: int) -> GraspDataset:
    return GraspDataset(tuple(labelled(seed) for seed in range(scenes)), "grasp-diverse", BIN, ("software",))

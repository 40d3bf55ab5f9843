"""Frames that are played: recorded once, in the product's own store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.learning.environments import make_env
from embodied_vision.sources import fit
from embodied_vision.types import RGBD, Camera

TASK, SCENE = "block-insertion", 2_000_000
FRAMES = 8
NOISE = 2.5
"""Standard deviation of the sensor's noise in each channel, in steps of 8 bits."""


@dataclass(frozen=True)
class Setup:
    """What is played: cameras of one size."""

    width: int
    height: int
    cameras: int

    @property
    def name(self) -> str:
        """For figures."""
        return f"{self.width}x{self.height}, {'one camera' if self.cameras == 1 else f'{self.cameras} cameras'}"

    @property
    def names(self) -> list[str]:
        """Of the cameras."""
        return ["camera"] if self.cameras == 1 else [f"camera_{number}" for number in range(self.cameras)]


def record(setup: Setup, folder: Path) -> tuple[Camera, ...]:
    """Render a test scene, scale it to the cameras, and log it with fresh noise in every frame."""
    env = make_env(TASK, renderer="software")
    env.reset(seed=SCENE)
    seen: RGBD = env.unwrapped.frames()[0]  # type: ignore[attr-defined]
    env.close()
    size, own = (setup.width, setup.height), (seen.camera.width, seen.camera.height)
    scale = np.array([size[0] / own[0], size[1] / own[1]])
    K = seen.camera.K.copy()
    K[0, 0], K[1, 1] = K[0, 0] * scale[0], K[1, 1] * scale[1]
    K[:2, 2] = (K[:2, 2] + 0.5) * scale - 0.5
    cameras = tuple(Camera(name, *size, K, seen.camera.T_base_camera) for name in setup.names)
    color, depth = fit((seen.color, seen.depth), size)
    rng = np.random.default_rng(0)
    writer = EpisodeWriter(
        EpisodeStore(folder), task=TASK, robot="panda_suction", cameras=cameras, color_codec="lossless"
    )
    for number in range(FRAMES):
        for camera in cameras:
            noisy = np.clip(color + rng.normal(0, NOISE, color.shape), 0, 255).astype(np.uint8)
            writer.append_frame(RGBD(noisy, depth, camera, number + 1))
    writer.close({"reward": 0.0, "solved": False})
    return cameras

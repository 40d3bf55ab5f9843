"""The data of `bench/episodes.py`: textured frames with sensor noise and joints, the same for every format."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from embodied_vision.geometry import depth_to_metres
from embodied_vision.types import RGBD, Camera

HEIGHT, WIDTH, RATE_HZ, JOINTS, QUALITY = 480, 640, 30, 16, 90
CAMERAS = ("front", "side")
WINDOW = 16

Color = NDArray[np.uint8]
Depth = NDArray[np.uint16]


class Scene:
    """Textured frames with sensor noise: a patterned table, a part that moves, and fresh noise in every frame."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        grain = zoom(self._rng.normal(0, 1, (HEIGHT // 4, WIDTH // 4, 3)).astype(np.float32), (4, 4, 1), order=1)
        waves = np.stack([np.sin(x / p + y / q) for p, q in ((9, 23), (17, 11), (31, 47))], -1)
        self._table = 120 + 35 * waves + 12 * grain
        self._plane = 900 - 0.25 * y
        luma = self._rng.normal(0, 2.5, (8, HEIGHT, WIDTH, 1))
        chroma = zoom(self._rng.normal(0, 2, (8, HEIGHT // 2, WIDTH // 2, 3)), (1, 2, 2, 1), order=1)
        self._noise = (luma + chroma).astype(np.float32)  # colors share photosites, so their noise is smoother

    def frame(self, number: int) -> tuple[Color, Depth]:
        """Color and depth in mm of a step."""
        color, depth = self._table.copy(), self._plane.copy()
        left, top = 40 + 3 * number % 480, 120 + 2 * number % 240
        color[top : top + 90, left : left + 90] = (200, 60, 40)
        depth[top : top + 90, left : left + 90] -= 60
        shift = self._rng.integers(0, WIDTH)
        color += np.roll(self._noise[number % 8], shift, 1)
        depth += self._rng.normal(0, 1.5, depth.shape)
        return np.clip(color, 0, 255).astype(np.uint8), depth.astype(np.uint16)


class Data:
    """Episodes of `steps` steps: RGB-D frames of every camera and joints, all in memory."""

    def __init__(self, episodes: int, steps: int) -> None:
        self.episodes, self.steps = episodes, steps
        K = np.array([[600.0, 0, WIDTH / 2], [0, 600.0, HEIGHT / 2], [0, 0, 1]])
        self.cameras = [Camera(name, WIDTH, HEIGHT, K, np.eye(4)) for name in CAMERAS]
        scenes = [Scene(seed) for seed in range(len(CAMERAS))]
        self.frames: list[list[RGBD]] = []
        for step in range(episodes * steps):
            stamp_ns = step * 10**9 // RATE_HZ
            seen = [scene.frame(step) for scene in scenes]
            self.frames.append(
                [
                    RGBD(c, depth_to_metres(d), camera, stamp_ns)
                    for (c, d), camera in zip(seen, self.cameras, strict=True)
                ]
            )
        self.joints = np.random.default_rng(9).normal(size=(episodes * steps, JOINTS)).cumsum(0)

    @property
    def count(self) -> int:
        """RGB-D frames of all cameras."""
        return len(self.frames) * len(CAMERAS)

    def of(self, episode: int) -> range:
        """Steps of an episode."""
        return range(episode * self.steps, (episode + 1) * self.steps)


def psnr(one: Color, other: Color) -> float:
    """dB; 99 for equal images."""
    error = float(np.mean((one.astype(float) - other) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))

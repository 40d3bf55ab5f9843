"""Makes the datasets beside it with lerobot itself: run with an interpreter that has lerobot 0.4.4.

    .venv-lerobot/bin/python tests/episodes/exchange/foreign/make_lerobot.py

One camera as video, one as images, two tasks, three episodes of different lengths.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

TARGET = Path(__file__).parent / "lerobot"
LENGTHS = (7, 5, 9)
SIZE, RATE_HZ = 64, 10


def image(number: int) -> np.ndarray:
    """uint8 (64, 64, 3): smooth, so that video hardly changes it, and another one for every number."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    return np.stack([x * 2 + number * 5, y * 2, np.full_like(x, 40 + 9 * number)], -1).clip(0, 255).astype(np.uint8)


def main() -> None:
    """Writes anew what stands there."""
    shutil.rmtree(TARGET, ignore_errors=True)
    picture = {"shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.images.front": {"dtype": "video", **picture},
        "observation.images.wrist": {"dtype": "image", **picture},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
        "note": {"dtype": "string", "shape": (1,), "names": None},
    }
    dataset = LeRobotDataset.create("made/by_lerobot", RATE_HZ, features, root=TARGET, robot_type="so100")
    number = 0
    for episode, length in enumerate(LENGTHS):
        for step in range(length):
            dataset.add_frame(
                {
                    "observation.images.front": image(number),
                    "observation.images.wrist": image(number)[::-1].copy(),
                    "observation.state": np.array([episode, step, number], np.float32),
                    "action": np.array([step, -step], np.float32),
                    "next.reward": np.array([float(step == length - 1)], np.float32),
                    "next.done": np.array([step == length - 1]),
                    "note": f"step {step}",
                    "task": ("put the block away", "open the drawer")[episode % 2],
                }
            )
            number += 1
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    main()

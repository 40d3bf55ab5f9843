"""Small tasks for continual learning: two that look alike and ask for different places."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from policies import synthetic

from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.continual.shared import SharedHead
from embodied_vision.learning.continual.update import UpdateConfig
from embodied_vision.learning.dataset import Dataset, beside_each_other, to_example
from embodied_vision.policies.networks import NetworkConfig
from embodied_vision.types import Workspace

TINY = NetworkConfig(features=2, coarse_widths=(8, 8), embedding=4, fine_widths=(8,), fine_channels=3)
CONFIG = UpdateConfig(train=TrainConfig(steps=3, batch=2, tried=4, learning_rate=1e-2, ema=0.5), checkpoints=2)


@cache
def dataset(task: str, count: int = 2, seed: int = 0) -> Dataset:
    """Insertions; in a task of another name than `insert` the block goes where the fixture is not."""
    rng = np.random.default_rng([seed, len(task)])
    examples = []
    for number in range(count):
        scene, action = synthetic.insertion(rng, 2)
        example = to_example(scene, action, f"{task}-{seed}/{number}")
        if task != "insert":
            example = replace(example, place=example.segment.anchor + np.array([20.0, 0.0]), yaw_rad=0.0)
        examples.append(example)
    return Dataset(beside_each_other(examples), [f"{task}-{seed}"], task, "")


def empty_head() -> SharedHead:
    """A tiny head that knows nothing."""
    return SharedHead(TINY, "", Workspace())

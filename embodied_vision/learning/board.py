"""What a training run tells TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from embodied_vision.learning import augment
from embodied_vision.learning.configuration import RunConfig
from embodied_vision.learning.dataset import Dataset
from embodied_vision.learning.stage import Stage, learning_rate
from embodied_vision.pictures import PICK, PLACE
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig

SCALARS_EVERY = 10
PICTURES = 10
"""Over a run."""


class Board:
    """Losses, learning rate, speed, the configuration, and now and then what the coarse stage is shown."""

    def __init__(self, logs: Path, config: RunConfig, dataset: Dataset) -> None:
        """Begin a log.

        Args:
            logs: folder for TensorBoard's files.
            config: of the run.
            dataset: what it learns from; pictures are drawn of it.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(logs))
        self._config, self._dataset = config, dataset
        self._last: dict[Stage, tuple[int, float]] = {}
        self._writer.add_text("configuration", f"```yaml\n{config.to_yaml()}```")

    def report(self, stage: Stage, step: int, losses: Mapping[str, float]) -> None:
        """Take down a step; may run on any thread."""
        train = self._config.train
        if step % SCALARS_EVERY == 0:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value, step)
            self._writer.add_scalar(f"learning_rate/{stage}", learning_rate(train, step - 1), step)
            then, now = self._last.get(stage), time.monotonic()
            if then is not None:
                speed = (step - then[0]) * train.batch / (now - then[1])
                self._writer.add_scalar(f"examples_per_s/{stage}", speed, step)
            self._last[stage] = (step, now)
        if stage == "coarse" and (step == 1 or step % max(1, train.steps // PICTURES) == 0):
            picture = picture_of(self._dataset, self._config.network, np.random.default_rng([train.seed, step]))
            self._writer.add_image("shown", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


def picture_of(dataset: Dataset, config: NetworkConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random example as the coarse stage is shown it, uint8 (h, w, 3): the object in red, the place in green."""
    example = dataset.examples[int(rng.integers(len(dataset)))]
    plain = replace(example, scene=replace(example.scene, features=None), pooled_features=None)
    sample = augment.coarse_sample(plain, Normalisation.identity(0), config, rng)
    return _tinted(_tinted(_colors(sample.pooled), sample.picked, PICK), sample.place, PLACE)


def _colors(stack: Tensor) -> NDArray[np.uint8]:
    """Color channels of a network's input, (H, W, 3)."""
    return ((stack[:3].clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()


def _tinted(picture: NDArray[np.uint8], weight: Tensor, color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The picture, up to half covered by a color where a map (H, W) has its largest values."""
    share = (0.5 * weight / weight.max().clamp_min(1e-12)).numpy()[..., None]
    return (picture * (1 - share) + np.array(color) * share).astype(np.uint8)

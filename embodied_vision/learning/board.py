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
from embodied_vision.learning.stage import STAGES, Stage, learning_rate
from embodied_vision.pictures import PICK, PLACE
from embodied_vision.policies.maps import Normalisation

SCALARS_EVERY = 10
PICTURES = 10
"""Pictures of each stage over a run."""


class Board:
    """Losses, learning rate, speed, the configuration, and now and then what a stage is shown."""

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
        if step == 1 or step % max(1, train.steps // PICTURES) == 0:
            rng = np.random.default_rng([train.seed, STAGES.index(stage), step])
            picture = picture_of(stage, self._dataset, self._config, rng)
            self._writer.add_image(f"shown/{stage}", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


def picture_of(stage: Stage, dataset: Dataset, config: RunConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random example as a stage is shown it, uint8 (H, W, 3).

    The coarse stage's map has the picked object in red and the place in green; the fine stage's picture has the crop
    around the object, its cells in red, beside the crop around the place.
    """
    example = dataset.examples[int(rng.integers(len(dataset)))]
    plain = Normalisation.identity(0)
    seen = replace(example, scene=replace(example.scene, features=None), pooled_features=None)
    if stage == "coarse":
        coarse = augment.coarse_sample(seen, plain, config.network, rng)
        return _tinted(_tinted(_colors(coarse.pooled), coarse.picked, PICK), coarse.place, PLACE)
    fine = augment.fine_sample(seen, plain, config.network, config.train.tried, rng)
    crops = [_tinted(_colors(fine.patch), fine.mask, PICK), _colors(fine.key_patches[0])]
    height = max(crop.shape[0] for crop in crops)
    return np.concatenate([np.pad(crop, ((0, height - crop.shape[0]), (0, 4), (0, 0))) for crop in crops], axis=1)


def _colors(stack: Tensor) -> NDArray[np.uint8]:
    """Color channels of a network's input, (H, W, 3)."""
    return ((stack[:3].clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()


def _tinted(picture: NDArray[np.uint8], weight: Tensor, color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The picture, up to half covered by a color where a map (H, W) has its largest values."""
    share = (0.5 * weight / weight.max().clamp_min(1e-12)).numpy()[..., None]
    return (picture * (1 - share) + np.array(color) * share).astype(np.uint8)

"""What a training run of an encoder tells TensorBoard: losses, and its features as colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.correspondence import ViewSource
from embodied_vision.pictures import feature_colors
from embodied_vision.types import RGBD, Features

SCALARS_EVERY = 10
PICTURES = 10
"""Over a run."""
SHOWN_SETS, SHOWN_FRAMES = 3, 3


def feature_picture(encoder: Encoder, frames: Sequence[RGBD]) -> NDArray[np.uint8]:
    """Images in the upper row, and below them the first three principal components of their features as colors.

    The components are those of all the images together, so that what looks alike has like features.

    Args:
        encoder: whose features are shown.
        frames: all of one size (H, W).

    Returns:
        uint8 (2 H, n W, 3).
    """
    rows, columns = frames[0].color.shape[:2]
    encoded = [encoder.encode(frame.color) for frame in frames]
    wide = np.concatenate([features.grid for features in encoded], axis=1)
    joined = Features(wide, encoded[0].stride, encoder.encoder_id, encoder.artefact_id, 0)
    colors = feature_colors(joined, (rows, columns * len(frames)))
    return np.concatenate([np.concatenate([frame.color for frame in frames], axis=1), colors])


class EncoderBoard:
    """TensorBoard's log of a training run."""

    def __init__(self, logs: Path, sets: ViewSource, steps: int, done: int = 0) -> None:
        """Begin a log, or go on with one.

        Args:
            logs: folder for TensorBoard's files.
            sets: what is learnt from; some of their frames are shown.
            steps: of the run.
            done: steps that a resumed run has behind it; what was logged after them is forgotten.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(logs), purge_step=done + 1 if done else None)
        self._every = max(1, steps // PICTURES)
        numbers = np.unique(np.linspace(0, len(sets) - 1, SHOWN_SETS).astype(int))
        self._shown = [_alike(sets[int(number)].frames) for number in numbers]

    def report(self, step: int, figures: Mapping[str, float]) -> None:
        """Take down what a step said."""
        if step % SCALARS_EVERY == 0:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def wants_picture(self, step: int) -> bool:
        """Whether features shall be shown after a step."""
        return step == 1 or step % self._every == 0

    def show(self, step: int, encoder: Encoder) -> None:
        """Draw the features of the shown frames."""
        for i, frames in enumerate(self._shown):
            self._writer.add_image(f"features/{i}", feature_picture(encoder, frames), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


def _alike(frames: Sequence[RGBD]) -> list[RGBD]:
    """Some frames of the size of the first, spread over all."""
    same = [frame for frame in frames if frame.color.shape == frames[0].color.shape]
    return [same[i] for i in np.unique(np.linspace(0, len(same) - 1, SHOWN_FRAMES).astype(int))]

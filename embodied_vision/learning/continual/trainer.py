"""One stage of a shared head in training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.continual.guards import Guard
from embodied_vision.learning.continual.shared import SharedStage
from embodied_vision.learning.distributed import Group
from embodied_vision.learning.stage import Draw, Stage, StageTrainer


class SharedTrainer(StageTrainer):
    """Trains a shared stage, lets a guard hold weights, and leaves the average after some of the steps in files."""

    def __init__(
        self,
        stage: Stage,
        net: SharedStage,
        draw: Draw,
        config: TrainConfig,
        fingerprint: str,
        *,
        workers: Executor,
        snapshots: Mapping[int, Path],
        guard: Guard | None = None,
    ) -> None:
        """Start at step 0.

        Args:
            stage, net, draw, config, fingerprint, workers: see `StageTrainer`.
            snapshots: where to write the averaged weights, by the number of steps done.
            guard: of the trunk.
        """
        super().__init__(stage, net, draw, config, fingerprint, workers=workers, group=Group())
        self._snapshots, self._guard = snapshots, guard

    def advance(self) -> dict[str, float]:
        """See `StageTrainer.advance`."""
        losses = super().advance()
        if self._guard is not None:
            self._guard.settle(self.step, self.average)
        if self.step in self._snapshots:
            path = self._snapshots[self.step]
            path.parent.mkdir(parents=True, exist_ok=True)
            staging = path.with_name(f".{path.name}")
            save_file({name: value.contiguous() for name, value in self.average.items()}, staging)
            os.replace(staging, path)
        return losses

    def _set_gradients(self, values: Tensor) -> None:
        super()._set_gradients(values)
        if self._guard is not None:
            self._guard.adjust()

"""Training of an encoder without labels, from views of scenes, for one or several weighted objectives.

See `contrast`, `describe`, `masked`, `self_distillation` and `distill` for what they are, and `students` for what is
trained.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embodied_vision.encoders.augment import APPEARANCES
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.compact import Architecture, LiteArchitecture
from embodied_vision.encoders.contrast import Contrast
from embodied_vision.encoders.correspondence import Drawing, ViewSource, sample_batch
from embodied_vision.encoders.describe import Describe
from embodied_vision.encoders.distill import Distillation
from embodied_vision.encoders.ema import decay_at, follow
from embodied_vision.encoders.masked import Masked
from embodied_vision.encoders.objective import Objective, Step
from embodied_vision.encoders.self_distillation import SelfDistillation
from embodied_vision.encoders.students import LEARNING_RATE, CompactStudent, Trained, crop_multiple_px, student_of
from embodied_vision.encoders.teacher import TeacherFeatures
from embodied_vision.encoders.training_state import Done, restore_state, save_state
from embodied_vision.errors import EncoderError

TEACHER = "teacher"
USUAL: Mapping[str, float] = MappingProxyType({"match": 1.0, "describe": 0.5})
"""Objectives and weights where none are given."""


@dataclass(frozen=True)
class PretrainSettings:
    """What decides the outcome of a training run, besides its frames.

    Attributes:
        steps: optimiser steps of the whole run; the learning rate falls to zero over them.
        seed: of weights, crops and augmentations.
        pairs: pairs of crops a step.
        crop_px: edge of a crop, in whole patches, see `crop_multiple_px`.
        points: most correspondences of a pair.
        appearance: what may differ between two crops of a pair, a name of `augment.APPEARANCES`.
        poses: whether the frames have depth and camera poses, and pairs are drawn from different views.
        learning_rate: peak, of AdamW.
        weight_decay: of AdamW.
        temperature: of InfoNCE, in units of cosine similarity.
        same_point_m: points closer than about this count as partly the same.
        ema: decay a step of the averaged weights that become the encoder.
        objectives: weight of each objective, by its name in `OBJECTIVES`, or `teacher`.
    """

    steps: int = 1000
    seed: int = 0
    pairs: int = 5
    crop_px: int = 160
    points: int = 192
    appearance: str = "mild"
    poses: bool = True
    learning_rate: float = LEARNING_RATE
    weight_decay: float = 0.02
    temperature: float = 0.07
    same_point_m: float = 0.008
    ema: float = 0.995
    objectives: Mapping[str, float] = field(default_factory=lambda: dict(USUAL))

    def drawing(self) -> Drawing:
        """How pairs are drawn."""
        return Drawing(self.crop_px, self.points, self.appearance, self.poses)


OBJECTIVES: dict[str, Callable[[int, int, PretrainSettings], Objective]] = {
    "match": lambda dimension, stride_px, settings: Contrast(settings.temperature, settings.same_point_m),
    "describe": lambda dimension, stride_px, settings: Describe(dimension),
    "masked": lambda dimension, stride_px, settings: Masked(dimension, stride_px),
    "self-distillation": lambda dimension, stride_px, settings: SelfDistillation(dimension),
}
"""By name, made from the number of feature channels, the edge of a patch and the settings."""


def check(settings: PretrainSettings, taught: bool, trained: Trained) -> None:
    """Refuse settings that cannot work.

    Args:
        settings: of a run.
        taught: whether there is a teacher.
        trained: what the run trains.

    Raises:
        EncoderError: says which and what to give instead.
    """
    multiple, fewest = crop_multiple_px(trained), 0 if isinstance(trained, LiteArchitecture) else 1
    if settings.crop_px % multiple or settings.crop_px < 2 * multiple or settings.steps < fewest:
        raise EncoderError(
            f"crop of {settings.crop_px} px and {settings.steps} steps: give a multiple of {multiple} from "
            f"{2 * multiple}, and ≥ {fewest} steps"
        )
    if settings.appearance not in APPEARANCES:
        raise EncoderError(f"appearance {settings.appearance!r} is unknown; use {', '.join(APPEARANCES)}")
    known = {*OBJECTIVES, TEACHER} if taught else set(OBJECTIVES)
    for name, weight in settings.objectives.items():
        if name not in known:
            remedy = "it takes `encoder distill`" if name == TEACHER else f"there are {', '.join(sorted(known))}"
            raise EncoderError(f"objective {name!r} is unknown here: {remedy}")
        if not (np.isfinite(weight) and weight > 0):
            raise EncoderError(f"objective {name} has the weight {weight}; give a number above 0, or leave it out")
    if not settings.objectives:
        raise EncoderError(f"no objective to train for; give some of {', '.join(sorted(known))}")


class Pretraining:
    """A training run that can stop after any step and go on with the same outcome, bit for bit.

    All randomness of a step comes from the seed and the step's number, so the saved state is weights and moments
    alone.

    Attributes:
        step: steps done.
        seconds: that they took, over all processes of the run.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        sets: ViewSource,
        trained: Trained | None = None,
        teacher: TeacherFeatures | None = None,
    ) -> None:
        """
        Args:
            settings: of the run.
            sets: the frames.
            trained: the compact network of an architecture, or an adapter of a transformers model; the usual compact
                network where none is given.
            teacher: its features of the same sets, for the objective `teacher`.

        Raises:
            EncoderError: no frames, or settings that cannot work.
        """
        if len(sets) == 0:
            raise EncoderError("no frames to train on; give at least one scene or an episode with frames")
        trained = trained or Architecture()
        check(settings, teacher is not None, trained)
        self.settings = settings
        self.sets = sets
        self.step = 0
        self.seconds = 0.0
        self._teacher = teacher
        self.student = student_of(trained, settings.seed)
        if isinstance(self.student, CompactStudent):
            self.student.begin(sets)
        seen_px = sets[0].frames[0].color.shape
        self._drawing = replace(settings.drawing(), zoom=self.student.zoom((seen_px[0], seen_px[1])))
        self.objectives = {name: self._objective(name) for name in sorted(settings.objectives)}
        beside = [p for objective in self.objectives.values() for p in objective.parameters() if p.requires_grad]
        self._parameters = [*self.student.network.parameters(), *beside]
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def _objective(self, name: str) -> Objective:
        dimension = self.student.dimension
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            if name == TEACHER:
                assert self._teacher is not None
                return Distillation(dimension, self._teacher)
            objective = OBJECTIVES[name](dimension, self.student.stride_px, self.settings)
        if objective.needs_poses and not self.settings.poses:
            raise EncoderError(f"objective {name} needs depth and camera poses; leave it out, or --no-poses")
        return objective

    def encoder(self) -> Encoder:
        """The encoder as it stands: the averaged weights."""
        return self.student.encoder()

    def weights(self) -> dict[str, NDArray[Any]]:
        """The averaged weights, as they are written to disk."""
        return self.student.weights()

    def advance(self, until: int | None = None) -> Iterator[dict[str, float]]:
        """Train up to step `until` (default: the last), yielding losses after each step."""
        for _ in range(self.step, min(until or self.settings.steps, self.settings.steps)):
            started = time.monotonic()
            figures = self._step()
            self.seconds += time.monotonic() - started
            yield figures

    def _rate(self) -> float:
        progress = self.step / self.settings.steps
        warm = min(1.0, (self.step + 1) / max(1.0, 0.05 * self.settings.steps))
        return self.settings.learning_rate * warm * (0.5 + 0.5 * float(np.cos(np.pi * progress)))

    def _step(self) -> dict[str, float]:
        settings, student = self.settings, self.student
        rng = np.random.default_rng([settings.seed, self.step])
        pairs = sample_batch(rng, self.sets, settings.pairs, self._drawing)
        rate = self._rate()
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        student.network.train()
        colors = np.stack([view.color for pair in pairs for view in pair.views])
        crops = student.prepare(torch.from_numpy(colors).permute(0, 3, 1, 2))
        step = Step(student.network, student.average, pairs, crops, student.network(crops), rng)
        figures: dict[str, float] = {}
        losses = []
        for name, objective in self.objectives.items():
            value, more = objective(step)
            losses.append(settings.objectives[name] * value)
            figures |= {name: float(value.detach()), **more}
        loss = torch.stack(losses).sum()
        if not torch.isfinite(loss):
            raise EncoderError(f"loss is {float(loss)} at step {self.step} ({figures}); lower --learning-rate")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, 5.0)
        self._optimiser.step()
        decay = decay_at(self.step, settings.ema)
        follow(student.average, student.network, decay)
        for objective in self.objectives.values():
            objective.follow(decay)
        self.step += 1
        return {"loss": float(loss.detach()), **figures, "gradient_norm": float(norm), "learning_rate": rate}

    def _modules(self) -> dict[str, nn.Module]:
        objectives = nn.ModuleDict(self.objectives)
        return {"network": self.student.network, "average": self.student.average, "objectives": objectives}

    def _identity(self) -> dict[str, str]:
        return {
            "settings": json.dumps(asdict(self.settings), sort_keys=True),
            **self.student.identity(),
            "scenes": str(len(self.sets)),
            "teacher": self._teacher.encoder_id if self._teacher is not None else "none",
        }

    def save(self, path: Path) -> None:
        """Write the state of the run; a reader sees the old or the new one, whole.

        Raises:
            RunFailed: it cannot be written.
        """
        done = Done(self.step, self.seconds)
        save_state(path, self._modules(), self._optimiser, self._parameters, self._identity(), done)

    def restore(self, path: Path) -> None:
        """Go on where `save` left off.

        Raises:
            EncoderError: there is no state, it is damaged, or it belongs to a run with other settings.
        """
        done = restore_state(path, self._modules(), self._optimiser, self._parameters, self._identity())
        self.step, self.seconds = done.step, done.seconds

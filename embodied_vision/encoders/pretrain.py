"""Label-free training of the compact encoder from views with depth and known poses.

A point keeps its features when the view, the light and the sensor change, and differs from the other points of
its scene: InfoNCE over pixel correspondences (dense object nets, Florence et al. 2018, arXiv:1806.08756; dense
contrast, Wang et al. 2021, arXiv:2011.09157). A linear read-out of the point's height above the base and of its
color before the augmentation keeps both in the features.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_vision.encoders.compact import Architecture, CompactEncoder, initialised, normalise, weights_of
from embodied_vision.encoders.correspondence import Pair, View, ViewSource, sample_batch
from embodied_vision.errors import EncoderError

HEIGHT_UNIT_M = 0.05


@dataclass(frozen=True)
class PretrainSettings:
    """What decides the outcome of a training run, besides its frames.

    Attributes:
        steps: optimiser steps of the whole run; the learning rate falls to zero over them.
        seed: of weights, crops and augmentations.
        pairs: pairs of crops a step.
        crop_px: edge of a crop, a multiple of 16.
        points: most correspondences of a pair.
        learning_rate: peak, of AdamW.
        weight_decay: of AdamW.
        temperature: of InfoNCE, in units of cosine similarity.
        same_point_m: points closer than about this count as partly the same.
        describe_weight: weight of the read-out of height and color.
        ema: decay a step of the averaged weights that become the encoder.
    """

    steps: int = 1000
    seed: int = 0
    pairs: int = 5
    crop_px: int = 160
    points: int = 192
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    temperature: float = 0.07
    same_point_m: float = 0.008
    describe_weight: float = 0.5
    ema: float = 0.995


def _sampled(features: Tensor, view: View, crop_px: int) -> Tensor:
    """Bilinear samples (N, D) of one crop's features (D, h, w) at the view's points."""
    where = torch.from_numpy(2 * (view.pixels + 0.5) / crop_px - 1).to(torch.float32)
    out = F.grid_sample(features[None], where[None, None], align_corners=False, padding_mode="border")
    return out[0, :, 0].T


def correspondence_loss(first: Tensor, second: Tensor, points_m: Tensor, settings: PretrainSettings) -> Tensor:
    """Symmetric InfoNCE between the features (N, D) of the same N points (N, 3) in two views."""
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / settings.temperature
    squared = torch.cdist(points_m, points_m).square()
    same = torch.exp(-squared / (2 * settings.same_point_m**2))
    target = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target))


class Pretraining:
    """A training run that can stop after any step and go on with the same outcome, bit for bit.

    All randomness of a step comes from the seed and the step's number, so the saved state is weights and moments
    alone.
    """

    def __init__(self, settings: PretrainSettings, sets: ViewSource, architecture: Architecture | None = None) -> None:
        """
        Raises:
            EncoderError: no frames, or settings that cannot work.
        """
        if len(sets) == 0:
            raise EncoderError("no frames to train on; give at least one scene or an episode with frames")
        if settings.crop_px % 16 or settings.crop_px < 32 or settings.steps < 1:
            raise EncoderError(
                f"crop of {settings.crop_px} px and {settings.steps} steps: give a multiple of 16 from 32, and ≥ 1 step"
            )
        self.settings = settings
        self.architecture = architecture or Architecture()
        self.sets = sets
        self.step = 0
        self.network = initialised(self.architecture, settings.seed)
        self.average = initialised(self.architecture, settings.seed).requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.describe = nn.Linear(self.architecture.dimension, 4)
        self._parameters = [*self.network.parameters(), *self.describe.parameters()]
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def encoder(self) -> CompactEncoder:
        """The encoder as it stands: the averaged weights."""
        return CompactEncoder(self.architecture, self.weights())

    def weights(self) -> dict[str, NDArray[Any]]:
        """The averaged weights, as they are written to disk."""
        return weights_of(self.average)

    def advance(self, until: int | None = None) -> Iterator[dict[str, float]]:
        """Train up to step `until` (default: the last), yielding losses after each step."""
        for _ in range(self.step, min(until or self.settings.steps, self.settings.steps)):
            yield self._step()

    def _rate(self) -> float:
        progress = self.step / self.settings.steps
        warm = min(1.0, (self.step + 1) / max(1.0, 0.05 * self.settings.steps))
        return self.settings.learning_rate * warm * (0.5 + 0.5 * float(np.cos(np.pi * progress)))

    def _losses(self, batch: tuple[Pair, ...]) -> tuple[Tensor, Tensor, float]:
        settings = self.settings
        crops = np.stack([view.color for pair in batch for view in (pair.first, pair.second)])
        x = normalise(torch.from_numpy(crops).permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        features = self.network(x)
        match, describe, found = [], [], 0.0
        for i, pair in enumerate(batch):
            views = (pair.first, pair.second)
            a, b = (_sampled(features[2 * i + k], view, settings.crop_px) for k, view in enumerate(views))
            points = torch.from_numpy(np.asarray(pair.points_m, np.float32))
            match.append(correspondence_loss(a, b, points, settings))
            height = points[:, 2:] / HEIGHT_UNIT_M
            for values, view in ((a, pair.first), (b, pair.second)):
                target = torch.cat([height, torch.from_numpy(view.shades) * 4 - 2], dim=1)
                describe.append(F.smooth_l1_loss(self.describe(values), target))
            with torch.no_grad():
                nearest = (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmax(1)
                found += float(((points[nearest] - points).norm(dim=1) < 0.015).float().mean())
        return torch.stack(match).mean(), torch.stack(describe).mean(), found / len(batch)

    def _step(self) -> dict[str, float]:
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.step])
        batch = sample_batch(rng, self.sets, settings.pairs, settings.crop_px, settings.points)
        rate = self._rate()
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        match, describe, found = self._losses(batch)
        loss = match + settings.describe_weight * describe
        if not torch.isfinite(loss):
            raise EncoderError(f"loss is {float(loss)} at step {self.step}; lower --learning-rate")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, 5.0)
        self._optimiser.step()
        self._follow()
        self.step += 1
        return {
            "loss": float(loss.detach()),
            "match": float(match.detach()),
            "describe": float(describe.detach()),
            "matched_within_15mm": found,
            "gradient_norm": float(norm),
            "learning_rate": rate,
        }

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights and statistics towards the current ones, faster at first."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        source = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(source[name], 1 - decay)
            else:
                value.copy_(source[name])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"describe.{k}": v for k, v in self.describe.state_dict().items()}
        for i, parameter in enumerate(self._parameters):
            for name, value in self._optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{i}.{name}"] = value
        return tensors

    def _identity(self) -> dict[str, str]:
        return {
            "settings": json.dumps(asdict(self.settings), sort_keys=True),
            "architecture": json.dumps(asdict(self.architecture), sort_keys=True),
            "scenes": str(len(self.sets)),
        }

    def save(self, path: Path) -> None:
        """Write the state of the run; a reader sees the old or the new one, whole."""
        part = path.with_suffix(".part")
        tensors = {k: v.detach().contiguous().clone() for k, v in self._tensors().items()}
        save_file(tensors, part, metadata={**self._identity(), "step": str(self.step)})
        os.replace(part, path)

    def restore(self, path: Path) -> None:
        """Go on where `save` left off.

        Raises:
            EncoderError: there is no state, it is damaged, or it belongs to a run with other settings.
        """
        if not path.is_file():
            raise EncoderError(f"no training state at {path}; start without --resume")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors raises its own untyped error from Rust
            raise EncoderError(f"{path} cannot be read ({error}); start again without --resume") from error
        for name, value in self._identity().items():
            if metadata.get(name) != value:
                raise EncoderError(
                    f"{path} belongs to a run with {name} {metadata.get(name)}, this one has {value}; "
                    "resume with the same options, or start again in another folder"
                )
        for prefix, module in (("network", self.network), ("average", self.average), ("describe", self.describe)):
            module.load_state_dict({k: tensors[f"{prefix}.{k}"] for k in module.state_dict()})
        self._optimiser.state.clear()
        for i, parameter in enumerate(self._parameters):
            head = f"optimiser.{i}."
            self._optimiser.state[parameter] = {k[len(head) :]: v for k, v in tensors.items() if k.startswith(head)}
        self.step = int(metadata["step"])

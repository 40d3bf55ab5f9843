"""Whether an action succeeded, told from the cameras: where no simulator and no operator says it.

A small network on the maps before and after an action, trained on logged decisions whose reward is known; its
probability is calibrated on other scenes, and between two thresholds it says that it is unsure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from embodied_vision.encoders.base import Encoder
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning import provenance
from embodied_vision.learning.calibrated import Calibration, calibrate
from embodied_vision.learning.outcomes_network import OutcomeNetwork, batch, logits
from embodied_vision.learning.outcomes_views import Transition, View
from embodied_vision.policies.trained_head import TrainedHead
from embodied_vision.types import Workspace

FORMAT = "embodied-vision-outcomes-1"
LEAST_OUTCOMES = 20
"""Fewer known outcomes to learn from, or to calibrate on, are refused."""

Progress = Callable[[int, float], None]
"""Called after each step with its number and the loss."""


@dataclass(frozen=True)
class OutcomeConfig:
    """Settings of a training.

    Attributes:
        steps: of the optimiser.
        batch: transitions a step.
        learning_rate: at its highest.
        weight_decay: of AdamW.
        sure: probability from which on an action is called a success, and its failure a failure.
        seed: of weights, order and turns.
    """

    steps: int = 900
    batch: int = 24
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    sure: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.5 <= self.sure < 1:
            raise BadInput(f"sure is {self.sure:g}; give a probability in [0.5, 1)")


@dataclass(frozen=True, eq=False)
class Classifier(TrainedHead[OutcomeNetwork]):
    """A trained judge of outcomes.

    Attributes:
        dimension: channels of the features.
        calibration: from logit to probability.
        sure: see `OutcomeConfig`.
    """

    form: ClassVar[str] = FORMAT
    what: ClassVar[str] = "outcome classifier"
    id_name: ClassVar[str] = "classifier_id"

    dimension: int
    calibration: Calibration
    sure: float

    @property
    def classifier_id(self) -> str:
        """Its id, by the name that its manifest gives it."""
        return self.checkpoint_id

    def _own_settings(self) -> dict[str, Any]:
        return {"dimension": self.dimension, "calibration": self.calibration.to_dict(), "sure": self.sure}

    @classmethod
    def _own_fields(cls, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "dimension": int(manifest["dimension"]),
            "calibration": Calibration.from_dict(manifest["calibration"]),
            "sure": float(manifest["sure"]),
        }

    def _untrained(self) -> OutcomeNetwork:
        return OutcomeNetwork(self.dimension)

    def _card(self) -> str:
        training, measured = self.training, self.measured
        lines = [
            f"# Judge of outcomes of {self.task}",
            "",
            "Tells from the maps before and after a pick and place whether it earned anything.",
            "",
            f"- Classifier `{self.classifier_id}`, encoder `{self.encoder_id}`",
            f"- Outcomes learnt from: {training.get('learnt_from', '?')}",
            f"- Outcomes calibrated on: {training.get('calibrated_on', '?')}",
            f"- Says nothing between the probabilities {1 - self.sure:g} and {self.sure:g}",
            f"- Made by: `{training.get('command', 'unknown')}` at commit {training.get('git_commit', 'unknown')}",
            "",
            "## Measured",
            "",
        ]
        if measured:
            lines.append(
                f"{measured['outcomes']} held-out outcomes: {100 * measured['accuracy']['value']:.1f} % right, "
                f"unsure about {100 * measured['unsure']['value']:.1f} %, expected calibration error "
                f"{measured['reliability']['expected_error']:.3f}, Brier score {measured['reliability']['brier']:.3f}"
            )
        else:
            lines.append("Not measured yet: `embodied-vision learn outcomes evaluate`.")
        return "\n".join([*lines, ""])


load, save = Classifier.load, Classifier.save


def fit(
    task: str,
    encoder: Encoder,
    workspace: Workspace,
    learn_from: Sequence[Transition],
    calibrate_on: Sequence[Transition],
    config: OutcomeConfig,
    report: Progress | None = None,
) -> Classifier:
    """Train a classifier and calibrate it; the same data, settings and seed give the same one.

    Args:
        task: whose actions are judged.
        encoder: whose features the transitions hold.
        workspace: what they map.
        learn_from: outcomes that are not known are left out, as is what holds numbers that are not finite.
        calibrate_on: of other scenes.
        config: settings.
        report: progress.

    Raises:
        BadInput: too few known outcomes, or all of them alike.
        RunFailed: the loss is not finite.
    """
    known = _known(learn_from, "to learn from", task)
    others = _known(calibrate_on, "to calibrate on", task)
    if {t.scene for t in known} & {t.scene for t in others}:
        raise BadInput("a scene is in what is learnt from and in what calibrates; keep them apart, see part_of")
    views = [t.view for t in known]
    labels = torch.tensor([float(bool(t.succeeded)) for t in known])
    if len(set(labels.tolist())) < 2:
        raise BadInput(
            f"all {len(known)} outcomes to learn from are {'successes' if labels[0] else 'failures'}; log some of the "
            f"other kind, or collect them: embodied-vision learn outcomes collect --task {task}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = OutcomeNetwork(encoder.dimension)
        network.mean, network.std = _statistics(views)
        _optimise(network, views, labels, config, report)
    calibration = calibrate(logits(network, [t.view for t in others]), [bool(t.succeeded) for t in others])
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    training = {
        "episodes": sorted({t.source.split("/")[0] for t in (*known, *others)}),
        "learnt_from": len(known),
        "successes": int(labels.sum()),
        "calibrated_on": len(others),
        "settings": asdict(config),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "command": provenance.command(),
    }
    return Classifier(
        task=task,
        encoder_id=encoder.encoder_id,
        workspace=workspace,
        weights=weights,
        training=training,
        dimension=encoder.dimension,
        calibration=calibration,
        sure=config.sure,
    )


def _known(given: Sequence[Transition], what: str, task: str) -> list[Transition]:
    known = [t for t in given if t.succeeded is not None and t.view.is_finite()]
    if len(known) < LEAST_OUTCOMES:
        raise BadInput(
            f"{len(known)} known outcomes of {task!r} {what}, {LEAST_OUTCOMES} are needed; log more episodes, or "
            f"collect some with mistakes: embodied-vision learn outcomes collect --task {task}"
        )
    return known


def _statistics(views: Sequence[View]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of the features over the seen cells."""
    values = np.concatenate([cells[(cells != 0).any(1)] for view in views for cells in [_cells(view.features)]]).astype(
        np.float64
    )
    if not len(values):
        raise BadInput("no feature is seen around any action; does the workspace lie before the cameras?")
    std = np.maximum(values.std(0), 1e-3 * max(float(values.std()), 1e-6))
    return torch.from_numpy(values.mean(0)).float(), torch.from_numpy(std).float()


def _cells(features: NDArray[np.float16]) -> NDArray[np.float16]:
    return np.moveaxis(features, 2, -1).reshape(-1, features.shape[2])[::5]


def _optimise(
    network: OutcomeNetwork, views: Sequence[View], labels: Tensor, config: OutcomeConfig, report: Progress | None
) -> None:
    rng = np.random.default_rng([config.seed, len(views)])
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps + 1)
    good, bad = (np.flatnonzero(labels.numpy() == kind) for kind in (1.0, 0.0))
    network.train()
    for step in range(config.steps):
        # Both kinds in equal numbers; what the share really is, the calibration knows.
        half = config.batch // 2
        chosen = np.concatenate([rng.choice(good, half), rng.choice(bad, config.batch - half)])
        angles = rng.uniform(-math.pi, math.pi, (len(chosen), 2))
        inputs = batch([views[i] for i in chosen], angles, list(rng.uniform(size=len(chosen)) < 0.5))
        loss = functional.binary_cross_entropy_with_logits(network(*inputs), labels[chosen])
        if not torch.isfinite(loss):
            raise RunFailed(f"the loss is {float(loss)} at step {step}; lower the learning rate")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if report is not None:
            report(step + 1, float(loss.detach()))
    network.eval()


def with_measured(classifier: Classifier, measured: Mapping[str, Any]) -> Classifier:
    """The classifier with figures in its manifest; its id stays."""
    return replace(classifier, measured=measured)

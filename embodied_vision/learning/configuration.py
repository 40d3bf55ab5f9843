"""The settings of a training run, their defaults, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_vision.errors import BadInput
from embodied_vision.learning import yaml_config
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the optimisation; one set serves every task.

    Attributes:
        steps: optimiser steps of each stage.
        batch: examples a step.
        learning_rate: at its highest; warms up over 5 % of the steps and falls as a cosine to 2 %.
        weight_decay: of AdamW.
        ema: decay of the averaged weights, which are the result; in [0, 1).
        tried: rotation bins that a fine step tries, of all.
        clip: largest norm of the gradient.
        seed: all randomness.

    Raises:
        BadInput: a value is out of its range.
    """

    steps: int = 2000
    batch: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    ema: float = 0.995
    tried: int = 8
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_optimisation(self, {"steps": 1, "batch": 1, "tried": 1, "seed": 0})


def check_optimisation(settings: Any, least: Mapping[str, int]) -> None:
    """Refuse settings of an optimiser that are out of their range.

    Args:
        settings: with `learning_rate`, `weight_decay`, `ema`, `clip`, and what `least` names.
        least: by name, the least that a number may be.

    Raises:
        BadInput: one is.
    """
    for name, lowest in least.items():
        if getattr(settings, name) < lowest:
            raise BadInput(f"{name} is {getattr(settings, name)}, give at least {lowest}")
    for name in ("learning_rate", "weight_decay"):
        if not 0 <= getattr(settings, name) < math.inf:
            raise BadInput(f"{name} is {getattr(settings, name)}, give a finite number that is not negative")
    if not 0 <= settings.ema < 1:
        raise BadInput(f"ema is {settings.ema}, give a decay in [0, 1)")
    if not settings.clip > 0:
        raise BadInput(f"clip is {settings.clip}, give a positive norm")


@dataclass(frozen=True)
class RunConfig:
    """All settings of a training run.

    Attributes:
        train: how the weights are optimised.
        network: shapes of the networks.
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def to_yaml(self) -> str:
        """A configuration file, documentation as comments."""
        return yaml_config.to_yaml(self, without=GIVEN_BY_ENCODER)

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Read a configuration file; what it leaves out has its default.

        Raises:
            BadInput: it cannot be read, or a key or value in it cannot be used.
        """
        return _buildable(yaml_config.read_yaml(cls, path, without=GIVEN_BY_ENCODER), str(path))

    def assigned(self, assignment: str) -> RunConfig:
        """These settings with one of them given as SECTION.NAME=VALUE.

        Raises:
            BadInput: key or value cannot be used.
        """
        return _buildable(yaml_config.assigned(self, assignment, without=GIVEN_BY_ENCODER), repr(assignment))


GIVEN_BY_ENCODER = frozenset({"network.features"})
"""Not a setting: the encoder says how many features there are."""


def _buildable(config: RunConfig, source: str) -> RunConfig:
    """The configuration itself, if networks of its shapes exist."""
    try:
        PolicyNetwork.seeded(config.network, 0)
    except (ValueError, RuntimeError, ZeroDivisionError, IndexError) as error:
        raise BadInput(f"no network has the shapes of section network in {source}: {error}; correct them") from error
    return config

"""The settings of a training run of the grasp head, their defaults, and what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from embodied_vision.errors import BadInput
from embodied_vision.learning import yaml_config
from embodied_vision.learning.configuration import check_optimisation
from embodied_vision.policies.grasp_network import GraspConfig


@dataclass(frozen=True)
class GraspTrainConfig:
    """Settings of the optimisation.

    Attributes:
        steps: optimiser steps.
        batch: grasps a step, at least 2.
        learning_rate: at its highest; warms up over 5 % of the steps and falls as a cosine to 0.
        weight_decay: of AdamW.
        ema: decay of the averaged weights, which are the result; in [0, 1).
        clip: largest norm of the gradient.
        held_out: share of the scenes that only check what was learnt, in (0, 0.5].
        seed: all randomness.

    Raises:
        BadInput: a value is out of its range.
    """

    steps: int = 3000
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 2e-2
    ema: float = 0.995
    clip: float = 1.0
    held_out: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_optimisation(self, {"steps": 1, "batch": 2, "seed": 0})
        if not 0 < self.held_out <= 0.5:
            raise BadInput(f"held_out is {self.held_out}, give a share in (0, 0.5]")


@dataclass(frozen=True)
class Variation:
    """How much what is learnt from varies.

    Attributes:
        shift_cells: the tip lies up to so far from the middle of a view, along each axis.
        yaw_rad: standard deviation of a turn that leaves the label as it is.
        height_m: standard deviation of an offset of the whole map's height.
        noise_m: standard deviation of the height of a cell.
        gain: colors are multiplied by 1 ± this.

    Raises:
        BadInput: a value is negative.
    """

    shift_cells: float = 5.0
    yaw_rad: float = 0.06
    height_m: float = 0.001
    noise_m: float = 0.0007
    gain: float = 0.3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise BadInput(f"{name} is {value}, give a finite number that is not negative")


@dataclass(frozen=True)
class GraspRunConfig:
    """All settings of a training run.

    Attributes:
        train: how the weights are optimised.
        variation: of what is learnt from.
        network: shape of the network.
    """

    train: GraspTrainConfig = field(default_factory=GraspTrainConfig)
    variation: Variation = field(default_factory=Variation)
    network: GraspConfig = field(default_factory=GraspConfig)

    def to_yaml(self) -> str:
        """A configuration file, documentation as comments."""
        return yaml_config.to_yaml(self, without=GIVEN_BY_ENCODER)

    @classmethod
    def read(cls, path: Path) -> GraspRunConfig:
        """Read a configuration file; what it leaves out has its default.

        Raises:
            BadInput: it cannot be read, or a key or value in it cannot be used.
        """
        return yaml_config.read_yaml(cls, path, without=GIVEN_BY_ENCODER)

    def assigned(self, assignment: str) -> GraspRunConfig:
        """These settings with one of them given as SECTION.NAME=VALUE.

        Raises:
            BadInput: key or value cannot be used.
        """
        return yaml_config.assigned(self, assignment, without=GIVEN_BY_ENCODER)


GIVEN_BY_ENCODER = frozenset({"network.features"})
"""Not a setting: the encoder says how many features there are."""

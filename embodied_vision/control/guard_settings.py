"""Bounds of the guard beside the joint limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodied_vision.errors import BadInput


@dataclass(frozen=True)
class GuardSettings:
    """Bounds beside the joint limits.

    Attributes:
        observation_age_s: greatest age of the frames that a decision came from.
        joint_state_age_s: greatest age of the joint state that a trajectory starts from.
        clock_slack_s: how far a stamp may lie in the future.
        jump_rad: greatest distance of a trajectory's start from the current joint positions.
        gap_s: greatest time between samples of a trajectory.
        tip_height_m: least height of the tip above the base's z = 0, the table.
        body_height_m: least height above the table of every part of arm and tool that moves.
        path_margin_m: how far the tip may travel outside the workspace in x and y.
        ceiling_m: greatest height of the tip.
        clearance_m: least distance between parts of the arm, and from every part to keep-out boxes.
    """

    observation_age_s: float = 2.0
    joint_state_age_s: float = 0.25
    clock_slack_s: float = 0.05
    jump_rad: float = 0.1
    gap_s: float = 0.05
    tip_height_m: float = 0.002
    body_height_m: float = 0.0
    path_margin_m: float = 0.2
    ceiling_m: float = 0.9
    clearance_m: float = 0.005

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < np.inf:
                raise BadInput(f"guard setting {name} is {value}; give a finite number of at least 0")
        if not self.tip_height_m < self.ceiling_m:
            raise BadInput(
                f"tip_height_m {self.tip_height_m} is not below ceiling_m {self.ceiling_m}; leave the tip room"
            )

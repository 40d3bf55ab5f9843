"""What the arm node knows of its arm, a joint state, and what it says of it, a status. No ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ArmState = Literal["idle", "moving", "paused", "stopped"]


@dataclass(frozen=True, eq=False)
class Joints:
    """A joint state: positions (J,) in rad, velocities (J,) in rad/s, and when it was measured."""

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    stamp_ns: int

    def at(self, now_ns: int) -> NDArray[np.float64]:
        """Positions (J,) extrapolated over the age of the measurement, by 0.1 s at most."""
        age_s = min(max((now_ns - self.stamp_ns) * 1e-9, 0.0), 0.1)
        return self.positions + self.velocities * age_s


@dataclass(frozen=True)
class ArmStatus:
    """What the arm says about itself.

    Attributes:
        state: `paused`: it stands and waits for who fell silent; `stopped`: until someone resumes it.
        decision_id: the decision in hand or done last; `home` for the way home.
        done: that decision was carried out completely.
        aborted: it was begun and given up.
        refused: the rule that refused it, empty otherwise.
        failed: `grasp_missed` when nothing was held after the lift, `dropped` when it was lost on the way; the arm
            then lets go and returns home, and the decision is over without being done.
        reason: in words, why it was not done or why the arm stands.
        segment: part of the motion in hand.
        ended_ns: when the last motion ended.
        last_sent_ns: when the last trajectory of that motion was sent; what is judged later was judged after it.
        refusals: how many decisions and trajectories were refused so far.
        lost: who is not heard or not ready, comma-separated; nothing begins until it is empty.
        speed_scaling: pace at which the driver runs trajectories, 0 … 1.
        dry_run: nothing is sent to arm and gripper; what is said here is what they would do.
    """

    state: ArmState = "idle"
    decision_id: str = ""
    done: bool = False
    aborted: bool = False
    refused: str = ""
    failed: str = ""
    reason: str = ""
    segment: str = ""
    ended_ns: int = 0
    last_sent_ns: int = 0
    refusals: int = 0
    lost: str = ""
    speed_scaling: float = 1.0
    dry_run: bool = False

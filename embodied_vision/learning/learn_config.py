"""Settings of one round of learning."""

from __future__ import annotations

from dataclasses import dataclass

from embodied_vision.errors import BadInput
from embodied_vision.learning.experience import Weights
from embodied_vision.learning.gate import Limits
from embodied_vision.learning.holdout import SHARE
from embodied_vision.learning.non_inferiority import fewest_scenes

LIMITS = Limits()


@dataclass(frozen=True)
class LearnConfig:
    """Settings of one round of learning.

    Attributes:
        steps: of fine-tuning, each stage.
        minutes: fine-tuning ends after these at the latest, with what it has by then.
        learning_rate: at its highest; a quarter of that of training from scratch.
        failed: weight of an action that failed, and is to be avoided, against one that is to be done, 0 … 1; 0 leaves
            such actions out, see `experience_losses`.
        scenes: validation scenes on which candidate and policy in use are compared; 0 where no simulator knows the
            cell, then logged episodes and shadow decide.
        seed_offset: number of the first of them.
        holdout: share of the logged episodes that is never learnt from, see `holdout`.
        logged: held-out logged episodes that both decide again, the newest, at most.
        margin, level, latency_ratio, latency_ms, size_mb: what is asked of a candidate, see `gate.Limits`.
        canary: episodes for which a promoted policy is watched, see `canary`; 0 for none.
        seed: of order and augmentation.
        threads: 2 trains the stages side by side.
        workers: processes that evaluate.
    """

    steps: int = 150
    minutes: float = 10.0
    learning_rate: float = 5e-4
    failed: float = Weights.failed
    scenes: int = 100
    seed_offset: int = 0
    holdout: float = SHARE
    logged: int = 100
    margin: float = LIMITS.margin
    level: float = LIMITS.level
    latency_ratio: float = LIMITS.latency_ratio
    latency_ms: float | None = LIMITS.latency_ms
    size_mb: float = LIMITS.size_mb
    canary: int = 20
    seed: int = 0
    threads: int = 2
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.failed <= 1:
            raise BadInput(f"the weight of what failed is {self.failed:g}; give 0 to 1, 0 to leave it out")
        fewest = fewest_scenes(self.margin, self.level)
        if 0 < self.scenes < fewest:
            raise BadInput(
                f"{self.scenes} scenes cannot show that a candidate is not worse by {100 * self.margin:g} %, even if "
                f"it loses none; compare on at least {fewest}, see `embodied-vision learn scenes`, or allow a larger "
                "margin"
            )

    @property
    def limits(self) -> Limits:
        """What is asked of a candidate."""
        return Limits(self.margin, self.level, self.latency_ratio, self.latency_ms, self.size_mb)

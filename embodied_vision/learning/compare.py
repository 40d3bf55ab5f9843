"""Two evaluations on the same scenes, compared scene by scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embodied_vision.errors import BadInput
from embodied_vision.learning.scene_results import SceneResult
from embodied_vision.learning.statistics import Interval, bootstrap, mcnemar


@dataclass(frozen=True)
class Comparison:
    """B against A over the same scenes.

    Attributes:
        pairs: results of A and B, one pair a scene.
        difference: mean of reward of B less reward of A, with its paired bootstrap interval.
        only_a: scenes that only A solved.
        only_b: scenes that only B solved.
        p_value: of the exact McNemar test on the scenes that one of them solved.
    """

    pairs: Sequence[tuple[SceneResult, SceneResult]]
    difference: Interval
    only_a: int
    only_b: int
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; scores and differences × 100."""
        return {
            "scenes": len(self.pairs),
            "score_a": round(100 * sum(a.reward for a, _ in self.pairs) / len(self.pairs), 2),
            "score_b": round(100 * sum(b.reward for _, b in self.pairs) / len(self.pairs), 2),
            "difference": round(100 * self.difference.value, 2),
            "ci_low": round(100 * self.difference.low, 2),
            "ci_high": round(100 * self.difference.high, 2),
            "solved_a": sum(a.solved for a, _ in self.pairs),
            "solved_b": sum(b.solved for _, b in self.pairs),
            "only_a": self.only_a,
            "only_b": self.only_b,
            "p_value": self.p_value,
            "results": [
                {
                    "seed": a.seed,
                    "reward_a": round(a.reward, 4),
                    "reward_b": round(b.reward, 4),
                    "difference": round(b.reward - a.reward, 4),
                    "solved_a": a.solved,
                    "solved_b": b.solved,
                }
                for a, b in self.pairs
            ],
        }


def compare(a: Sequence[SceneResult], b: Sequence[SceneResult]) -> Comparison:
    """Compare results on the same seeds, in the same order.

    Raises:
        BadInput: there are none, or the seeds differ.
    """
    seeds = [result.seed for result in a]
    if not seeds or seeds != [result.seed for result in b]:
        raise BadInput(f"{len(a)} and {len(b)} results are not of the same scenes; evaluate both on the same seeds")
    pairs = list(zip(a, b, strict=True))
    only_a = sum(first.solved and not second.solved for first, second in pairs)
    only_b = sum(second.solved and not first.solved for first, second in pairs)
    return Comparison(
        pairs=pairs,
        difference=bootstrap([second.reward - first.reward for first, second in pairs]),
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar(only_a, only_b),
    )

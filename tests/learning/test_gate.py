"""The gate lets through what is shown to be no worse, and says in words and figures why it refuses anything else."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from embodied_vision.errors import BadInput
from embodied_vision.learning.gate import Cost, Limits, Pairs, Source, judge
from embodied_vision.learning.non_inferiority import LEVEL

LIMITS = Limits()


def pairs(
    wins: int, losses: int, scenes: int = 100, *, task: str = "stack", source: Source = "simulation", new: bool = True
) -> Pairs:
    """As many scenes won and lost; all others are solved by both."""
    ours = [True] * wins + [False] * losses + [True] * (scenes - wins - losses)
    theirs = [False] * wins + [True] * losses + [True] * (scenes - wins - losses)
    return Pairs(task, source, [str(i) for i in range(scenes)], ours, theirs, is_new=new)


def test_an_equal_candidate_passes_and_the_reason_says_on_what() -> None:
    verdict = judge([pairs(0, 0)], LIMITS)
    assert verdict.passed
    assert verdict.reason == "no worse: 0 won, 0 lost on 100 validation scenes in simulation of stack"


def test_a_worse_one_is_refused_with_figures_and_the_scenes_that_show_it() -> None:
    verdict = judge([pairs(0, 6)], LIMITS)
    assert not verdict.passed
    assert "may be worse by more than 5 %: 0 won, 6 lost" in verdict.reason
    finding = json.loads(json.dumps(verdict.to_dict()))["findings"][0]
    assert finding["details"]["only_baseline"] == ["0", "1", "2", "3", "4", "5"]
    assert finding["details"]["p_value"] > LEVEL


def test_too_few_scenes_are_told_with_how_many_it_takes() -> None:
    assert "fewer than 59 scenes cannot show less" in judge([pairs(0, 0, 20)], LIMITS).reason
    assert "scenes show it four times in five" in judge([pairs(2, 2, 80)], LIMITS).reason


def test_new_work_must_not_be_lost_and_old_work_only_within_the_margin() -> None:
    lost = pairs(0, 1, 200)
    assert not judge([lost], LIMITS).passed
    assert judge([pairs(0, 0), replace(lost, task="old", is_new=False)], LIMITS).passed
    assert not judge([pairs(0, 0), pairs(0, 8, 100, task="old", new=False)], LIMITS).passed


def test_what_is_better_is_told_at_a_level_corrected_for_the_number_of_tasks() -> None:
    """Five wins and no loss: p = 1/32, enough for one task and not for one of four."""
    assert judge([pairs(5, 0)], LIMITS).reason.startswith("better")
    four = judge([pairs(5, 0), *(pairs(0, 0, task=f"t{i}") for i in range(3))], LIMITS)
    assert four.passed
    assert "better" not in four.reason


def test_logged_episodes_object_beside_simulation_and_decide_without_it() -> None:
    assert judge([pairs(0, 0), pairs(0, 3, 20, source="logged")], LIMITS).passed
    objection = judge([pairs(0, 0), pairs(0, 8, 20, source="logged")], LIMITS)
    assert objection.reason == "candidate is worse: 0 won, 8 lost on 20 held-out logged episodes of stack"
    assert not judge([pairs(0, 3, 20, source="logged")], LIMITS).passed
    assert judge([pairs(0, 0, 60, source="shadow")], LIMITS).passed


def test_partial_rewards_count_too() -> None:
    equal = pairs(0, 0)
    lower = replace(equal, candidate_score=[0.8] * 100, baseline_score=[1.0] * 100)
    assert "scores lower: -20.0" in judge([lower], LIMITS).reason
    assert judge([replace(equal, candidate_score=[1.0] * 100, baseline_score=[0.9] * 100)], LIMITS).passed


def test_hard_rules_latency_and_size_refuse() -> None:
    assert judge([pairs(0, 0)], LIMITS, broken=["the guard refused"]).reason == "the guard refused"
    fine = Cost(50, 2_000_000)
    assert judge([pairs(0, 0)], LIMITS, cost=(fine, fine)).passed
    assert "takes 90 ms, above 65 ms" in judge([pairs(0, 0)], LIMITS, cost=(replace(fine, decision_ms=90), fine)).reason
    assert "above 40 ms" in judge([pairs(0, 0)], replace(LIMITS, latency_ms=40), cost=(fine, fine)).reason
    assert "80.0 MB" in judge([pairs(0, 0)], LIMITS, cost=(replace(fine, size_bytes=80_000_000), fine)).reason
    assert not judge([pairs(0, 0)], LIMITS, cost=(replace(fine, decision_ms=math.nan), fine)).passed


def test_nothing_to_judge_by_is_refused() -> None:
    with pytest.raises(BadInput, match="nothing to judge"):
        judge([], LIMITS)


@pytest.mark.parametrize("discordant", [0.0, 0.05])
def test_false_promotions_by_simulation_of_the_whole_gate(discordant: float) -> None:
    """Two tasks, one of them worse by the margin: promoted at most at the level, over 600 rounds."""
    rng = np.random.default_rng(3)

    def drawn(win: float, loss: float, task: str) -> Pairs:
        wins, losses, _ = rng.multinomial(100, [win, loss, 1 - win - loss])
        return pairs(int(wins), int(losses), task=task, new=False)

    rounds: Sequence[bool] = [
        judge([drawn(0.0, 0.0, "new"), drawn(discordant, discordant + LIMITS.margin, "old")], LIMITS).passed
        for _ in range(600)
    ]
    assert np.mean(rounds) <= LEVEL + 2 * np.sqrt(LEVEL / 600)

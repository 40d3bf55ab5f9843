"""The scenario of a cell that changes: resumed where it was, and its figures are of what was done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.errors import BadInput
from embodied_vision.learning.scenario import CONDITIONS, Plan, figures, trial_seeds, work
from embodied_vision.learning.scenario_plot import draw
from embodied_vision.learning.scene_results import SceneResult
from embodied_vision.learning.seeds import split_of

PLAN = Plan(episodes=8, change_at=3, recovery=4, trials=40)


class MadeUp:
    """Fails after the change until the third episode there; killed before `until`."""

    def __init__(self, until: int = 100) -> None:
        self.worked: list[tuple[int, str]] = []
        self._until = until

    def work(self, seed: int, condition: Mapping[str, Any]) -> tuple[float, bool, str, str]:
        number = seed - PLAN.seed(0)
        if number >= self._until:
            raise KeyboardInterrupt
        self.worked.append((number, str(condition["name"])))
        solved = number < PLAN.change_at or number >= PLAN.change_at + 2
        return float(solved), solved, "second" if number >= PLAN.change_at + 2 else "first", f"e{number}"


def results(solved: int) -> list[SceneResult]:
    return [SceneResult(seed, float(n < solved), n < solved, 1) for n, seed in enumerate(trial_seeds(PLAN))]


def test_the_cell_changes_at_its_episode_and_a_broken_off_scenario_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "episodes.jsonl"
    with pytest.raises(KeyboardInterrupt):
        work(PLAN, MadeUp(until=5), log, lambda _: None)
    cell, said = MadeUp(), []
    worked = work(PLAN, cell, log, said.append)
    assert [number for number, _ in cell.worked] == [5, 6, 7]
    assert [w.condition for w in worked] == ["usual"] * 3 + ["evening"] * 5
    assert said == worked
    assert set(CONDITIONS) == {"usual", "evening"}
    with pytest.raises(BadInput, match="another plan"):
        work(Plan(episodes=8, change_at=4, recovery=4), MadeUp(), log, lambda _: None)


def test_scenes_of_work_teach_and_those_of_trials_never_do() -> None:
    assert {split_of(PLAN.seed(number)) for number in range(PLAN.episodes)} == {"train"}
    assert {split_of(seed) for seed in trial_seeds(PLAN)} == {"validation"}


@pytest.mark.parametrize(
    ("recovered", "kept", "shown"),
    [
        (40, 40, {"success_drops": True, "recovers_95_percent": True, "old_not_worse_by_0.05": True}),
        (36, 30, {"success_drops": True, "recovers_95_percent": False, "old_not_worse_by_0.05": False}),
    ],
)
def test_figures_say_what_is_shown_and_what_is_not(
    tmp_path: Path, recovered: int, kept: int, shown: dict[str, bool]
) -> None:
    worked = work(PLAN, MadeUp(), tmp_path / "episodes.jsonl", lambda _: None)
    trials = {
        ("first", "usual"): results(40),
        ("first", "evening"): results(20),
        ("recovered", "evening"): results(recovered),
        ("last", "evening"): results(recovered),
        ("last", "usual"): results(kept),
    }
    told = figures(PLAN, worked, trials)
    assert told["shown"] == shown
    assert told["recovered_share"] == recovered / 40
    assert told["old_conditions"]["difference"] == (kept - 40) / 40
    assert told["episodes_solved"]["after_by_the_policy_of_the_change"]["solved"] == 0
    assert told["promotions"] == 1
    draw(tmp_path / "figure.png", PLAN, worked, {**told, "through": "one process"})
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_a_plan_that_leaves_no_room_to_recover_is_refused() -> None:
    with pytest.raises(BadInput, match="do not fit"):
        Plan(episodes=50, change_at=30, recovery=30)

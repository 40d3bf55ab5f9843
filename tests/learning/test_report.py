"""The report's histograms count every scene once."""

from __future__ import annotations

from embodied_vision.learning.report import reward_bars, step_bars
from embodied_vision.learning.scene_results import SceneResult


def test_scenes_are_counted_by_reward_and_by_steps() -> None:
    rewards = {0.0: 2, 0.3: 1, 0.99: 3, 1.0: 4}
    results = [SceneResult(k, reward, reward == 1.0, k % 3 + 1) for reward, n in rewards.items() for k in range(n)]
    bars = {label: (solved, failed) for label, solved, failed in reward_bars(results)}
    assert bars["0.0–0.1"] == (0, 2)
    assert bars["0.3–0.4"] == (0, 1)
    assert bars["0.9–1.0"] == (0, 3)
    assert bars["solved"] == (4, 0)
    assert sum(map(sum, bars.values())) == len(results)
    assert step_bars(results) == [("1", 2, 3), ("2", 1, 2), ("3", 1, 1)]

"""The test of the gate keeps its level at the edge of the hypothesis, and plans as many scenes as it then needs."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.errors import BadInput
from embodied_vision.learning.non_inferiority import (
    LEVEL,
    fewest_scenes,
    non_inferior,
    one_sided,
    scenes_needed,
    statistic,
    table,
)


def test_the_statistic_is_the_score_test_of_the_published_example() -> None:
    """Tango (1998), table II: 44 pairs, 0 and 1 discordant, Δ = 0.1, Z = 1.709; 2q from his equation by hand."""
    wins, losses, n, margin = 0, 1, 44, 0.1
    rates = np.linspace(margin, (1 + margin) / 2, 2_000_001)[1:-1]
    log_likelihood = losses * np.log(rates) + (n - wins - losses) * np.log(1 - 2 * rates + margin)
    rate = rates[np.argmax(log_likelihood)]
    by_search = (wins - losses + n * margin) / np.sqrt(n * (2 * rate - margin - margin**2))
    assert statistic(wins, losses, n, margin) == pytest.approx(by_search, abs=1e-4)
    assert statistic(wins, losses, n, margin) == pytest.approx(1.709, abs=0.01)


@pytest.mark.parametrize(("scenes", "margin"), [(59, 0.05), (100, 0.05), (45, 0.1)])
def test_no_candidate_that_is_worse_by_the_margin_passes_more_often_than_the_level(scenes: int, margin: float) -> None:
    """False promotions, exact at rates that the p values were not computed at, and by simulation at three."""
    outcomes = table(scenes, margin)
    rates = np.random.default_rng(0).uniform(margin, (1 + margin) / 2, 200)
    assert max(outcomes.passes(loss - margin, loss) for loss in rates) <= LEVEL + 2e-4
    passes = set(map(tuple, np.stack([outcomes.wins, outcomes.losses], 1)[outcomes.p_value <= LEVEL].tolist()))
    rng = np.random.default_rng(1)
    for loss in (margin, margin + 0.03, margin + 0.2):
        drawn = rng.multinomial(scenes, [loss - margin, loss, 1 - 2 * loss + margin], 20_000)
        share = np.mean([(int(w), int(x)) in passes for w, x, _ in drawn])
        assert share <= LEVEL + 3 * np.sqrt(LEVEL / 20_000)


def test_scenes_needed_are_enough_and_one_fewer_step_is_not() -> None:
    needed = scenes_needed(0.05, 0.02)
    assert needed is not None
    assert table(needed, 0.05).passes(0.01, 0.01) >= 0.8
    assert table(needed - 1, 0.05).passes(0.01, 0.01) < 0.8
    three = scenes_needed(0.05, 0.02, tasks=3)
    assert three is not None
    assert three > needed
    assert scenes_needed(0.01, 0.5) is None


def test_fewer_scenes_than_the_fewest_show_nothing() -> None:
    fewest = fewest_scenes(0.05)
    assert fewest == 59
    assert non_inferior([True] * fewest, [True] * fewest, 0.05).shown
    assert not non_inferior([True] * (fewest - 1), [True] * (fewest - 1), 0.05).shown


def test_wins_and_losses_are_counted_in_pairs() -> None:
    test = non_inferior([True, True, False, False], [True, False, True, True], 0.3)
    assert (test.scenes, test.wins, test.losses, test.difference) == (4, 1, 2, -0.25)
    assert test.worse_p == pytest.approx(0.5)
    assert test.better_p == pytest.approx(0.875)
    assert one_sided(5, 0) == pytest.approx(1 / 32)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(BadInput, match="1 and 2 outcomes are no pairs"):
        non_inferior([True], [True, True], 0.05)
    with pytest.raises(BadInput, match="margin 0"):
        table(10, 0.0)
    with pytest.raises(BadInput, match="no pairs"):
        non_inferior([], [], 0.05)

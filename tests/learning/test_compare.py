"""Scenes are compared in pairs: what both do alike says nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embodied_vision.errors import BadInput
from embodied_vision.learning.compare import compare
from embodied_vision.learning.scene_results import SceneResult


def results(rewards: list[float]) -> list[SceneResult]:
    return [SceneResult(1_000_000 + k, reward, reward >= 1, 3) for k, reward in enumerate(rewards)]


def test_a_small_steady_gain_shows_in_pairs_alone() -> None:
    """Scenes differ by far more than the two policies do."""
    base = np.linspace(0, 0.9, 40)
    a, b = results(base.tolist()), results((base + 0.02).tolist())
    found = compare(a, b)
    assert found.difference.value == pytest.approx(0.02)
    assert 0.019 < found.difference.low <= found.difference.high < 0.021
    assert compare(b, a).difference.value == pytest.approx(-0.02)


def test_scenes_that_one_alone_solved_decide() -> None:
    found = compare(results([1, 1, 0.5, 0, 0, 0, 0, 0]), results([1, 0, 0.5, 1, 1, 1, 1, 1]))
    assert (found.only_a, found.only_b) == (1, 5)
    assert found.p_value == pytest.approx(2 * (1 + 6) / 2**6)
    figures = found.to_dict()
    assert (figures["solved_a"], figures["solved_b"], figures["difference"]) == (2, 6, 50.0)
    assert [row["difference"] for row in figures["results"]] == [0, -1, 0, 1, 1, 1, 1, 1]
    json.dumps(figures)


def test_other_scenes_are_refused() -> None:
    with pytest.raises(BadInput, match="not of the same scenes"):
        compare(results([1, 1]), results([1]))
    with pytest.raises(BadInput, match="not of the same scenes"):
        compare([], [])

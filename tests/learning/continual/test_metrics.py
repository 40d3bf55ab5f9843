"""The figures of LIBERO, against the formulas as they are written."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.errors import BadInput
from embodied_vision.learning.continual.metrics import metrics


def as_written(c: list[list[float]], forward: list[list[float]]) -> tuple[float, float, float]:
    tasks = len(c)
    fwt = [sum(row) / len(row) for row in forward]
    nbt = [sum(c[k][k] - c[t][k] for t in range(k + 1, tasks)) / (tasks - k - 1) for k in range(tasks - 1)]
    auc = [(fwt[k] + sum(c[t][k] for t in range(k + 1, tasks))) / (tasks - k) for k in range(tasks)]
    return sum(fwt) / tasks, sum(nbt) / len(nbt), sum(auc) / tasks


def test_figures_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(3)
    after = [[rng.integers(0, 2, 50) for _ in range(k + 1)] for k in range(4)]
    during = [[rng.integers(0, 2, 50) for _ in range(3)] for _ in range(4)]
    means = [[float(v.mean()) for v in row] for row in after]
    forward = [[float(v.mean()) for v in row] for row in during]
    found = metrics(after, during)
    assert (found.fwt.value, found.nbt.value, found.auc.value) == pytest.approx(as_written(means, forward))
    assert found.final.value == pytest.approx(np.mean(means[-1]))
    for interval in (found.fwt, found.nbt, found.auc, found.final):
        assert interval.low < interval.value < interval.high


def test_what_is_lost_at_once_and_for_ever_is_all_of_it() -> None:
    solved, failed = np.ones(20), np.zeros(20)
    after = [[solved], [failed, solved], [failed, failed, solved]]
    found = metrics(after, [[solved]] * 3)
    assert found.nbt.value == found.nbt.low == found.nbt.high == 1.0
    assert found.auc.value == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)


def test_scenes_are_paired_across_checkpoints() -> None:
    """A task that is done the same at every time loses nothing, in whatever scenes it is tried."""
    half = np.arange(40) % 2
    found = metrics([[half], [half, half]], [[half], [half]])
    assert (found.nbt.low, found.nbt.high) == (0.0, 0.0)
    assert found.fwt.low < 0.5 < found.fwt.high


def test_a_single_task_loses_nothing() -> None:
    found = metrics([[np.ones(5)]], [[np.zeros(5), np.ones(5)]])
    assert (found.fwt.value, found.nbt.value, found.auc.value) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize(
    ("after", "during"),
    [
        ([[[1.0]], [[1.0]]], [[[1.0]], [[1.0]]]),
        ([[[1.0]]], [[]]),
        ([], []),
    ],
)
def test_what_is_not_complete_is_refused(after: list[list[list[float]]], during: list[list[list[float]]]) -> None:
    with pytest.raises(BadInput):
        metrics(after, during)

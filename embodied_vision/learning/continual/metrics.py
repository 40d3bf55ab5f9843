"""Forward transfer, backward transfer and area under the curve of success, as LIBERO defines them (NeurIPS 2023).

With c[k, j] the success on task j after learning task k, of K, and c[k, k, e] that at checkpoint e while task k is
learnt:

    FWT_k = mean over e of c[k, k, e]
    NBT_k = 1/(K − k) Σ_{t>k} (c[k, k] − c[t, k])           for k < K
    AUC_k = 1/(K − k + 1) (FWT_k + Σ_{t>k} c[t, k])

and each figure is the mean over k. Intervals: bootstrap over scenes, the same scenes drawn for all checkpoints of a
task, since all of them were tried on the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embodied_vision.errors import BadInput
from embodied_vision.learning.statistics import Interval

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """Figures of a stream with 95 % intervals, as shares.

    Attributes:
        fwt: forward transfer: how well a task is done while it is learnt.
        nbt: negative backward transfer: what is lost of a task afterwards; 0 with a single task.
        auc: area under the curve: both together.
        final: mean success on all tasks at the end.
    """

    fwt: Interval
    nbt: Interval
    auc: Interval
    final: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, rounded."""
        return {
            name: {key: round(value, 4) for key, value in asdict(interval).items()}
            for name, interval in (("fwt", self.fwt), ("nbt", self.nbt), ("auc", self.auc), ("final", self.final))
        }


def metrics(
    after: Sequence[Sequence[ArrayLike]],
    during: Sequence[Sequence[ArrayLike]],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Metrics:
    """Figures of a stream.

    Args:
        after: row k, entry j ≤ k: results on the scenes of task j after learning task k, each in [0, 1].
        during: row k: results on the scenes of task k at each checkpoint while it was learnt.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        BadInput: a row is not complete, or tasks were not tried on the same scenes throughout.
    """
    tasks = len(after)
    if not tasks or len(during) != tasks or any(len(row) != k + 1 for k, row in enumerate(after)):
        raise BadInput(f"results of {tasks} tasks are not complete: row k needs those of all tasks up to k")
    per_task = [
        np.array([np.asarray(after[t][k], float) for t in range(k, tasks)] + [np.asarray(d, float) for d in during[k]])
        for k in range(tasks)
    ]
    if any(not during[k] or rows.ndim != 2 or not rows.shape[1] for k, rows in enumerate(per_task)):
        raise BadInput("a task has no checkpoint while it was learnt, or was tried on other scenes afterwards")
    rng = np.random.default_rng(seed)
    point = _figures([rows.mean(1)[None] for rows in per_task])
    drawn = _figures([_resampled(rows, resamples, rng) for rows in per_task])
    intervals = [
        Interval(float(p[0]), *(float(v) for v in np.percentile(d, [2.5, 97.5])))
        for p, d in zip(point, drawn, strict=True)
    ]
    return Metrics(*intervals)


def _resampled(rows: Scores, resamples: int, rng: np.random.Generator) -> Scores:
    """Means (resamples, checkpoints) over scenes drawn with replacement, the same for all checkpoints."""
    scenes = rows.shape[1]
    counts = rng.multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples)
    means: Scores = counts @ rows.T / scenes
    return means


def _figures(means: Sequence[Scores]) -> tuple[Scores, Scores, Scores, Scores]:
    """FWT, NBT, AUC and final success (N,); `means[k]` (N, K − k + E): after tasks k … K, then while learning k."""
    tasks = len(means)
    fwt, nbt, auc, final = [], [], [], []
    for k, rows in enumerate(means):
        after, during = rows[:, : tasks - k], rows[:, tasks - k :]
        forward = during.mean(1)
        later = after[:, 1:]
        fwt.append(forward)
        if k < tasks - 1:
            nbt.append((after[:, :1] - later).mean(1))
        auc.append((forward + later.sum(1)) / (tasks - k))
        final.append(after[:, -1])
    lost = np.mean(nbt, axis=0) if nbt else np.zeros(len(means[0]))
    return np.mean(fwt, axis=0), lost, np.mean(auc, axis=0), np.mean(final, axis=0)

"""Picks that took nothing.

A policy sees one moment: where the tool slips off an object, or where the object is bolted down, it would take the same
decision for ever. What was picked and still stands where it stood is therefore less likely to be picked once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embodied_vision import geometry
from embodied_vision.policies.maps import rotation
from embodied_vision.types import Scene

if TYPE_CHECKING:
    from embodied_vision.policies.policy import Explanation

STANDS_M = 0.005
"""Where heights changed by less, in the median, things stand as they did."""


@dataclass(frozen=True, eq=False)
class _Attempt:
    """A carried out decision: cells (N, 2) of the object where it stood and where it was to go, with their heights."""

    anchor: NDArray[np.float64]
    areas: tuple[tuple[NDArray[np.int_], NDArray[np.float32]], ...]

    def changed_nothing(self, scene: Scene) -> bool:
        """Whether what was picked is seen to stand, and nothing is seen to have come to where it was to go.

        Where nothing was seen when it was picked, nothing is there to stand.
        """
        picked, placed = (_change(scene, *area) for area in self.areas)
        stands = picked < STANDS_M if picked is not None else not len(self.areas[0][0])
        return stands and (placed is None or placed < STANDS_M)


def _change(scene: Scene, cells: NDArray[np.int_], before: NDArray[np.float32]) -> float | None:
    """Median change of the heights in m; None where nothing is seen."""
    seen = scene.valid[tuple(cells.T)]
    change = scene.height[tuple(cells[seen].T)] - before[seen]
    return abs(float(np.median(change))) if change.size else None


class Attempts:
    """What was tried in an episode. Its owner tells what was carried out; the policy asks what was in vain."""

    def __init__(self, failed: Sequence[Sequence[float]] = ()) -> None:
        """Begin an episode.

        Args:
            failed: x, y in m of picks that are known to have failed, such as `Explanation.failed` of a logged decision.
        """
        self._known = [(float(x), float(y)) for x, y in failed]
        self._attempts: list[_Attempt] = []

    def note(self, made: Explanation) -> None:
        """Take note that a decision was carried out, as far as that was possible."""
        scene, segment = made.scene, made.segment
        stood = np.argwhere(segment.mask).astype(float) if segment.mask.any() else segment.anchor[None]
        goal = made.place + (stood - segment.anchor) @ rotation(made.yaw_rad).T
        areas = []
        for fractional in (stood, goal):
            cells = np.floor(fractional + 0.5).astype(int)
            cells = cells[((cells >= 0) & (cells < scene.valid.shape)).all(1)]
            cells = cells[scene.valid[tuple(cells.T)]]
            areas.append((cells, scene.height[tuple(cells.T)]))
        self._attempts.append(_Attempt(segment.anchor, tuple(areas)))

    def failed(self, scene: Scene) -> tuple[tuple[float, float], ...]:
        """x, y in m of the picks that changed nothing, as often as they were tried; the others are forgotten."""
        self._attempts = [attempt for attempt in self._attempts if attempt.changed_nothing(scene)]
        points = (geometry.cell_to_xy(attempt.anchor, scene.workspace) for attempt in self._attempts)
        return (*self._known, *((float(x), float(y)) for x, y in points))

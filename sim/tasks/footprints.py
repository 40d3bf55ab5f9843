"""Where rectangles stand on the table: within reach, apart from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.types import FloatArray
from embodied_vision_sim.tasks.base import CLEARANCE_M

if TYPE_CHECKING:
    from embodied_vision_sim.world import World


@dataclass(frozen=True)
class Footprint:
    """A rectangle on the table.

    Attributes:
        size: edges along its own x and y, m.
        x, y: centre in the base frame, m.
        yaw: turn about z, rad.
    """

    size: tuple[float, float]
    x: float
    y: float
    yaw: float

    def to_base(self, points: FloatArray) -> FloatArray:
        """Points (N, 2) in the frame of its centre to the base frame, m."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.asarray(points, float) @ np.array([[c, s], [-s, c]]) + (self.x, self.y)

    def corners(self, margin: float = 0.0) -> FloatArray:
        """The four corners (4, 2) in the base frame, m, moved outwards by `margin` along both axes."""
        half = np.array(self.size) / 2 + margin
        return self.to_base(np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * half)

    def distances(self) -> tuple[float, float]:
        """Smallest and largest distance of its points from the base, m."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        base = np.array([[c, s], [-s, c]]) @ (-self.x, -self.y)  # the base seen from the centre
        nearest = float(np.linalg.norm(np.maximum(np.abs(base) - np.array(self.size) / 2, 0.0)))
        return nearest, float(np.linalg.norm(self.corners(), axis=1).max())

    def apart(self, other: Footprint, gap: float) -> bool:
        """Whether a straight line with at least `gap` of room parts the two (separating axes)."""
        mine, others = self.corners(), other.corners()
        for yaw in (self.yaw, self.yaw + np.pi / 2, other.yaw, other.yaw + np.pi / 2):
            axis = np.array([np.cos(yaw), np.sin(yaw)])
            a, b = mine @ axis, others @ axis
            if max(a.min() - b.max(), b.min() - a.max()) >= gap:
                return True
        return False


class FootprintPlacer:
    """Finds random places for rectangles that neither overlap nor leave what camera and arm can use.

    Attributes:
        taken: what stands already.
    """

    def __init__(self, world: World, rng: np.random.Generator, taken: Sequence[Footprint] = ()) -> None:
        self._workspace = world.workspace
        self._reach = world.reach
        self._rng = rng
        self.taken = list(taken)

    def place(self, size: tuple[float, float], *, attempts: int = 1000) -> Footprint | None:
        """A uniform random pose for a rectangle of `size` m, or None where none was free in so many attempts."""
        (x0, x1), (y0, y1) = self._workspace.x, self._workspace.y
        for _ in range(attempts):
            x, y, yaw = self._rng.uniform((x0, y0, -np.pi), (x1, y1, np.pi))
            candidate = Footprint(size, float(x), float(y), float(yaw))
            if self._usable(candidate) and all(candidate.apart(other, CLEARANCE_M) for other in self.taken):
                self.taken.append(candidate)
                return candidate
        return None

    def require(self, name: str, size: tuple[float, float]) -> Footprint:
        """`place` for an object that the task cannot do without.

        Raises:
            RunFailed: the workspace is too small or too full.
        """
        found = self.place(size)
        if found is None:
            raise RunFailed(f"no free place for {name!r} of {size} m in {self._workspace}; enlarge it")
        return found

    def _usable(self, candidate: Footprint) -> bool:
        corners = candidate.corners()
        (x0, x1), (y0, y1) = self._workspace.x, self._workspace.y
        if not ((corners >= (x0, y0)) & (corners <= (x1, y1))).all():
            return False
        nearest, farthest = candidate.distances()
        return nearest >= self._reach[0] and farthest <= self._reach[1]

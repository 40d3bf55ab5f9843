"""Where a camera's picture shows the tool: one that stays the same while the tool moves in it is frozen. No ROS."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.robot import RobotModel
from embodied_vision.geometry import project
from embodied_vision.types import Camera

GAP_NS = 200_000_000
"""Between two joint states that are farther apart the tip may have been anywhere."""

_KEEP = 300

Pixel = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Sighting:
    """Where the picture would have shown the tip at a time (2,) in px; None where it lay outside."""

    stamp_ns: int
    pixel: Pixel | None


class SeenTip:
    """Follows the tool's tip through the pictures of one camera, from joint states.

    A picture and the joint state after it come in either order; each is compared when both are here.

    Args:
        model: of the arm; used in the caller's thread alone.
        camera: calibrated in the robot's base frame.

    Attributes:
        moved_px: how far, at least, the tip was from where it was at the first of a row of equal pictures that joint
            states belong to, at the newest one that they belong to. 0 where that is unknown, or the tip in neither.
    """

    def __init__(self, model: RobotModel, camera: Camera) -> None:
        self._model = model
        self._camera = camera
        self._sightings: deque[_Sighting] = deque(maxlen=_KEEP)
        self._row_ns = 0
        self._first: list[_Sighting] = []
        self._waiting_ns: deque[int] = deque(maxlen=_KEEP)
        self.moved_px = 0.0

    def add_joints(self, q: NDArray[np.float64], stamp_ns: int) -> None:
        """The joints were at q (J,) in rad; left out when not finite. A stamp that goes back begins a new history."""
        if not np.isfinite(q).all():
            return
        if self._sightings and stamp_ns <= self._sightings[-1].stamp_ns:
            if stamp_ns == self._sightings[-1].stamp_ns:
                return
            self._sightings.clear()
            self._begin_row(0)
        camera = self._camera
        pixels, depth = project(self._model.forward(q)[:3, 3][None], camera.K, camera.T_base_camera)
        pixel = np.asarray(pixels[0], float)
        inside = depth[0] > 0 and self._inside_px(pixel) > 0
        self._sightings.append(_Sighting(stamp_ns, pixel if inside else None))
        self._compare()

    def add_picture(self, row_ns: int, stamp_ns: int) -> None:
        """A picture came; the row of equal ones that it ends began with, and is named by, the one stamped `row_ns`."""
        if row_ns != self._row_ns:
            self._begin_row(row_ns)
        self._waiting_ns.append(stamp_ns)
        self._compare()

    def _begin_row(self, row_ns: int) -> None:
        self._row_ns, self._first, self.moved_px = row_ns, [], 0.0
        self._waiting_ns.clear()

    def _compare(self) -> None:
        """Compare the pictures that joint states have come for."""
        while self._waiting_ns and self._sightings and self._waiting_ns[0] < self._sightings[-1].stamp_ns:
            now = self._around(self._waiting_ns.popleft())
            self._first = self._first or self._around(self._row_ns) or now
            apart_px = [self._apart_px(one, other) for one in self._first for other in now]
            self.moved_px = min(apart_px, default=self.moved_px)

    def _around(self, stamp_ns: int) -> list[_Sighting]:
        """The joint states just before and just after a time, between which the tip was; none where one is missing."""
        after = bisect_right(self._sightings, stamp_ns, key=lambda sighting: sighting.stamp_ns)
        if not 0 < after < len(self._sightings):
            return []
        around = [self._sightings[after - 1], self._sightings[after]]
        return around if around[1].stamp_ns - around[0].stamp_ns <= GAP_NS else []

    def _apart_px(self, one: _Sighting, other: _Sighting) -> float:
        if one.pixel is not None and other.pixel is not None:
            return float(np.linalg.norm(one.pixel - other.pixel))
        return max((self._inside_px(pixel) for pixel in (one.pixel, other.pixel) if pixel is not None), default=0.0)

    def _inside_px(self, pixel: Pixel) -> float:
        """How far within the picture a pixel is; negative outside."""
        right, lower = self._camera.width - 1 - pixel[0], self._camera.height - 1 - pixel[1]
        return float(min(pixel[0], pixel[1], right, lower))

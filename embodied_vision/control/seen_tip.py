"""Where a camera's picture shows the tool: one that stays the same while the tool moves in it is frozen. No ROS."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.robot import RobotModel
from embodied_vision.geometry import project
from embodied_vision.types import Camera

Pixel = NDArray[np.float64]


class SeenTip:
    """Follows the tool's tip through the picture of one camera, from joint states.

    Args:
        model: of the arm; used in the caller's thread alone.
        camera: calibrated in the robot's base frame.
        keep: joint states that are remembered.
    """

    def __init__(self, model: RobotModel, camera: Camera, keep: int = 2000) -> None:
        self._model = model
        self._camera = camera
        self._seen: deque[tuple[int, Pixel | None]] = deque(maxlen=keep)

    def add(self, q: NDArray[np.float64], stamp_ns: int) -> None:
        """The joints were at q (J,) in rad; left out when not finite. A stamp that goes back begins a new history."""
        if not np.isfinite(q).all():
            return
        if self._seen and stamp_ns <= self._seen[-1][0]:
            if stamp_ns == self._seen[-1][0]:
                return
            self._seen.clear()
        camera = self._camera
        pixels, depth = project(self._model.forward(q)[:3, 3][None], camera.K, camera.T_base_camera)
        pixel = np.asarray(pixels[0], float)
        self._seen.append((stamp_ns, pixel if depth[0] > 0 and self._inside_px(pixel) > 0 else None))

    def moved_px(self, first_ns: int, last_ns: int) -> float:
        """How far apart pictures of two stamps show the tip, in px, at least; 0 where it is in neither."""
        first, last = self._at(first_ns), self._at(last_ns)
        if first is not None and last is not None:
            return float(np.linalg.norm(last - first))
        return max((self._inside_px(pixel) for pixel in (first, last) if pixel is not None), default=0.0)

    def _at(self, stamp_ns: int) -> Pixel | None:
        """Where the tip was in the picture at a time, as of the joint state before it or else the first one kept."""
        index = bisect_right(self._seen, stamp_ns, key=lambda point: point[0])
        return self._seen[max(0, index - 1)][1] if self._seen else None

    def _inside_px(self, pixel: Pixel) -> float:
        """How far within the picture a pixel is; negative outside."""
        right, lower = self._camera.width - 1 - pixel[0], self._camera.height - 1 - pixel[1]
        return float(min(pixel[0], pixel[1], right, lower))

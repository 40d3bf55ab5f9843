"""Whether pictures of a camera can be believed: their stamps, size and light, and when they last changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput
from embodied_vision.types import RGBD

DARK, BRIGHT = 8.0, 247.0
"""Mean brightness of a picture, 0 … 255, below and above which it shows nothing."""

_EVERY = 8
"""Light is judged on every so many pixels."""


@dataclass(frozen=True)
class FrameReport:
    """What is known of one picture.

    Attributes:
        stamp_ns: of the picture.
        problem: what is wrong with it, in words; empty when nothing is.
        unchanged_ns: stamp of the first in the row of equal pictures that ends with this one.
    """

    stamp_ns: int
    problem: str
    unchanged_ns: int


def light_problem(color: NDArray[np.uint8]) -> str:
    """What is wrong with the light in a picture (H, W, 3), in words; empty when nothing is."""
    mean = float(color[::_EVERY, ::_EVERY].mean())
    if mean < DARK:
        return f"its picture is black (mean brightness {mean:.1f} of 255, at least {DARK:g}); look at lens and light"
    if mean > BRIGHT:
        return f"its picture is white (mean brightness {mean:.1f} of 255, at most {BRIGHT:g}); look at the exposure"
    return ""


def check_frame(frame: RGBD) -> None:
    """Refuse a frame that nothing can be decided on.

    Raises:
        BadInput: the picture is black or white, or the depth image has no returns.
    """
    problem = light_problem(frame.color)
    if not problem and not (np.nan_to_num(frame.depth[::_EVERY, ::_EVERY]) > 0).any():
        problem = "its depth image has no returns; look at the sensor and what covers it"
    if problem:
        raise BadInput(f"camera {frame.camera.name!r}, frame stamped {frame.stamp_ns}: {problem}")


class FrameHealth:
    """Looks at every picture of one camera, in the order in which they come.

    Args:
        age_s: how far a stamp may lie behind the clock of all stamps.
        ahead_s: how far it may lie ahead of it.
    """

    def __init__(self, age_s: float = 1.0, ahead_s: float = 0.1) -> None:
        self._age_s, self._ahead_s = age_s, ahead_s
        self._last_ns: int | None = None
        self._size: tuple[int, int] | None = None
        self._picture: NDArray[np.uint8] | None = None
        self._unchanged_ns = 0

    def look(self, color: NDArray[np.uint8], stamp_ns: int, now_ns: int) -> FrameReport:
        """Judge a picture (H, W, 3) stamped `stamp_ns`, with the clock of all stamps at `now_ns`. It is kept."""
        if self._picture is None or not np.array_equal(self._picture, color):
            self._unchanged_ns = stamp_ns
        self._picture = color
        problem = self._stamp_problem(stamp_ns, now_ns)
        if problem:  # how long it has been the same cannot be told by such stamps
            self._picture, self._unchanged_ns = None, stamp_ns
        return FrameReport(stamp_ns, problem or self._size_problem(color) or light_problem(color), self._unchanged_ns)

    def unusable(self, error: BadInput, stamp_ns: int) -> FrameReport:
        """A picture that could not be read."""
        self._picture = None
        return FrameReport(stamp_ns, str(error), stamp_ns)

    def _stamp_problem(self, stamp_ns: int, now_ns: int) -> str:
        last_ns, self._last_ns = self._last_ns, stamp_ns
        if last_ns is not None and stamp_ns <= last_ns:
            back_s = (last_ns - stamp_ns) * 1e-9
            return f"its stamps went back by {back_s:.3f} s" if back_s else "its stamps stand still"
        age_s = (now_ns - stamp_ns) * 1e-9
        if not -self._ahead_s <= age_s <= self._age_s:
            where = "behind" if age_s > 0 else "ahead of"
            return f"its stamps are {abs(age_s):.2f} s {where} the clock; synchronise the camera's clock"
        return ""

    def _size_problem(self, color: NDArray[np.uint8]) -> str:
        size = (color.shape[1], color.shape[0])
        self._size = self._size or size
        if size == self._size:
            return ""
        now, first = (f"{width}x{height}" for width, height in (size, self._size))
        return f"its pictures are {now} now and were {first}; calibrate at the size that runs"

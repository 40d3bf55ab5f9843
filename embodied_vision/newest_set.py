"""The newest frames of several cameras that show one moment, for work that is slower than the cameras."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

_KEPT = 8
"""Frames of a camera that may wait for their siblings, and stamps of those that were given away without them."""


@dataclass(eq=False)
class _Frame:
    stamp_ns: int
    frame: Any
    since_s: float


class NewestSet:
    """Holds frames back until their siblings are there; of the sets only the newest waits, and nothing is queued.

    Frames belong together when their stamps differ by at most `slop_ns` from the first camera's. A frame waits for its
    siblings for `patience_s` at most: then the newest of each camera is given away as it is, and a camera that had sent
    nothing is waited for no more until it is heard again. Frames whose siblings went without them follow alone.
    No clock and no thread of its own; times are seconds on one steady clock.

    Args:
        cameras: names; the first one leads.
        slop_ns: largest difference of stamps within a set.
        patience_s: longest wait.

    Attributes:
        dropped: frames that were given up, because newer ones came.
        whole: whether the frames that were given away last had all their siblings.
    """

    def __init__(self, cameras: Sequence[str], slop_ns: int, patience_s: float) -> None:
        self._slop_ns, self._patience_s = slop_ns, patience_s
        self._waiting: dict[str, deque[_Frame]] = {camera: deque() for camera in cameras}
        self._gone: dict[str, deque[int]] = {camera: deque(maxlen=_KEPT) for camera in cameras}
        self._ready: dict[str, _Frame] = {}
        self._ready_whole = True
        self._absent: set[str] = set()
        self.dropped = 0
        self.whole = True

    @property
    def absent(self) -> list[str]:
        """Cameras that are not waited for, since they let others wait in vain."""
        return [camera for camera in self._waiting if camera in self._absent]

    def add(self, camera: str, stamp_ns: int, frame: Any, now_s: float) -> None:
        """Take a frame that has just come."""
        self._absent.discard(camera)
        own = self._waiting[camera]
        since_s = own[0].since_s if own else now_s
        if own and stamp_ns <= own[-1].stamp_ns:  # the camera's clock went back: what waits is of another time
            self._drop(own, len(own))
        own.append(_Frame(stamp_ns, frame, now_s if own else since_s))
        if len(own) > _KEPT:
            self._drop(own, 1)
            own[0].since_s = since_s  # or a fast camera would wait for ever
        chosen = self._siblings(camera, stamp_ns)
        if chosen:
            self.dropped += sum(chosen.get(name) is not part for name, part in self._ready.items())
            self._ready, self._ready_whole = chosen, not self._absent

    def take(self, now_s: float) -> dict[str, Any]:
        """The frames to work on now, by camera; empty when there is nothing yet."""
        taken, self._ready = self._ready, {}
        if taken:
            self.whole = self._ready_whole
        elif self.due_in(now_s) == 0.0:
            self._absent.update(camera for camera, frames in self._waiting.items() if not frames)
            taken = {camera: self._pick(camera, frames[-1]) for camera, frames in self._waiting.items() if frames}
            self.whole = False
        for camera, part in () if self.whole else taken.items():
            self._gone[camera].append(part.stamp_ns)
        return {camera: part.frame for camera, part in taken.items()}

    def due_in(self, now_s: float) -> float | None:
        """After how many seconds `take` gives something, although nothing more comes; None when it will not."""
        if self._ready:
            return 0.0
        since = [frames[0].since_s for frames in self._waiting.values() if frames]
        return max(0.0, min(since) + self._patience_s - now_s) if since else None

    def clear(self) -> None:
        """Give up everything that waits."""
        self.dropped += len(self._ready)
        self._ready = {}
        for frames in self._waiting.values():
            self._drop(frames, len(frames))

    def _siblings(self, camera: str, stamp_ns: int) -> dict[str, _Frame]:
        """The set that a new frame completes, taken out of what waits with all that is older; empty without one.

        A set that is ready, but was made without this camera, is completed too.
        """
        present = [name for name in self._waiting if name not in self._absent]
        lead_ns = stamp_ns if camera == present[0] else self._nearest(present[0], stamp_ns)
        stamps = {name: None if lead_ns is None else self._nearest(name, lead_ns) for name in present}
        if None in stamps.values():
            return {}
        chosen = {}
        for name, stamp in stamps.items():
            part = next((part for part in self._here(name) if part.stamp_ns == stamp), None)
            if part is not None:
                chosen[name] = part if part is self._ready.get(name) else self._pick(name, part)
            else:
                self._gone[name].remove(cast(int, stamp))
        return chosen

    def _nearest(self, camera: str, stamp_ns: int) -> int | None:
        """Of the frames of a camera that are here or went alone, the stamp within the slop that is nearest."""
        stamps = [*(part.stamp_ns for part in self._here(camera)), *self._gone[camera]]
        best = min(stamps, key=lambda other: abs(other - stamp_ns), default=None)
        return best if best is not None and abs(best - stamp_ns) <= self._slop_ns else None

    def _here(self, camera: str) -> list[_Frame]:
        """Frames of a camera that wait, and the one in the set that is ready."""
        ready = self._ready.get(camera)
        return [*self._waiting[camera], *([] if ready is None else [ready])]

    def _pick(self, camera: str, part: _Frame) -> _Frame:
        """Take a frame out of what waits, and give up the older ones."""
        frames = self._waiting[camera]
        self._drop(frames, frames.index(part))
        return frames.popleft()

    def _drop(self, frames: deque[_Frame], count: int) -> None:
        for _ in range(count):
            frames.popleft()
        self.dropped += count

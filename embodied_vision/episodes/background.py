"""An episode writer behind a queue: whoever logs never waits for the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import EmbodiedVisionError, RunFailed
from embodied_vision.types import RGBD, PickPlace

_Job = Callable[[], None]


@dataclass(frozen=True)
class Written:
    """Counts of one episode so far."""

    frames: int = 0
    samples: int = 0
    decisions: int = 0


class BackgroundWriter:
    """Writes one episode after another in a thread of its own, in the order of the calls.

    Frames wait in memory, at most `max_frames` of them; what does not fit is refused and counted, never silently.
    Samples, decisions and ends always fit.

    Args:
        max_frames: how many frames may wait.
        on_error: told, from the thread, when an episode cannot be written; what was logged stays in staging.
    """

    def __init__(self, max_frames: int, on_error: Callable[[EmbodiedVisionError], None]) -> None:
        self._max_frames = max_frames
        self._on_error = on_error
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._waiting_frames = 0
        self._closing = False
        self._writer: EpisodeWriter | None = None
        self._written = Written()
        self.frames_logged = 0
        """Frames on file since the start, over all episodes."""
        self._thread = threading.Thread(target=self._work, name="episode writer", daemon=True)
        self._thread.start()

    @property
    def written(self) -> Written:
        """Counts of the newest episode."""
        return self._written

    def begin(self, make: Callable[[], EpisodeWriter], on_begun: Callable[[str], None] = lambda _: None) -> None:
        """Start an episode; `on_begun` gets its id, in the thread."""

        def job() -> None:
            if self._writer is not None:
                self._writer.release()
            self._written = Written()
            self._writer = make()
            on_begun(self._writer.id)

        self._put(job)

    def frame(self, frame: RGBD) -> bool:
        """Log a frame; False when too many wait and this one is refused."""
        with self._changed:
            if self._waiting_frames >= self._max_frames:
                return False
            self._waiting_frames += 1

        def job() -> None:
            with self._changed:
                self._waiting_frames -= 1
            if self._writer is not None:
                self._writer.append_frame(frame)
                self.frames_logged += 1
                self._count(frames=1)

        self._put(job)
        return True

    def sample(self, stream: str, stamp_ns: int, value: ArrayLike) -> None:
        """Log one value of a stream."""

        def job() -> None:
            if self._writer is not None:
                self._writer.append(stream, stamp_ns, value)
                self._count(samples=1)

        self._put(job)

    def decision(self, action: PickPlace, frames: Sequence[RGBD], info: Mapping[str, Any]) -> None:
        """Log a decision with its frames, losslessly."""

        def job() -> None:
            if self._writer is not None:
                self._writer.append_decision(action, frames, info)
                self._count(decisions=1)

        self._put(job)

    def end(self, outcome: Mapping[str, Any], on_ended: Callable[[str], None] = lambda _: None) -> None:
        """End the episode after all that was logged before; `on_ended` gets its id, in the thread."""

        def job() -> None:
            if self._writer is not None:
                writer, self._writer = self._writer, None
                on_ended(writer.close(outcome))

        self._put(job)

    def close(self) -> None:
        """Write what waits, then stop the thread. An episode that was not ended stays in staging."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _put(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def _count(self, frames: int = 0, samples: int = 0, decisions: int = 0) -> None:
        old = self._written
        self._written = Written(old.frames + frames, old.samples + samples, old.decisions + decisions)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            try:
                job()
            except EmbodiedVisionError as error:
                self._fail(error)
            except Exception as error:
                self._fail(RunFailed(f"the episode writer failed: {error!r}"))

    def _fail(self, error: EmbodiedVisionError) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._on_error(error)

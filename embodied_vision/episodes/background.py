"""An episode writer behind a queue: whoever logs never waits for the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from embodied_vision.episodes.backpressure import RUNGS, Degradation, Ladder
from embodied_vision.episodes.frames import AnyFrame, EncodedFrame, frame_bytes
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import EmbodiedVisionError, RunFailed
from embodied_vision.types import PickPlace

_JOB_BYTES = 512
"""What a waiting entry costs beside its data, about."""


@dataclass(frozen=True)
class Room:
    """How much may wait in memory.

    Attributes:
        frames: frames.
        frame_bytes: their images, raw or encoded; the fuller of the two measures counts.
        others: samples, decisions and notes.
        other_bytes: their data. Room of their own: a flood of frames takes nothing away from them.
    """

    frames: int = 300
    frame_bytes: int = 256 << 20
    others: int = 100_000
    other_bytes: int = 64 << 20


@dataclass(frozen=True)
class Written:
    """Counts of one episode so far."""

    frames: int = 0
    samples: int = 0
    decisions: int = 0


@dataclass(frozen=True)
class Load:
    """How the queue stands, and what was given up since the start.

    Attributes:
        level: name of the rung in `backpressure.RUNGS`.
        frames_waiting, bytes_waiting: in memory, samples and decisions in the bytes as well.
        frames_refused, frames_at_lower_quality, samples_refused, decisions_refused: since the start.
    """

    level: str
    frames_waiting: int
    bytes_waiting: int
    frames_refused: int
    frames_at_lower_quality: int
    samples_refused: int
    decisions_refused: int


@dataclass
class _Episode:
    """An episode between `begin` and its place in the store."""

    low_quality: int | None
    writer: EpisodeWriter | None = None
    made: threading.Event = field(default_factory=threading.Event)
    degradation: Degradation = field(default_factory=Degradation)
    turns: dict[str, bool] = field(default_factory=dict)


@dataclass
class _Job:
    """One entry of the queue: `run` in the writer's thread, when it is its turn and `ready`."""

    run: Callable[[], None]
    size: int = 0
    is_frame: bool = False
    counts: bool = True
    ready: bool = True
    encode: Callable[[], int] | None = None


class BackgroundWriter:
    """Writes one episode after another in threads of its own, in the order of the calls.

    `encoders` threads encode frames, one writes the journal, one more closes episodes while the next one is written.
    What waits is bounded by `room`; `backpressure` says what is given up as it fills. Every call returns at once.

    Args:
        room: how much may wait.
        on_error: told, from a thread, when an episode cannot be written; what was logged stays in staging.
        encoders: threads that encode.
    """

    def __init__(self, room: Room, on_error: Callable[[EmbodiedVisionError], None], encoders: int = 2) -> None:
        self._room = room
        self._on_error = on_error
        self._lock = threading.Lock()
        self._written_or_new = threading.Condition(self._lock)
        self._to_encode = threading.Condition(self._lock)
        self._to_close = threading.Condition(self._lock)
        self._jobs: deque[_Job] = deque()
        self._encoding: deque[_Job] = deque()
        self._endings: deque[Callable[[], None]] = deque()
        self._frames = self._frame_bytes = self._others = self._other_bytes = 0
        self._refused_frames = self._smaller_frames = self._refused_samples = self._refused_decisions = 0
        self._ladder = Ladder()
        self._current: _Episode | None = None
        self._open: _Episode | None = None
        self._closing = self._all_written = False
        self._written = Written()
        self.frames_logged = 0
        """Frames on file since the start, over all episodes."""
        work = [(self._write, "episode writer"), (self._close_episodes, "episode closer")]
        work += [(self._encode, f"episode encoder {number}") for number in range(encoders)]
        self._threads = [threading.Thread(target=run, name=name, daemon=True) for run, name in work]
        for thread in self._threads:
            thread.start()

    # ---- how it stands

    @property
    def written(self) -> Written:
        """Counts of the newest episode."""
        return self._written

    @property
    def load(self) -> Load:
        """How the queue stands now."""
        with self._lock:
            return Load(
                RUNGS[self._ladder.rung],
                self._frames,
                self._frame_bytes + self._other_bytes,
                self._refused_frames,
                self._smaller_frames,
                self._refused_samples,
                self._refused_decisions,
            )

    # ---- what callers log

    def begin(
        self,
        make: Callable[[], EpisodeWriter],
        on_begun: Callable[[str], None] = lambda _: None,
        *,
        low_quality: int | None = None,
    ) -> None:
        """Start an episode; `on_begun` gets its id, in a thread.

        Args:
            make: makes the writer, in a thread.
            on_begun: called when it is made.
            low_quality: of lossy images while the queue is filling; None where quality cannot be lowered.
        """
        episode = _Episode(low_quality)

        def run() -> None:
            if self._open is not None and self._open.writer is not None:
                self._open.writer.release()
            self._written = Written()
            self._open = episode
            try:
                episode.writer = make()
            finally:
                episode.made.set()
            on_begun(episode.writer.id)

        with self._lock:
            self._current = episode
            self._put(_Job(run, counts=False))

    def frame(self, frame: AnyFrame) -> bool:
        """Log a frame; False when this one is refused."""
        camera, size = frame.camera.name, frame_bytes(frame)
        with self._lock:
            episode = self._current
            if episode is None:
                return True
            self._look()
            rung = self._ladder.rung
            taken = rung < 2 or (rung == 2 and not episode.turns.get(camera, False))
            episode.turns[camera] = rung == 2 and taken
            quality = episode.low_quality if rung else None
            smaller = taken and quality is not None
            self._refused_frames += not taken
            self._smaller_frames += smaller
            episode.degradation.frame(camera, int(frame.stamp_ns), rung, taken=taken, smaller=smaller)
            if taken:
                self._put(self._frame_job(episode, frame, size, quality))
        return taken

    def sample(self, stream: str, stamp_ns: int, value: ArrayLike) -> bool:
        """Log one value of a stream; False when memory is full and it is refused."""
        row = np.atleast_1d(np.array(value, "<f8"))

        def run() -> None:
            if self._open is not None and self._open.writer is not None:
                self._open.writer.append(stream, stamp_ns, row)
                self._count(samples=1)

        with self._lock:
            if self._current is None or self._put_other(_Job(run, row.nbytes + _JOB_BYTES)):
                return True
            self._refused_samples += 1
            refused = self._current.degradation.samples_refused
            refused[stream] = refused.get(stream, 0) + 1
        return False

    def decision(self, action: PickPlace, frames: Sequence[AnyFrame], info: Mapping[str, Any]) -> bool:
        """Log a decision with its frames, losslessly; False when memory is full and it is refused."""

        def run() -> None:
            if self._open is not None and self._open.writer is not None:
                self._open.writer.append_decision(action, frames, info)
                self._count(decisions=1)

        with self._lock:
            size = sum(frame_bytes(frame) for frame in frames) + _JOB_BYTES
            if self._current is None or self._put_other(_Job(run, size)):
                return True
            self._refused_decisions += 1
            self._current.degradation.decisions_refused += 1
        return False

    def note(self, name: str, value: Any) -> None:
        """Set an attribute of the episode, JSON; the last value counts, also after a crash."""
        with self._lock:
            self._put(self._note_job(name, value))

    def end(self, outcome: Mapping[str, Any], on_ended: Callable[[str], None] = lambda _: None) -> None:
        """End the episode after all that was logged before; `on_ended` gets its id, in a thread."""

        def finish(writer: EpisodeWriter) -> None:
            on_ended(writer.close(outcome))

        def run() -> None:
            episode, self._open = self._open, None
            if episode is not None and (writer := episode.writer) is not None:
                with self._lock:
                    self._endings.append(lambda: finish(writer))
                    self._to_close.notify()

        with self._lock:
            if self._current is not None and self._current.degradation:
                self._put(self._note_job("degraded", self._current.degradation.to_dict()))
            self._current = None
            self._put(_Job(run, counts=False))

    def close(self) -> None:
        """Write what waits, then stop the threads. An episode that was not ended stays in staging."""
        with self._lock:
            self._closing = True
            for condition in (self._written_or_new, self._to_encode, self._to_close):
                condition.notify_all()
        for thread in self._threads:
            thread.join()
        if self._open is not None and self._open.writer is not None:
            self._open.writer.release()
            self._open = None

    # ---- the queue; the lock is held

    def _put(self, job: _Job) -> None:
        self._jobs.append(job)
        if job.is_frame:
            self._frames += 1
            self._frame_bytes += job.size
            self._encoding.append(job)
            self._to_encode.notify()
        elif job.counts:
            self._others += 1
            self._other_bytes += job.size
        self._written_or_new.notify()

    def _put_other(self, job: _Job) -> bool:
        fits = self._others < self._room.others and self._other_bytes + job.size <= self._room.other_bytes
        if fits:
            self._put(job)
        return fits

    def _take_off(self, job: _Job) -> None:
        if job.is_frame:
            self._frames -= 1
            self._frame_bytes -= job.size
        elif job.counts:
            self._others -= 1
            self._other_bytes -= job.size
        self._look()

    def _look(self) -> None:
        """Climb or sink; what an episode lacks is noted at once, so that a crash does not hide it."""
        filled = max(self._frames / self._room.frames, self._frame_bytes / self._room.frame_bytes)
        if self._ladder.look(filled) and self._current is not None:
            self._current.degradation.reached(self._ladder.rung)
            self._put(self._note_job("degraded", self._current.degradation.to_dict()))

    def _frame_job(self, episode: _Episode, frame: AnyFrame, size: int, quality: int | None) -> _Job:
        waiting: list[AnyFrame] = [frame]
        encoded: list[EncodedFrame | Exception] = []

        def encode() -> int:
            episode.made.wait()
            raw, writer = waiting.pop(), episode.writer
            if writer is None:
                return 0
            try:
                result = writer.encode(raw, quality)
            except Exception as error:  # raised again where the frame would be written
                encoded.append(error)
                return 0
            encoded.append(result)
            return result.nbytes

        def run() -> None:
            if self._open is None or self._open.writer is None or not encoded:
                return
            if isinstance(encoded[0], Exception):
                raise encoded[0]
            self._open.writer.append_encoded(encoded[0])
            self.frames_logged += 1
            self._count(frames=1)

        return _Job(run, size, is_frame=True, ready=False, encode=encode)

    def _note_job(self, name: str, value: Any) -> _Job:
        def run() -> None:
            if self._open is not None and self._open.writer is not None:
                self._open.writer.note(name, value)

        return _Job(run, counts=False)

    # ---- the threads

    def _encode(self) -> None:
        while True:
            with self._lock:
                while not self._encoding and not self._closing:
                    self._to_encode.wait()
                if not self._encoding:
                    return
                job = self._encoding.popleft()
            assert job.encode is not None
            size = job.encode()
            with self._lock:
                self._frame_bytes += size - job.size
                job.size, job.ready, job.encode = size, True, None
                self._written_or_new.notify()

    def _write(self) -> None:
        while True:
            with self._lock:
                while not (self._jobs and self._jobs[0].ready) and not (self._closing and not self._jobs):
                    self._written_or_new.wait()
                if not self._jobs:
                    self._all_written = True
                    self._to_close.notify()
                    return
                job = self._jobs.popleft()
            failed = self._attempt(job.run)
            if failed and self._open is not None and self._open.writer is not None:
                self._open.writer.release()
                self._open.writer = None
            with self._lock:
                self._take_off(job)

    def _close_episodes(self) -> None:
        while True:
            with self._lock:
                while not self._endings and not self._all_written:
                    self._to_close.wait()
                if not self._endings:
                    return
                ending = self._endings.popleft()
            self._attempt(ending)

    def _attempt(self, step: Callable[[], None]) -> bool:
        """Run a step; True when it failed, which was told."""
        try:
            step()
        except EmbodiedVisionError as error:
            self._on_error(error)
        except Exception as error:
            self._on_error(RunFailed(f"the episode writer failed: {error!r}"))
        else:
            return False
        return True

    def _count(self, frames: int = 0, samples: int = 0, decisions: int = 0) -> None:
        old = self._written
        self._written = Written(old.frames + frames, old.samples + samples, old.decisions + decisions)

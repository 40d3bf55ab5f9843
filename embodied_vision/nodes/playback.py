"""Playing timed items: exact relative timing at a rate, pause, step, seek and loop. No ROS inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

AHEAD = 12
"""Prepared items that are held before they are due: more is memory, less may come late."""
_WORKERS = 2

Act = Callable[[], None]


@dataclass(frozen=True)
class Items:
    """What is played.

    Attributes:
        stamps_ns: int64 (N,), ascending.
        prepare: makes ready to publish item `number`, in any thread; what it returns publishes.
        slow: numbers of the items worth preparing ahead, ascending.
        marks: numbers of the items that a step goes to, ascending.
    """

    stamps_ns: NDArray[np.int64]
    prepare: Callable[[int], Act]
    slow: NDArray[np.int64]
    marks: NDArray[np.int64]


@dataclass(frozen=True)
class Status:
    """Where playing stands.

    Attributes:
        position_s: time since the first item, on the episode's clock.
        paused: nothing is published until `resume`, `step` or `seek`.
        rate: 1 is the speed at which it happened.
        loops: how often the end was reached and playing began anew.
        published: items so far.
        latest_s: by how much the latest item came after it was due.
    """

    position_s: float
    paused: bool
    rate: float
    loops: int
    published: int
    latest_s: float


class Playback:
    """One run through items, in the thread that calls `run`; every other method may be called from any thread.

    Deadlines are reckoned from one anchor, so that no lateness adds up. Pausing, seeking, a new rate and each loop
    set a new anchor; between two of them all items keep their distances.

    Args:
        items: what to play.
        start_s, end_s: the part to play, since the first item; to the last one where `end_s` is None.
        rate: speed.
        loop: begin anew at the end, until `stop`.
        paused: begin so.
    """

    def __init__(
        self,
        items: Items,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        rate: float = 1.0,
        loop: bool = False,
        paused: bool = False,
    ) -> None:
        self._items = items
        self._first_ns = int(items.stamps_ns[0]) if len(items.stamps_ns) else 0
        last_ns = int(items.stamps_ns[-1]) if len(items.stamps_ns) else 0
        self._start_ns = self._first_ns + round(start_s * 1e9)
        self._end_ns = last_ns if end_s is None else min(last_ns, self._first_ns + round(end_s * 1e9))
        self._change = threading.Condition(threading.RLock())
        self._rate, self._loop, self._paused = rate, loop, paused
        self._stopped = False
        self._loops = self._published = 0
        self._latest_s = 0.0
        self._to_mark: int | None = None
        self._place(self._start_ns)
        self._ahead = _Ahead(items)

    @property
    def duration_s(self) -> float:
        """Time between the first and the last item."""
        stamps = self._items.stamps_ns
        return float(stamps[-1] - stamps[0]) * 1e-9 if len(stamps) else 0.0

    def status(self) -> Status:
        """Where playing stands now."""
        with self._change:
            position_s = (self._now_ns() - self._first_ns) * 1e-9
            return Status(position_s, self._paused, self._rate, self._loops, self._published, self._latest_s)

    def pause(self) -> None:
        """Publish nothing until told to."""
        with self._change:
            self._anchor_ns = self._now_ns()
            self._paused = True
            self._change.notify_all()

    def resume(self) -> None:
        """Go on from where it was paused."""
        with self._change:
            if self._paused:
                self._paused, self._to_mark = False, None
                self._anchor_at = time.monotonic()
            self._change.notify_all()

    def step(self) -> None:
        """Publish at once everything up to the next mark, and stay paused there."""
        with self._change:
            self._anchor_ns = self._now_ns()
            self._paused = True
            marks = self._items.marks
            first = self._next if self._to_mark is None else self._to_mark + 1  # steps that are called quickly add up
            place = int(np.searchsorted(marks, first))
            last = int(np.searchsorted(self._items.stamps_ns, self._end_ns, "right")) - 1
            self._to_mark = min(int(marks[place]), last) if place < len(marks) else last
            self._change.notify_all()

    def seek(self, position_s: float) -> None:
        """Go on from the first item at or after this time, in the same state: playing or paused."""
        with self._change:
            self._place(min(max(self._first_ns + round(position_s * 1e9), self._start_ns), self._end_ns))
            self._change.notify_all()

    def set_rate(self, rate: float) -> None:
        """Play at another speed from now on."""
        with self._change:
            self._anchor_ns, self._anchor_at = self._now_ns(), time.monotonic()
            self._rate = rate
            self._change.notify_all()

    def set_loop(self, loop: bool) -> None:
        """Whether the end leads to the start again."""
        with self._change:
            self._loop = loop
            self._change.notify_all()

    def stop(self) -> None:
        """End `run` before its next item."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def run(self) -> bool:
        """Play; false when it was stopped before the end. Raises what preparing or publishing an item raised."""
        with self._ahead:
            while True:
                number = self._wait()
                if number is None:
                    return not self._stopped
                self._ahead.take(number)()
                with self._change:
                    self._published += 1

    # ---- with the lock held

    def _place(self, stamp_ns: int) -> None:
        self._anchor_ns, self._anchor_at = stamp_ns, time.monotonic()
        self._next = int(np.searchsorted(self._items.stamps_ns, stamp_ns))
        self._to_mark = None

    def _now_ns(self) -> int:
        """The present on the episode's clock."""
        if self._paused:
            return self._anchor_ns
        now = self._anchor_ns + round((time.monotonic() - self._anchor_at) * 1e9 * self._rate)
        return min(max(now, self._start_ns), self._end_ns)

    def _begin_anew(self) -> None:
        """The start is due when the end was, so that loops do not drift."""
        at = self._anchor_at + (self._end_ns - self._anchor_ns) * 1e-9 / self._rate
        self._place(self._start_ns)
        self._anchor_at = at if not self._paused else time.monotonic()
        self._loops += 1

    def _wait(self) -> int | None:
        """The next item once it is due; None at the end."""
        stamps = self._items.stamps_ns
        with self._change:
            while not self._stopped:
                over = self._next >= len(stamps) or stamps[self._next] > self._end_ns
                if over and (self._to_mark is not None or not self._paused):
                    if not self._loop or not len(stamps) or stamps[-1] < self._start_ns or self._empty():
                        return None
                    stepping = self._to_mark is not None
                    self._begin_anew()
                    if stepping:
                        self.step()
                    continue
                self._ahead.want(self._next, self._start_ns if self._loop else None)
                wait_s: float | None = None
                if self._to_mark is not None:
                    wait_s = 0.0
                elif not self._paused:
                    due = self._anchor_at + (int(stamps[self._next]) - self._anchor_ns) * 1e-9 / self._rate
                    wait_s = due - time.monotonic()
                if wait_s is None or wait_s > 0:
                    self._change.wait(wait_s)
                    continue
                return self._advance(-wait_s)
        return None

    def _empty(self) -> bool:
        """Whether no item lies in the part to play."""
        first = int(np.searchsorted(self._items.stamps_ns, self._start_ns))
        return first >= len(self._items.stamps_ns) or self._items.stamps_ns[first] > self._end_ns

    def _advance(self, late_s: float) -> int:
        number = self._next
        self._next += 1
        if self._to_mark is None:
            self._latest_s = max(self._latest_s, late_s)
        else:
            self._anchor_ns = int(self._items.stamps_ns[number])
            if number >= self._to_mark:
                self._to_mark = None
        return number


class _Ahead:
    """Prepares the slow items that are next, in a few threads, never more than `AHEAD`."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._pool = ThreadPoolExecutor(_WORKERS, "replay-ahead")
        self._ready: dict[int, Future[Act]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def want(self, number: int, again_ns: int | None) -> None:
        """Items from `number` on are next, then, where `again_ns` is given, those from that time on."""
        wanted = self._following(number, AHEAD)
        if again_ns is not None and len(wanted) < AHEAD:
            first = int(np.searchsorted(self._items.stamps_ns, again_ns))
            wanted += [n for n in self._following(first, AHEAD - len(wanted)) if n not in wanted]
        for dropped in self._ready.keys() - set(wanted):
            self._ready.pop(dropped).cancel()
        for item in wanted:
            if item not in self._ready:
                self._ready[item] = self._pool.submit(self._items.prepare, item)

    def take(self, number: int) -> Act:
        """An item, ready to be published."""
        future = self._ready.pop(number, None)
        return self._items.prepare(number) if future is None else future.result()

    def _following(self, number: int, count: int) -> list[int]:
        slow: Sequence[int] = self._items.slow[np.searchsorted(self._items.slow, number) :][:count].tolist()
        return list(slow)

"""What happened to a run, kept in memory and as JSON lines in its log folder."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

EventKind = Literal[
    "note", "started", "active", "died", "restarted", "silent", "back", "diagnostic", "failed", "stopping", "ended"
]


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Attributes:
        time_ns: CLOCK_MONOTONIC.
        kind: what happened.
        node: to whom; empty for the run as a whole.
        detail: the rest, in words.
    """

    time_ns: int
    kind: EventKind
    node: str
    detail: str


class EventLog:
    """Collects events from any thread."""

    def __init__(self, path: Path, on_event: Callable[[Event], None] | None = None) -> None:
        self._file = path.open("ab", buffering=0)
        self._on_event = on_event
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def add(self, kind: EventKind, node: str, detail: str) -> None:
        """Keep, write and hand on an event that happens now. On a full disk it is not written, and the run goes on."""
        event = Event(time.monotonic_ns(), kind, node, detail)
        with self._lock:
            self._events.append(event)
            with contextlib.suppress(OSError):
                self._file.write(f"{json.dumps(asdict(event))}\n".encode())
        if self._on_event is not None:
            self._on_event(event)

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far."""
        with self._lock:
            return tuple(self._events)

    def close(self) -> None:
        """Close the file; the events stay."""
        with self._lock:
            self._file.close()

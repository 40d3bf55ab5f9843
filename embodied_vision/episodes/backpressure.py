"""What is given up first when the disk or the processor cannot keep up, and the account of what was given up.

    full      every frame at the quality that was asked for
    quality   every frame, as smaller images (an episode with lossless color skips what this would do)
    half      every second frame of each camera, as smaller JPEG images
    none      no frames; samples and decisions go on

A rung is climbed when the queue is filled up to its mark and left when the queue has drained to half of that mark, so
that the quality does not flicker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RUNGS = ("full", "quality", "half", "none")
MARKS = (0.0, 0.5, 0.75, 1.0)
"""Filling of the queue, as a share of what it may hold, from which each rung holds."""

SPANS_KEPT = 64
"""Stretches of degraded recording that an episode describes one by one; later ones only lengthen the last."""


class Ladder:
    """The rung that belongs to the filling of a queue, with hysteresis.

    Attributes:
        rung: number in `RUNGS`.
    """

    def __init__(self) -> None:
        self.rung = 0

    def look(self, filled: float) -> bool:
        """Take note of the filling, 0 to 1 and above; True when the rung changed. It sinks one rung at a time."""
        before = self.rung
        wanted = max(rung for rung, mark in enumerate(MARKS) if filled >= mark)
        if wanted > self.rung:
            self.rung = wanted
        elif self.rung and filled <= MARKS[self.rung] / 2:
            self.rung -= 1
        return self.rung != before


@dataclass
class Degradation:
    """What one episode lacks of what was asked for.

    Attributes:
        worst: highest rung reached.
        frames_refused, frames_smaller: frames left out and frames at lower quality, by camera.
        samples_refused: by stream.
        decisions_refused: decisions left out.
        spans: (rung, stamp of the first frame, stamp of the last frame) in ns of every stretch off the full quality.
    """

    worst: int = 0
    frames_refused: dict[str, int] = field(default_factory=dict)
    frames_smaller: dict[str, int] = field(default_factory=dict)
    samples_refused: dict[str, int] = field(default_factory=dict)
    decisions_refused: int = 0
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    _open: bool = False

    def __bool__(self) -> bool:
        return bool(self.worst or self.frames_refused or self.samples_refused or self.decisions_refused)

    def reached(self, rung: int) -> None:
        """The queue came to `rung` while this episode was logged."""
        self.worst = max(self.worst, rung)

    def frame(self, camera: str, stamp_ns: int, rung: int, *, taken: bool, smaller: bool) -> None:
        """Account for a frame that came while `rung` held."""
        if not taken:
            self.frames_refused[camera] = self.frames_refused.get(camera, 0) + 1
        elif smaller:
            self.frames_smaller[camera] = self.frames_smaller.get(camera, 0) + 1
        if not rung:
            self._open = False
            return
        self.worst = max(self.worst, rung)
        if self.spans and (len(self.spans) == SPANS_KEPT or (self._open and self.spans[-1][0] == rung)):
            last, first_ns, _ = self.spans[-1]
            self.spans[-1] = (max(last, rung), first_ns, stamp_ns)
        else:
            self.spans.append((rung, stamp_ns, stamp_ns))
        self._open = True

    def to_dict(self) -> dict[str, Any]:
        """JSON for the episode's attribute `degraded`."""
        return {
            "level": RUNGS[self.worst],
            "frames_refused": dict(self.frames_refused),
            "frames_at_lower_quality": dict(self.frames_smaller),
            "samples_refused": dict(self.samples_refused),
            "decisions_refused": self.decisions_refused,
            "spans": [{"level": RUNGS[rung], "from_ns": first, "to_ns": last} for rung, first, last in self.spans],
        }


def describe(degraded: Mapping[str, Any]) -> str:
    """One line for people about an attribute `degraded`."""
    refused = sum(degraded["frames_refused"].values())
    smaller = sum(degraded["frames_at_lower_quality"].values())
    samples = sum(degraded["samples_refused"].values())
    return (
        f"level {degraded['level']}: {refused} frames refused, {smaller} at lower quality, "
        f"{samples} samples and {degraded['decisions_refused']} decisions refused"
    )

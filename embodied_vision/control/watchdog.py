"""Keeps account of who has to be heard, and how long ago that was. No clocks of its own, no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class _Source:
    limit_s: float
    heard_s: float | None = None
    alive: bool = True


class Watchdog:
    """Sources that must be heard at least every so often while the arm moves.

    A source counts as lost when its last sign of life is older than its limit, when it was never heard, or when
    its transport says that it is gone (`set_alive`). All times are seconds on one steady clock.

    While the caller itself is held up it cannot hear anybody. Such a time, seen as a long gap between two calls of
    `lost`, is not held against the others; what was sent meanwhile is about to be heard.

    Args:
        limits_s: source → longest silence in s.
        stall_s: a gap between two calls of `lost` that is longer counts as a stall of the caller.
    """

    def __init__(self, limits_s: Mapping[str, float], stall_s: float = 0.1) -> None:
        self._sources = {name: _Source(limit_s) for name, limit_s in limits_s.items()}
        self._stall_s = stall_s
        self._asked_s: float | None = None
        self._healthy_since_s: float | None = None
        self._problems: dict[str, str] = {}

    def feed(self, name: str, now_s: float) -> None:
        """`name` gave a sign of life."""
        self._sources[name].heard_s = now_s

    def set_alive(self, name: str, alive: bool) -> None:
        """The transport says whether the process behind `name` is there."""
        self._sources[name].alive = alive

    def set_problem(self, name: str, words: str) -> None:
        """Count `name` as lost for another reason than silence, in words; empty words end that."""
        if words:
            self._problems[name] = words
        else:
            self._problems.pop(name, None)

    def age_s(self, name: str, now_s: float) -> float:
        """How long ago `name` was heard; infinite when never."""
        heard_s = self._sources[name].heard_s
        return float("inf") if heard_s is None else now_s - heard_s

    def lost(self, now_s: float) -> dict[str, str]:
        """Lost sources, each with what is wrong, in words. Also keeps the account for `healthy_s`."""
        gap_s = 0.0 if self._asked_s is None else now_s - self._asked_s
        self._asked_s = now_s
        problems = dict(self._problems)
        for name, source in self._sources.items():
            if source.heard_s is not None and gap_s > self._stall_s:
                source.heard_s = min(now_s, source.heard_s + gap_s)
            age_s = self.age_s(name, now_s)
            if not source.alive:
                problems[name] = f"{name} is gone"
            elif source.heard_s is None:
                problems[name] = f"{name} was never heard"
            elif age_s > source.limit_s:
                problems[name] = f"{name} silent for {age_s:.2f} s, limit {source.limit_s:.2f} s"
        if problems:
            self._healthy_since_s = None
        elif self._healthy_since_s is None:
            self._healthy_since_s = now_s
        return problems

    def healthy_s(self, now_s: float) -> float:
        """For how long nobody has been lost, as far as `lost` was asked; 0 while somebody is."""
        return 0.0 if self._healthy_since_s is None else now_s - self._healthy_since_s

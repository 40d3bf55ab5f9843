"""Keeps simulated time beside real time, in bounded bursts, and knows how well that goes."""

from __future__ import annotations

from collections import deque


class Pacer:
    """How many simulation steps are due, so that simulated time follows a steady clock.

    Steps that would need a burst longer than `max_burst_s` are dropped: simulated time then falls
    behind for good and the real-time factor shows it, instead of the arm racing to catch up.

    Args:
        step_s: duration of a step.
        max_burst_s: most simulated time that is caught up at once.
        window_s: over how long the real-time factor is taken.
    """

    def __init__(self, step_s: float, *, max_burst_s: float = 0.25, window_s: float = 2.0) -> None:
        self.step_s = step_s
        self.max_burst_s = max_burst_s
        self._window_s = window_s
        self._base_s: float | None = None
        self._taken = 0
        self._lost_s = 0.0
        self._history: deque[tuple[float, float]] = deque()

    @property
    def time_s(self) -> float:
        """Simulated time since the first call of `due`."""
        return self._taken * self.step_s

    @property
    def lost_s(self) -> float:
        """Real time that was never simulated, because the machine was too slow."""
        return self._lost_s

    def clock_s(self, now_s: float) -> float:
        """Simulated time that corresponds to the steady time `now_s`; the steps up to it may still be due."""
        return 0.0 if self._base_s is None else now_s - self._base_s - self._lost_s

    def due(self, now_s: float) -> int:
        """Steps that are due; say `took` for each that is taken."""
        if self._base_s is None:
            self._base_s = now_s
        owed_s = self.clock_s(now_s) - self.time_s
        if owed_s > self.max_burst_s:
            self._lost_s += owed_s - self.max_burst_s
            owed_s = self.max_burst_s
        self._history.append((now_s, self.time_s))
        while len(self._history) > 2 and self._history[1][0] <= now_s - self._window_s:
            self._history.popleft()
        return max(0, int(owed_s / self.step_s + 1e-6))

    def took(self, steps: int = 1) -> None:
        """Steps were taken, perhaps before they were due: real time then catches up with them."""
        self._taken += steps

    def forgive(self, now_s: float) -> None:
        """Start anew from `now_s`, as after a reset that took its own time."""
        if self._base_s is not None:
            self._base_s = now_s - self.time_s - self._lost_s
        self._history.clear()

    def real_time_factor(self) -> float:
        """Simulated over real time in the last window; 1 when real time holds or nothing was measured yet."""
        if len(self._history) < 2 or self._history[-1][0] <= self._history[0][0]:
            return 1.0
        (t0, s0), (t1, s1) = self._history[0], self._history[-1]
        return (s1 - s0) / (t1 - t0)

"""Whether the gripper holds something, as a vacuum switch or the width between the fingers tells."""

from __future__ import annotations


class Holding:
    """The last word of a sensor. No clock of its own: times are seconds on one steady clock.

    Args:
        settle_s: that nothing is held counts once it has been said for so long: a flicker is no drop.
    """

    def __init__(self, settle_s: float = 0.1) -> None:
        self._settle_s = settle_s
        self._held = False
        self._empty_since_s: float | None = None

    def feed(self, held: bool, now_s: float) -> None:
        """The sensor says whether something is held."""
        self._held = held
        if held:
            self._empty_since_s = None
        elif self._empty_since_s is None:
            self._empty_since_s = now_s

    @property
    def held(self) -> bool:
        """Whether something was held when the sensor spoke last; False before it spoke."""
        return self._held

    def empty(self, now_s: float) -> bool:
        """Whether nothing has been held for as long as counts."""
        return self._empty_since_s is not None and now_s - self._empty_since_s >= self._settle_s

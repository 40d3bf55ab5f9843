"""What a node says on /diagnostics about a stream that it reads: rate, age, latency, losses, silence.

Names and levels are those of diagnostic_updater: `NODE: TOPIC`, the rate in `Actual frequency (Hz)`, OK, WARN, ERROR.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

_WINDOW = 60
_STALL_S = 0.3
"""A node that was held up for longer hears what was sent meanwhile only now: that is no silence."""

_EARLY_S = 0.05
_LATE_S = 1.0
"""Stamps further ahead of the node's clock, or older on receipt, than these point to clocks that differ."""


@dataclass(frozen=True)
class Receipt:
    """One message that came.

    Attributes:
        at_s: when, on a steady clock.
        age_s: of its stamp, by the node's clock; None for a message without a stamp.
        latency_s: from publishing to its being there, by the middleware; None where that does not say.
    """

    at_s: float
    age_s: float | None = None
    latency_s: float | None = None


class Stream:
    """Keeps account of one topic. No clock and no ROS node of its own; all times are seconds on one steady clock.

    Args:
        topic: what it is called.
        silent_s: longest silence of a stream that flows; infinite for one that comes only now and then.
        since_s: when the subscription was made.
    """

    def __init__(self, topic: str, silent_s: float, since_s: float) -> None:
        self.topic = topic
        self._silent_s = silent_s
        self._since_s = since_s
        self._heard_s = since_s
        self._looked_s = since_s
        self._window: deque[Receipt] = deque(maxlen=_WINDOW)
        self._count = 0
        self._dropped: int | None = None

    def note(self, receipt: Receipt, dropped: int | None = None) -> None:
        """A message came, and so many before it did not; None where nobody can tell."""
        self._window.append(receipt)
        self._heard_s = receipt.at_s
        self._count += 1
        if dropped is not None:
            self._dropped = (self._dropped or 0) + dropped

    def look(self, now_s: float, count_publishers: Callable[[], int]) -> tuple[bytes, str]:
        """Level and words for now; to be called more often than three times a second.

        Args:
            now_s: now.
            count_publishers: asked while the stream is silent, since the answer costs something.
        """
        gap_s, self._looked_s = now_s - self._looked_s, now_s
        if gap_s > _STALL_S:
            self._heard_s = min(now_s, self._heard_s + gap_s)
        quiet_s = now_s - self._heard_s
        if quiet_s > self._silent_s:
            return self._silence(count_publishers())
        age_s = self._window[-1].age_s if self._window else None
        if age_s is not None and not -_EARLY_S <= age_s <= _LATE_S:
            how = f"{age_s:.2f} s old" if age_s > 0 else f"{-age_s:.2f} s ahead"
            return WARN, f"stamps are {how} on receipt; compare the clocks of publisher and reader"
        if not self._window:
            return OK, "no message yet"
        return OK, f"{self.rate_hz(now_s):.1f} Hz"

    def _silence(self, publishers: int) -> tuple[bytes, str]:
        if publishers == 0:
            level = ERROR if self._count else WARN
            return level, f"nobody publishes {self.topic}; start its driver, or compare names, namespace and domain"
        if self._count:
            return ERROR, f"silent, although {publishers} publish it; look at its driver"
        return ERROR, (
            f"nothing arrives, although {publishers} publish it; start publisher and reader with the Fast DDS profile "
            "(config/fastdds.xml), and look at the driver"
        )

    def rate_hz(self, now_s: float) -> float:
        """Messages a second over the last ones, sinking while none come."""
        if len(self._window) < 2:
            return 0.0
        span_s = self._window[-1].at_s - self._window[0].at_s
        waited_s = now_s - self._window[-1].at_s
        usual_s = span_s / (len(self._window) - 1)
        return (len(self._window) - 1) / max(1e-9, span_s + max(0.0, waited_s - usual_s))

    def values(self, now_s: float) -> dict[str, str]:
        """Keys and values of the status."""
        found = {
            "Events since startup": str(self._count),
            "Actual frequency (Hz)": f"{self.rate_hz(now_s):.2f}",
        }
        if self._dropped is not None:
            found["Dropped"] = str(self._dropped)
        if self._silent_s != float("inf"):
            found["Minimum acceptable frequency (Hz)"] = f"{1.0 / self._silent_s:.2f}"
        if self._count:
            found["Time since the newest (s)"] = f"{now_s - self._window[-1].at_s:.3f}"
        for name, ages in (
            ("Age on receipt", [r.age_s for r in self._window if r.age_s is not None]),
            ("Transport latency", [r.latency_s for r in self._window if r.latency_s is not None]),
        ):
            if ages:
                found[f"{name}, mean (ms)"] = f"{1e3 * sum(ages) / len(ages):.2f}"
                found[f"{name}, largest (ms)"] = f"{1e3 * max(ages):.2f}"
        return found

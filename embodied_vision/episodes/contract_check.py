"""Whether the sources of an episode keep their contract, by the stamps of what came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from embodied_vision.episodes.contract import CameraContract, Contract, Expected

GRACE_S = 2.0
"""A source that names neither rate nor gap is missing after this time, and a rate is judged over as much."""

_NS = 1_000_000_000


@dataclass
class Violation:
    """One way in which a source broke its contract.

    Attributes:
        source: "cameras/NAME" or "streams/NAME".
        kind: "missing", "gap", "slow", "frame", "incomplete" or "lost".
        expected: what the contract says, with its unit.
        worst: the worst that was seen.
        count: how often.
        from_ns, to_ns: first and last time.
    """

    source: str
    kind: str
    expected: str
    worst: str
    count: int
    from_ns: int
    to_ns: int

    def to_dict(self) -> dict[str, Any]:
        """JSON for the episode's attribute `contract_violations`."""
        return {"source": self.source, "violation": self.kind, **{k: v for k, v in vars(self).items() if k in _KEPT}}


_KEPT = ("expected", "worst", "count", "from_ns", "to_ns")


@dataclass
class _Source:
    """What came of one source."""

    key: str
    expected: Expected
    count: int = 0
    last_ns: int = 0
    window_ns: int = 0
    in_window: int = 0
    slow: str = ""
    worst: dict[str, float] = field(default_factory=dict)

    @property
    def silence_s(self) -> float:
        """Longest time without a message."""
        if self.expected.max_gap:
            return self.expected.max_gap
        return max(GRACE_S, 3 / self.expected.rate) if self.expected.rate else 0.0


class ContractCheck:
    """Watches the sources of one episode.

    Args:
        contract: what they promise.
        begun_ns: when the episode began, on the clock of the stamps.
    """

    def __init__(self, contract: Contract, begun_ns: int) -> None:
        self._begun_ns = begun_ns
        self._sources = {
            key: _Source(key, source) for source in (*contract.cameras, *contract.streams) for key in (_key(source),)
        }
        self._violations: dict[tuple[str, str], Violation] = {}
        self.changes = 0
        """Grows when there is something new to note."""

    def seen(self, source: Expected, stamp_ns: int, frame: str = "") -> None:
        """A message of a source came."""
        state = self._sources[_key(source)]
        if source.frame and frame != source.frame:
            self._violate(state, "frame", source.frame, frame, stamp_ns, stamp_ns, 0.0)
        if state.count and state.silence_s and stamp_ns - state.last_ns > state.silence_s * _NS:
            self._gap(state, stamp_ns)
            state.in_window = 0
        if not state.in_window:
            state.window_ns = stamp_ns
        state.count += 1
        state.in_window += 1
        state.last_ns = max(state.last_ns, stamp_ns)
        if source.rate:
            self._judge_rate(state)

    def incomplete(self, source: Expected, count: int, stamp_ns: int) -> None:
        """So many color images of a camera got no depth image, as of this stamp."""
        state = self._sources[_key(source)]
        self._violate(state, "incomplete", "color and depth", "no depth", stamp_ns, stamp_ns, 0.0)
        self._violations[state.key, "incomplete"].count += count - 1

    def lost(self, source: Expected, count: int, stamp_ns: int) -> None:
        """So many messages did not arrive before this one, by the numbers that their publisher gave them."""
        state = self._sources[_key(source)]
        self._violate(state, "lost", "every message", f"{count} in a row", stamp_ns, stamp_ns, float(count))
        self._violations[state.key, "lost"].count += count - 1

    def look(self, now_ns: int) -> list[str]:
        """What is wrong at this moment, one line a source for people."""
        lines = []
        for state in self._sources.values():
            since = (now_ns - (state.last_ns if state.count else self._begun_ns)) / _NS
            if not state.count:
                if state.expected.required and since > (state.silence_s or GRACE_S):
                    lines.append(f"{state.key}: nothing for {since:.1f} s, the contract requires it")
                    self._missing(state, now_ns)
            elif state.silence_s and since > state.silence_s:
                lines.append(f"{state.key}: nothing for {since:.1f} s, the contract allows {state.silence_s:g} s")
            elif state.slow:
                lines.append(f"{state.key}: {state.slow}, the contract says {state.expected.rate:g} Hz")
        return lines

    def finish(self, now_ns: int) -> list[dict[str, Any]]:
        """All violations of the episode that ends now, JSON."""
        for state in self._sources.values():
            if not state.count and state.expected.required:
                self._missing(state, now_ns)
            elif state.count and state.silence_s and now_ns - state.last_ns > state.silence_s * _NS:
                self._gap(state, now_ns)
        return self.violations()

    def violations(self) -> list[dict[str, Any]]:
        """All violations so far, JSON."""
        return [violation.to_dict() for violation in self._violations.values()]

    def _judge_rate(self, state: _Source) -> None:
        length_ns = state.last_ns - state.window_ns
        rate = state.expected.rate
        if length_ns < max(GRACE_S, 5 / rate) * _NS:
            return
        measured = (state.in_window - 1) / (length_ns / _NS)
        state.slow = ""
        if measured < rate * (1 - state.expected.tolerance):
            state.slow = f"{measured:.2f} Hz"
            self._violate(state, "slow", f"{rate:g} Hz", state.slow, state.window_ns, state.last_ns, -measured)
        state.window_ns, state.in_window = state.last_ns, 1

    def _missing(self, state: _Source, now_ns: int) -> None:
        known = self._violations.get((state.key, "missing"))
        if known is not None:
            known.to_ns = now_ns
        else:
            self._violate(state, "missing", "messages", "none", self._begun_ns, now_ns, 0.0)

    def _gap(self, state: _Source, until_ns: int) -> None:
        gap = (until_ns - state.last_ns) / _NS
        self._violate(state, "gap", f"{state.silence_s:g} s", f"{gap:.3f} s", state.last_ns, until_ns, gap)

    def _violate(
        self, state: _Source, kind: str, expected: str, worst: str, from_ns: int, to_ns: int, size: float
    ) -> None:
        known = self._violations.get((state.key, kind))
        if known is None:
            self.changes += 1
            self._violations[state.key, kind] = Violation(state.key, kind, expected, worst, 1, from_ns, to_ns)
            state.worst[kind] = size
            return
        known.count += 1
        known.to_ns = to_ns
        if size > state.worst[kind]:
            state.worst[kind], known.worst = size, worst


def _key(source: Expected) -> str:
    return f"{'cameras' if isinstance(source, CameraContract) else 'streams'}/{source.name}"

"""Parts of a frame that arrive on topics of their own, put together by stamp."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any


class StampMatcher:
    """Collects one part of each kind; parts belong together when their stamps differ by at most `slop_ns`.

    Kinds may be topics of one camera (slop 0 with good drivers) or whole cameras. The first kind leads: its stamps
    name the sets, and a set is formed once, as soon as its last part came.

    Args:
        kinds: what makes up a set; the first one leads.
        slop_ns: largest difference of stamps within a set.
        capacity: parts kept of each kind; when full the oldest are forgotten.
    """

    def __init__(self, kinds: Sequence[Hashable], slop_ns: int = 0, capacity: int = 60) -> None:
        self._kinds = tuple(kinds)
        self._slop_ns = slop_ns
        self._capacity = capacity
        self._parts: dict[Hashable, dict[int, Any]] = {kind: {} for kind in self._kinds}
        self.forgotten = 0
        """Leading parts that were given up because others did not come."""

    def add(self, kind: Hashable, stamp_ns: int, part: Any) -> dict[Hashable, Any] | None:
        """Take a part; returns the set that it completes, by kind, or None."""
        parts = self._parts[kind]
        parts[stamp_ns] = part
        leader = self._kinds[0]
        lead_ns = stamp_ns if kind == leader else self._nearest(self._parts[leader], stamp_ns)
        found = None if lead_ns is None else self._set(lead_ns)
        if found is None and len(parts) > self._capacity:
            del parts[min(parts)]
            self.forgotten += kind == leader
        return found

    def forget_before(self, stamp_ns: int) -> int:
        """Give up all parts stamped before this, because what they lack comes no more; how many leading ones."""
        given_up = 0
        for kind, parts in self._parts.items():
            old = [stamp for stamp in parts if stamp < stamp_ns]
            for stamp in old:
                del parts[stamp]
            if kind == self._kinds[0]:
                given_up = len(old)
        self.forgotten += given_up
        return given_up

    def newest(self) -> dict[Hashable, int | None]:
        """Newest waiting stamp of each kind, None where nothing waits: tells which part is missing."""
        return {kind: max(parts, default=None) for kind, parts in self._parts.items()}

    def _nearest(self, parts: Mapping[int, Any], stamp_ns: int) -> int | None:
        if stamp_ns in parts:
            return stamp_ns
        best = min(parts, key=lambda other: abs(other - stamp_ns), default=None) if self._slop_ns else None
        return best if best is not None and abs(best - stamp_ns) <= self._slop_ns else None

    def _set(self, lead_ns: int) -> dict[Hashable, Any] | None:
        stamps = {kind: self._nearest(self._parts[kind], lead_ns) for kind in self._kinds}
        if any(stamp is None for stamp in stamps.values()):
            return None
        return {kind: self._parts[kind].pop(stamp) for kind, stamp in stamps.items() if stamp is not None}

"""Who speaks on a topic that one node alone may speak on: pure bookkeeping of publishers, no ROS and no clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

UNKNOWN = ""
"""Name of a node that the graph does not know: a name arrives later than its publisher, or never."""

LEASE_S = 5.0
"""A namesake that is still there after this time lives: of a killed process nothing is left when its lease is over."""


@dataclass(frozen=True)
class Speaker:
    """A publisher.

    Attributes:
        gid: its identity in the middleware.
        node: full name of its node, `UNKNOWN` where the graph has none.
    """

    gid: bytes
    node: str

    def __str__(self) -> str:
        return self.node or f"a participant without a ROS node (GID {self.gid.hex()})"


@dataclass(frozen=True)
class Intruder:
    """Somebody who speaks, or might, where only one may.

    Attributes:
        words: who and where.
        lives: False while it may be what a killed process left behind: nothing begins, but nothing is wrong yet.
    """

    words: str
    lives: bool


class OwnTopics:
    """Topics that only we may publish on. Tell it who publishes and it says who should not.

    Args:
        node: our full name. A namesake may be our former self, killed a moment ago.
        own: GIDs of our publishers.
    """

    def __init__(self, node: str, own: Collection[bytes]) -> None:
        self._node = node
        self._own = frozenset(own)
        self._first_seen_s: dict[bytes, float] = {}

    def look(self, topic: str, speakers: Sequence[Speaker], now_s: float) -> Intruder | None:
        """Whether somebody else publishes on `topic`; the one that surely lives first."""
        found: list[Intruder] = []
        others = [speaker for speaker in speakers if speaker.gid not in self._own]
        self._first_seen_s = {other.gid: self._first_seen_s.get(other.gid, now_s) for other in others}
        for speaker in others:
            since_s = now_s - self._first_seen_s[speaker.gid]
            lives = speaker.node != self._node or since_s > LEASE_S
            found.append(Intruder(f"{speaker} publishes on {topic} as well", lives))
        return max(found, key=lambda intruder: intruder.lives, default=None)


class Deciders:
    """Senders of a topic that we act upon. One sends at a time; it may be replaced once it is gone.

    A silent publisher does no harm and is let be.
    """

    def __init__(self) -> None:
        self._current: bytes | None = None
        self._former: set[bytes] = set()

    def heard(self, topic: str, gid: bytes, speakers: Sequence[Speaker]) -> str:
        """A message came from `gid` while `speakers` are in the graph; who it competes with, in words, or nothing.

        A sender of the former one's name takes its place at once: a node that was killed stays in the graph for a
        while. Should the former one speak again, there are two.
        """
        if gid == self._current:
            return ""
        names = {speaker.gid: speaker.node for speaker in speakers}
        current = self._current
        if current is not None:
            rival = Speaker(current, names.get(current, UNKNOWN))
            replaces = current not in names or (rival.node != UNKNOWN and rival.node == names.get(gid))
            if gid in self._former or not replaces:
                return f"{Speaker(gid, names.get(gid, UNKNOWN))} publishes on {topic} beside {rival}"
            self._former = {former for former in {*self._former, current} if former in names}
        self._current = gid
        return ""

    def forget(self) -> None:
        """Begin anew: whoever is heard next is the one."""
        self._current = None
        self._former.clear()

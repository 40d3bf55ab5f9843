"""The health of a whole graph: its worst level, and everything that is wrong, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

LEVELS = ("ok", "warning", "error", "stale")
"""Names of the levels of `diagnostic_msgs/DiagnosticStatus`, whose numbers are the places here."""

_SILENT_S = 1.5
_FORGOTTEN_S = 5.0


@dataclass(frozen=True)
class Summary:
    """How a graph does.

    Attributes:
        level: 0 well, 1 something is not as it should be, 2 something does not work.
        wrong: what is not well, one sentence each, the worst first.
        nodes: node → lifecycle state, `silent` when its heartbeat is missing.
    """

    level: int
    wrong: tuple[str, ...]
    nodes: dict[str, str]

    @property
    def words(self) -> str:
        """One line."""
        return "; ".join(self.wrong) if self.wrong else "all nodes are active and well"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "level": LEVELS[self.level], "wrong": list(self.wrong)}


@dataclass
class _Node:
    state: str = "starting"
    heard_s: float | None = None
    said: dict[str, tuple[int, str, float]] = field(default_factory=dict)


class Health:
    """Collects heartbeats and diagnostics of named nodes. All times are seconds on one steady clock."""

    def __init__(self, names: Iterable[str]) -> None:
        self._nodes = {name: _Node() for name in names}

    def beat(self, name: str, state: str, now_s: float) -> None:
        """A heartbeat came."""
        node = self._nodes[name]
        node.state, node.heard_s = state, now_s

    def status(self, name: str, about: str, level: int, message: str, now_s: float) -> None:
        """A diagnostic came: of a node as a whole (`about` is empty), or of one of its streams."""
        if name in self._nodes:
            self._nodes[name].said[about] = (level, message, now_s)

    def summary(self, now_s: float) -> Summary:
        """How all do now. What a node has not said again for some time counts no longer."""
        wrong: list[tuple[int, str]] = []
        states = {}
        for name, node in self._nodes.items():
            silent = node.heard_s is not None and now_s - node.heard_s > _SILENT_S
            states[name] = "silent" if silent else node.state
            if silent:
                wrong.append((2, f"{name} is silent"))
                continue
            if node.state != "active":
                wrong.append((1, f"{name} is {node.state}"))
            for about, (level, message, said_s) in node.said.items():
                if level and now_s - said_s < _FORGOTTEN_S:
                    wrong.append((min(level, 2), f"{name}{f', {about}' if about else ''}: {message}"))
        wrong.sort(key=lambda entry: -entry[0])
        return Summary(max((level for level, _ in wrong), default=0), tuple(text for _, text in wrong), states)

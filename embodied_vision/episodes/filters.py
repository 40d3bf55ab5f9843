"""Which episodes are wanted: by who, what, when, how it ended and tags, never by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from embodied_vision.errors import BadInput

When = int | datetime
"""System time: ns since 1970, or a datetime, in UTC where it names no time zone."""


class Facts(Protocol):
    """What is filtered by: an open episode has it, and the catalogue."""

    @property
    def task(self) -> str: ...
    @property
    def robot(self) -> str: ...
    @property
    def policy_id(self) -> str: ...
    @property
    def encoder_id(self) -> str: ...
    @property
    def created_ns(self) -> int: ...
    @property
    def outcome(self) -> Mapping[str, Any]: ...
    @property
    def tags(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Filter:
    """Conditions that an episode meets all of; None and empty ones are met by any.

    Attributes:
        task, robot, policy_id, encoder_id: equal.
        outcome: entries that the outcome holds, such as `{"solved": True}`.
        tags: labels that it bears, all of them.
        since_ns, until_ns: begun then or later; begun before.
    """

    task: str | None = None
    robot: str | None = None
    policy_id: str | None = None
    encoder_id: str | None = None
    outcome: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it accepts every episode."""
        return self == Filter()

    def accepts(self, facts: Facts) -> bool:
        """Whether an episode is wanted."""
        return (
            self.task in (None, facts.task)
            and self.robot in (None, facts.robot)
            and self.policy_id in (None, facts.policy_id)
            and self.encoder_id in (None, facts.encoder_id)
            and (self.since_ns is None or facts.created_ns >= self.since_ns)
            and (self.until_ns is None or facts.created_ns < self.until_ns)
            and set(self.tags) <= set(facts.tags)
            and all(key in facts.outcome and facts.outcome[key] == value for key, value in self.outcome.items())
        )


def to_ns(when: When | None) -> int | None:
    """A time as ns since 1970.

    Raises:
        BadInput: it is neither a whole number nor a datetime.
    """
    if when is None or (isinstance(when, int) and not isinstance(when, bool)):
        return when
    if not isinstance(when, datetime):
        raise BadInput(f"{when!r} is no time; give ns since 1970 or a datetime")
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    since_1970 = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_1970.days * 86_400 + since_1970.seconds) * 10**9 + since_1970.microseconds * 1000

"""What a list says of an episode."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Summary:
    """An episode in a list.

    Attributes:
        id: of the episode.
        task, robot, encoder_id, policy_id: names.
        created_ns, closed_ns: when its recording began and ended, system time.
        outcome: how it ended.
        tags: labels that were put on it.
        frames: logged frames by camera.
        samples: logged values by stream.
        decisions: how many.
        size_bytes: of all its files but the manifest.
    """

    id: str
    task: str
    robot: str
    encoder_id: str
    policy_id: str
    created_ns: int
    closed_ns: int
    outcome: Mapping[str, Any]
    tags: tuple[str, ...]
    frames: Mapping[str, int]
    samples: Mapping[str, int]
    decisions: int
    size_bytes: int

    @property
    def duration_s(self) -> float:
        """From the beginning of the recording to its end."""
        return (self.closed_ns - self.created_ns) / 1e9

    def to_json(self) -> str:
        """Inverse of `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Summary:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "tags": tuple(fields["tags"])})


@dataclass(frozen=True)
class Damaged:
    """An episode that a list cannot describe.

    Attributes:
        id: of the episode.
        error: what is wrong with it.
    """

    id: str
    error: str

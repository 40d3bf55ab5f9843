"""What happened to the policies of a task: one line of JSON an event, in the order of time, never rewritten.

Every line has `time` (UTC), `event`, `task`, `candidate`, `baseline` and `reason`; some have more.

| event | candidate | baseline |
| --- | --- | --- |
| promoted | in use from now on | in use before |
| refused | was examined and not taken | in use |
| rolled back | in use again | was taken back |
| canary passed | has stood the test in use | in use before it |
| adopted | was in use before releases were kept | the one before |
| purged | in use | was deleted; it was the former one |
| forgotten | | an episode was deleted, `seen_by` tells whose |
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embodied_vision.learning import json_lines

HISTORY = "history.jsonl"
_OTHER = {"refused": "in use stays", "rolled back": "taken back", "purged": "deleted"}


def line(task: str, event: str, candidate: str, baseline: str | None, reason: str, **more: Any) -> dict[str, Any]:
    """An event that happens now."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "event": event,
        "task": task,
        "candidate": candidate,
        "baseline": baseline,
        "reason": reason,
        **more,
    }


def append(folder: Path, event: Mapping[str, Any]) -> None:
    """Add an event to the history of a task's folder, on disk when this returns.

    Raises:
        BadInput: the file cannot be written.
    """
    json_lines.append(folder / HISTORY, event)


def read(folder: Path) -> list[dict[str, Any]]:
    """All events, oldest first; none where nothing happened yet.

    Raises:
        BadInput: the file cannot be read.
    """
    return json_lines.read(folder / HISTORY)


def sentence(event: Mapping[str, Any]) -> str:
    """An event in words, one line."""
    other = f" ({_OTHER.get(str(event['event']), 'before')} {event['baseline']})" if event.get("baseline") else ""
    who = f" {event['candidate']}" if event.get("candidate") else ""
    return f"{event['time']}  {event['task']}  {event['event']}{who}{other}: {event['reason']}"

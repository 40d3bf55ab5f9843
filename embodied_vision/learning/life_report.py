"""The life of the policies in a folder as one HTML page: what was in use when, on which data, and what streams showed.

Read from what is there anyway: the history of each task, the manifests of its checkpoints, the journal of its learner,
the outcomes of logged episodes, and the figures of continual learning (`results/lifelong.jsonl`).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, select_autoescape

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning import json_lines
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.statistics import wilson
from embodied_vision.learning.watch import JOURNAL, Journal
from embodied_vision.policies import checkpoint as checkpoints

EVENTS = {
    "promoted": "good",
    "canary passed": "good",
    "refused": "bad",
    "rolled back": "warn",
    "failed": "bad",
}
"""Event of a history → how it is colored."""

MOST_EPISODES_NAMED = 200


@dataclass
class Stage:
    """One checkpoint of a task.

    Attributes:
        checkpoint: its id.
        parent: what it was trained on from, empty for the first.
        new_episodes: ids that it learnt from and its parent did not.
        learnt: number of all episodes that it learnt from.
        minutes: of training.
        episodes, solved: logged episodes in which it acted.
        in_use: whether it is the one in use.
        missing: why its manifest cannot be read; empty when it can.
    """

    checkpoint: str
    parent: str = ""
    new_episodes: Sequence[str] = ()
    learnt: int = 0
    minutes: float = 0.0
    episodes: int = 0
    solved: int = 0
    in_use: bool = False
    missing: str = ""

    @property
    def share(self) -> tuple[float, float, float] | None:
        """Share of its episodes that were solved, with Wilson's 95 % interval; None without any."""
        if not self.episodes:
            return None
        interval = wilson(self.solved, self.episodes)
        return interval.value, interval.low, interval.high


@dataclass
class Life:
    """What happened to the policies of a task.

    Attributes:
        task: its name.
        events: of the history, oldest first; failed rounds of a learner among them.
        stages: checkpoints in the order in which they appear in the events.
    """

    task: str
    events: list[dict[str, Any]] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)

    def count(self, event: str) -> int:
        """How often something happened."""
        return sum(line["event"] == event for line in self.events)


def read_life(policies: Path, task: str, outcomes: Mapping[str, tuple[int, int]]) -> Life:
    """What the folder of a task tells.

    Args:
        policies: folder of all tasks.
        task: name of the task.
        outcomes: checkpoint id → logged episodes in which it acted, and how many of them were solved.
    """
    pointer = Pointer(policies, task)
    life = Life(task, [*pointer.history(), *_failures(pointer.folder)])
    life.events.sort(key=lambda line: str(line.get("time", "")))
    names: dict[str, None] = {}
    for line in life.events:
        names |= {str(name): None for name in (line.get("baseline"), line.get("candidate")) if name}
    known: dict[str, set[str]] = {}
    for name in names:
        stage = Stage(name, in_use=name == pointer.current)
        stage.episodes, stage.solved = outcomes.get(name, (0, 0))
        try:
            training = checkpoints.read_manifest(pointer.path(name)).get("training", {})
        except CheckpointError as error:
            stage.missing = str(error)
        else:
            known[name] = set(training.get("episodes", ()))
            stage.parent, stage.minutes = str(training.get("parent", "")), float(training.get("minutes", 0.0))
            stage.learnt = len(known[name])
            stage.new_episodes = sorted(known[name] - known.get(stage.parent, set()))
        life.stages.append(stage)
    return life


def _failures(folder: Path) -> list[dict[str, Any]]:
    """Rounds of a learner that came to nothing, as events."""
    lines = Journal(folder).records() if (folder / JOURNAL).is_file() else []
    return [
        {"time": line["time"], "event": "failed", "candidate": "", "baseline": "", "reason": line["reason"]}
        for line in lines
        if line.get("event") == "failed"
    ]


def outcomes_of(store: EpisodeStore, task: str) -> dict[str, tuple[int, int]]:
    """Checkpoint id → logged episodes of a task in which it acted and whose end is known, and how many were solved."""
    found: dict[str, tuple[int, int]] = {}
    for episode in store.select(task=task, on_damaged=lambda _: None):
        known = "solved" in episode.outcome and not episode.outcome.get("aborted", False)
        if episode.policy_id and known:
            all_of_them, solved = found.get(episode.policy_id, (0, 0))
            found[episode.policy_id] = all_of_them + 1, solved + bool(episode.outcome["solved"])
    return found


def tasks_of(policies: Path) -> list[str]:
    """Tasks that a folder of policies holds.

    Raises:
        BadInput: it holds none.
    """
    try:
        found = sorted(entry.name for entry in policies.iterdir() if (entry / "checkpoints").is_dir())
    except OSError as error:
        raise BadInput(f"{policies} cannot be read ({error.strerror}); give the folder of --policies") from error
    if not found:
        raise BadInput(f"{policies} holds no policy; `embodied-vision learn --policies {policies}` makes the first")
    return found


def read_streams(path: Path) -> list[dict[str, Any]]:
    """Streams of tasks from `results/lifelong.jsonl`, the last line of each method and order.

    Raises:
        BadInput: the file cannot be read, or a line lacks what a stream has.
    """
    if not path.is_file():
        raise BadInput(f"{path} does not exist; leave --stream out, or give the figures of `make lifelong`")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, line in enumerate(json_lines.read(path), 1):
        lacking = [name for name in ("method", "order", "tasks", "success", "replay_bytes") if name not in line]
        if lacking:
            raise BadInput(f"{path}, line {number} lacks {', '.join(lacking)}; give the figures of `make lifelong`")
        tasks, rows = list(line["tasks"]), line["success"]
        labels = tasks if len(rows) == len(tasks) else ["all of them"]
        matrix = [[*row, *[None] * (len(tasks) - len(row))] for row in rows]
        found[str(line["method"]), str(line["order"])] = {**line, "matrix": list(zip(labels, matrix, strict=True))}
    return list(found.values())


def write_report(page: Path, lives: Sequence[Life], streams: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the page, which needs no other file.

    Raises:
        BadInput: it cannot be written.
    """
    source = files("embodied_vision.learning").joinpath("life_report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=select_autoescape(default_for_string=True), undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.from_string(source).render(
        lives=lives,
        streams=streams,
        colors=EVENTS,
        timeline=_timeline(lives),
        most=MOST_EPISODES_NAMED,
        shade=_shade,
    )
    staging = page.with_name(f".{page.name}.{uuid.uuid4().hex[:8]}")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        staging.write_text(text, encoding="utf-8")
        os.replace(staging, page)
    except OSError as error:
        raise BadInput(f"{page} cannot be written ({error.strerror}); give another --output") from error


def _timeline(lives: Sequence[Life]) -> list[dict[str, Any]]:
    """Where each event of all tasks lies in time: row, x in [0, 1], color, and words."""
    times = {id(line): _seconds(line) for life in lives for line in life.events}
    known = [time for time in times.values() if time is not None]
    if not known:
        return []
    first, span = min(known), max(max(known) - min(known), 1.0)
    return [
        {
            "row": row,
            "x": round((time - first) / span, 4),
            "color": EVENTS.get(str(line["event"]), "other"),
            "words": f"{line['time']} {line['event']} {line.get('candidate', '')}",
        }
        for row, life in enumerate(lives)
        for line in life.events
        if (time := times[id(line)]) is not None
    ]


def _seconds(line: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(str(line["time"])).timestamp()
    except (KeyError, ValueError):
        return None


def _shade(value: float | None) -> str:
    """Background of a success in [0, 1]: from red over pale to green; white for none."""
    if value is None:
        return "#ffffff"
    low, middle, high = (207, 81, 72), (250, 240, 214), (52, 160, 107)
    start, end, part = (low, middle, 2 * value) if value < 0.5 else (middle, high, 2 * value - 1)
    return "#" + "".join(
        f"{round(a + (b - a) * min(max(part, 0.0), 1.0)):02x}" for a, b in zip(start, end, strict=True)
    )


def read_lives(policies: Path, tasks: Iterable[str], store: EpisodeStore | None) -> list[Life]:
    """The lives of several tasks."""
    return [read_life(policies, task, outcomes_of(store, task) if store is not None else {}) for task in tasks]

"""Drift over a store: every logged decision beside what the policy knows, the alarms, and a picture of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.learning.dataset import load_decisions
from embodied_vision.learning.drift import CHANNELS, PATIENCE, Alarm, Channel, Watch
from embodied_vision.learning.drift_known import Known, describe_action, describe_scene, score_of
from embodied_vision.types import Workspace

TOLD_LEAST = 1e-4


@dataclass(frozen=True)
class Point:
    """A decision, or the end of an episode.

    Attributes:
        source: episode id and number of the decision, or the episode's id.
        values: by channel, what was seen of it.
    """

    source: str
    values: Mapping[Channel, float]


@dataclass(frozen=True)
class Drift:
    """What was found.

    Attributes:
        points: in the order of the episodes.
        alarms: in the order in which they were given.
        episodes: how many were looked at.
        damaged: ids and problems of those that could not be.
    """

    points: Sequence[Point]
    alarms: Sequence[Alarm]
    episodes: int
    damaged: Sequence[tuple[str, str]] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        shares = {
            f"{name}_outside": sum(p.values[name] <= 0.05 for p in self.points if name in p.values)
            for name in ("scene", "action")
        }
        return {
            "episodes": self.episodes,
            "decisions": sum("scene" in point.values for point in self.points),
            **shares,
            "alarms": [alarm.to_dict() for alarm in self.alarms],
            "points": [asdict(point) for point in self.points],
            "damaged": [{"id": name, "problem": problem} for name, problem in self.damaged],
        }


def look(
    store: EpisodeStore,
    known: Known,
    encoder: Encoder | None,
    workspace: Workspace,
    *,
    policy_id: str | None = None,
    patience: float = PATIENCE,
    cache: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> Drift:
    """Go through the episodes of the policy's task that it was not trained on, oldest first.

    Args:
        store: where they lie; an empty one gives no point.
        known: what the policy knows.
        encoder: whose features describe scenes; None for a policy that reads none.
        workspace: what is mapped.
        policy_id: only what this policy did.
        patience: see `drift`.
        cache: as of `load_dataset`.
        report: called with the id of each episode that is through.

    Raises:
        BadInput: another encoder than that of `known`.
    """
    given = encoder.encoder_id if encoder is not None else ""
    if given != known.encoder_id:
        raise BadInput(f"scenes are known by encoder {known.encoder_id!r}, given {given!r}; use its encoder")
    watch, points, alarms = Watch(patience), list[Point](), list[Alarm]()
    damaged: list[tuple[str, str]] = []
    trained, count = set(known.episodes), 0

    def note(error: EpisodeError) -> None:
        damaged.append(("", str(error)))

    chosen = store.select(known.task, policy_id=policy_id, on_damaged=note) if store.exists() else iter(())
    for episode in chosen:
        if episode.id in trained:
            continue
        try:
            found = list(_points(episode, store, known, encoder, workspace, cache))
        except EpisodeError as error:
            damaged.append((episode.id, str(error)))
            continue
        count += 1
        for point in found:
            points.append(point)
            alarms += watch.update(point.values, point.source)
        if report is not None:
            report(episode.id)
    return Drift(points, alarms, count, damaged)


def _points(
    episode: Episode,
    store: EpisodeStore,
    known: Known,
    encoder: Encoder | None,
    workspace: Workspace,
    cache: Path | None,
) -> Iterator[Point]:
    decisions = episode.decisions
    if len(decisions):
        for number, example in load_decisions(store, episode, encoder, workspace, cache).items():
            action = decisions.action(number)
            values: dict[Channel, float] = {
                "scene": known.scenes.p_value(describe_scene(example.scene)),
                "action": known.actions.p_value(describe_action(action)),
            }
            if math.isfinite(score := score_of(action)):
                values["score"] = score
            yield Point(f"{episode.id}/{number}", values)
    if "solved" in episode.outcome and not episode.outcome.get("aborted", False):
        yield Point(episode.id, {"outcome": float(bool(episode.outcome["solved"]))})


_LABELS: dict[Channel, str] = {
    "scene": "scene: p value",
    "action": "action: p value",
    "score": "score",
    "outcome": "solved",
}


def plot(found: Drift, title: str, path: Path, window: int = 10) -> None:
    """Draw each channel over its values, with a running mean and red lines where an alarm was given.

    Args:
        found: what to draw.
        title: of the picture.
        path: where to write it; the ending says in which format.
        window: of the running mean (geometric, of p values).
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for axis, channel in zip(figure.subplots(len(CHANNELS), 1), CHANNELS, strict=True):
        values = np.array([point.values[channel] for point in found.points if channel in point.values])
        bets = channel in ("scene", "action")
        axis.set_ylabel(_LABELS[channel], fontsize=8)
        if bets:
            axis.set_yscale("log")
        if len(values):
            shown = np.maximum(values, TOLD_LEAST) if bets else values
            axis.plot(shown, ".", markersize=3, color="0.6")
            smooth = np.log(shown) if bets else shown
            mean = [smooth[max(0, i + 1 - window) : i + 1].mean() for i in range(len(smooth))]
            axis.plot(np.exp(mean) if bets else mean, color="tab:blue", linewidth=1.2)
        for alarm in found.alarms:
            if alarm.channel == channel:
                axis.axvline(alarm.number, color="tab:red", linewidth=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)

"""Report of a replay through a policy: where its actions differ from the logged ones, by how much, and on what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, select_autoescape

from embodied_vision.episodes.picture import AGAIN_INKS, draw_decision
from embodied_vision.episodes.reader import Episode
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.learning.replay import Comparison, Redecided

PAGE, FIGURES, PICTURES = "index.html", "figures.json", "decisions"
WORST = 50
"""Decisions that are drawn."""

_MM = (0.1, 1.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_DEG = (0.1, 1.0, 5.0, 15.0, 45.0, 90.0)
_MEASURES = (("pick_mm", "mm"), ("place_mm", "mm"), ("pick_deg", "°"), ("place_deg", "°"))
_NAMES = {
    "pick_mm": "pick, mm",
    "place_mm": "place, mm",
    "pick_deg": "turn of the pick, °",
    "place_deg": "turn of the place, °",
}


@dataclass(frozen=True, eq=False)
class Compared:
    """An episode with its decisions made again."""

    episode: Episode
    steps: tuple[Redecided, ...]


def write_report(folder: Path, compared: Sequence[Compared], *, checkpoint: str, encoder: str) -> None:
    """Write `folder`/index.html, which needs nothing but the pictures beside it, and `folder`/figures.json.

    The `WORST` decisions that differ most are drawn, the logged action and the one that came about now on one frame.

    Raises:
        BadInput: the folder cannot be written.
        EpisodeError: a frame is damaged.
    """
    pairs = [(entry.episode, step) for entry in compared for step in entry.steps]
    worst = sorted((pair for pair in pairs if not pair[1].comparison.identical), key=lambda pair: -_badness(pair[1]))
    figures = {"checkpoint": checkpoint, "encoder": encoder, **summarise(compared)}
    try:
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        drawn = [_drawn(folder, episode, step) for episode, step in worst[:WORST]]
        page = _template().render(
            figures=figures,
            compared=compared,
            worst=drawn,
            left_out=max(0, len(worst) - WORST),
            charts=[(_NAMES[name], _bars(compared, name)) for name, _ in _MEASURES],
            names=_NAMES,
        )
        (folder / PAGE).write_text(page, encoding="utf-8")
        decisions = [{"episode": episode.id, **asdict(step.comparison)} for episode, step in pairs]
        text = json.dumps({**figures, "results": decisions}, indent=1)
        (folder / FIGURES).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{error.filename or folder} cannot be written ({error.strerror}); give another folder"
        ) from error


def summarise(compared: Sequence[Compared]) -> dict[str, Any]:
    """Counts, and median, 95th percentile and greatest of each difference; None where no decision came about."""
    comparisons = [step.comparison for entry in compared for step in entry.steps]
    return {
        "decisions": len(comparisons),
        "identical": sum(c.identical for c in comparisons),
        "faults": sum(c.is_fault for c in comparisons),
        "undecided": sum(bool(c.error) for c in comparisons),
        "differences": {name: _spread(comparisons, name) for name, _ in _MEASURES},
    }


def _spread(comparisons: Sequence[Comparison], name: str) -> Mapping[str, float] | None:
    values = [getattr(c, name) for c in comparisons if getattr(c, name) is not None]
    if not values:
        return None
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95)), "greatest": float(max(values))}


def _badness(step: Redecided) -> float:
    """Decisions that did not come about are the worst; 1° counts as 1 mm."""
    c = step.comparison
    if c.pick_mm is None or c.place_mm is None:
        return np.inf
    return c.pick_mm + c.place_mm + (c.pick_deg or 0.0) + (c.place_deg or 0.0)


def _bars(compared: Sequence[Compared], name: str) -> list[tuple[str, int]]:
    """Histogram: (label, decisions), those that are equal apart."""
    bounds = _MM if name.endswith("mm") else _DEG
    labels = ["0", *(f"<{bound:g}" for bound in bounds), f"≥{bounds[-1]:g}"]
    counts = [0] * len(labels)
    for entry in compared:
        for step in entry.steps:
            value = getattr(step.comparison, name)
            if value is not None:
                counts[0 if value == 0 else 1 + int(np.searchsorted(bounds, value, "right"))] += 1
    return list(zip(labels, counts, strict=True))


def _drawn(folder: Path, episode: Episode, step: Redecided) -> dict[str, Any]:
    c = step.comparison
    pictures = []
    try:
        frames = episode.decisions[c.index].frames
    except EpisodeError as error:
        if not c.error:
            raise
        frames, c = (), replace(c, error=str(error))
    for frame in frames:
        name = f"{episode.id}-{c.index}-{frame.camera.name.replace('/', '.')}.jpg"
        image = draw_decision(frame, step.logged)
        if step.again is not None:
            image = draw_decision(replace(frame, color=np.asarray(image)), step.again, AGAIN_INKS)
        image.save(folder / PICTURES / name, quality=90)
        pictures.append({"uri": f"{PICTURES}/{name}", "camera": frame.camera.name})
    logged, again = dict(step.logged.scores), dict(step.again.scores) if step.again is not None else {}
    scores = {name: (logged.get(name), again.get(name)) for name in sorted({*logged, *again})}
    return {"episode": episode, "comparison": c, "pictures": pictures, "scores": scores}


def _template() -> Any:
    source = files("embodied_vision.learning").joinpath("replay_report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=select_autoescape(default_for_string=True), undefined=StrictUndefined, trim_blocks=True
    )
    return environment.from_string(source)

"""Report of an evaluation: its figures, and what the policy saw and decided on every scene that it failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, select_autoescape

from embodied_vision.learning import drawings
from embodied_vision.learning.scene_results import Examined, SceneResult

PAGE, FIGURES, SCENES = "index.html", "figures.json", "scenes"
_BINS = 10


def write_report(folder: Path, figures: Mapping[str, Any], results: Sequence[SceneResult], examined: Examined) -> None:
    """Write `folder`/index.html, which needs nothing but the pictures beside it, and `folder`/figures.json.

    Args:
        folder: pictures of failed scenes lie in its subfolder `scenes`, where `evaluate` drew them.
        figures: of `summarise`.
        results: of the same scenes.
        examined: what was evaluated; pictures of anything else are not shown.
    """
    failures = [
        {
            "result": result,
            "folder": f"{SCENES}/{result.seed}",
            "decisions": drawings.decisions(folder / SCENES / str(result.seed), examined),
        }
        for result in results
        if not result.solved
    ]
    source = files("embodied_vision.learning").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=select_autoescape(default_for_string=True), undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.from_string(source).render(
        figures=figures,
        examined=examined,
        results=results,
        failures=failures,
        captions={name: caption for name, (caption, _) in drawings.MAPS.items()},
        charts=[("reward of a scene", reward_bars(results)), ("actions taken in a scene", step_bars(results))],
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page, encoding="utf-8")
    scenes = [
        {name: getattr(result, name) for name in ("seed", "reward", "solved", "steps", "failed")}
        | {"refused": list(result.refused)}
        for result in results
    ]
    text = json.dumps({**figures, "results": scenes}, indent=1)
    (folder / FIGURES).write_text(text + "\n", encoding="utf-8")


def reward_bars(results: Sequence[SceneResult]) -> list[tuple[str, int, int]]:
    """Histogram of the rewards: (label, solved scenes, failed scenes) in steps of 0.1, the full reward apart."""
    labels = [f"{k / _BINS:.1f}–{(k + 1) / _BINS:.1f}" for k in range(_BINS)]
    bins = [_BINS if r.solved else min(int(r.reward * _BINS + 1e-9), _BINS - 1) for r in results]
    return _bars([*labels, "solved"], bins, results)


def step_bars(results: Sequence[SceneResult]) -> list[tuple[str, int, int]]:
    """Histogram of the number of actions: (label, solved scenes, failed scenes)."""
    most = max((result.steps for result in results), default=1)
    return _bars([str(steps) for steps in range(1, most + 1)], [result.steps - 1 for result in results], results)


def _bars(labels: Sequence[str], bins: Sequence[int], results: Sequence[SceneResult]) -> list[tuple[str, int, int]]:
    return [
        (
            label,
            sum(b == number and r.solved for b, r in zip(bins, results, strict=True)),
            sum(b == number and not r.solved for b, r in zip(bins, results, strict=True)),
        )
        for number, label in enumerate(labels)
    ]

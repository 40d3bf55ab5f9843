"""The table of a probe as Markdown and as a page with curves, which needs nothing beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, select_autoescape

from embodied_vision.encoders.probe import Figure
from embodied_vision.encoders.probes import ABOUT, LINEAR, MEAN, Condition, ProbeTable

PAGE, FIGURES = "index.html", "figures.json"
WIDTH, HEIGHT, MARGIN = 220, 130, 28
"""Of a chart, px."""
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")


def text_of(figure: Figure, sign: str = "") -> str:
    """`0.765 [0.746, 0.789]`, and a dash where nothing could be measured."""
    if not math.isfinite(figure.value):
        return "–"
    return f"{figure.value:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"


def markdown(table: ProbeTable) -> str:
    """Tables of all encoders: clean, the mean over corruptions, and what the first gains over the others."""
    severest = max((c.severity for c in table.conditions()), default=0)
    parts = [*_markdown_table(table, "Clean", Condition())]
    if severest:
        severities = sorted({c.severity for c in table.conditions() if c.corruption == MEAN})
        for severity in severities:
            title = f"Mean over {', '.join(corruptions(table))}; severity {severity}"
            parts += ["", *_markdown_table(table, title, Condition(MEAN, severity))]
    return "\n".join(parts) + "\n"


def corruptions(table: ProbeTable) -> list[str]:
    """Names of the corruptions, in their order."""
    return list(dict.fromkeys(c.corruption for c in table.conditions() if c.severity and c.corruption != MEAN))


def _markdown_table(table: ProbeTable, title: str, condition: Condition) -> Iterator[str]:
    yield f"**{title}.**"
    yield ""
    yield "| features | read-out | " + " | ".join(ABOUT) + " |"
    yield "| --- | --- |" + " --- |" * len(ABOUT)
    chosen = [row for row in table.rows if row.condition == condition]
    for row in chosen:
        yield f"| {row.encoder} | {row.readout} | " + " | ".join(text_of(row.figures[n]) for n in ABOUT) + " |"
    first = next(iter(table.encoder_ids))
    for row in chosen:
        if row.gains:
            gains = " | ".join(text_of(row.gains[n], "+") for n in ABOUT)
            yield f"| {first} less {row.encoder} | {row.readout} | {gains} |"


def write_page(folder: Path, table: ProbeTable, command: str) -> None:
    """Write `folder`/index.html and `folder`/figures.json.

    Args:
        folder: made where it is missing.
        table: what was found.
        command: that found it.
    """
    source = files("embodied_vision.encoders").joinpath("probes.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=select_autoescape(default_for_string=True), undefined=StrictUndefined, trim_blocks=True
    )
    names = list(table.encoder_ids)
    page = environment.from_string(source).render(
        table=table,
        about=ABOUT,
        command=command,
        colors=dict(zip(names, (COLORS[i % len(COLORS)] for i in range(len(names))), strict=True)),
        charts=[(name, figure, _chart(table, name, figure)) for name in corruptions(table) for figure in ABOUT],
        text_of=text_of,
        width=WIDTH,
        height=HEIGHT,
        margin=MARGIN,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page, encoding="utf-8")
    (folder / FIGURES).write_text(json.dumps(table.to_dict(), indent=1) + "\n", encoding="utf-8")


def _chart(table: ProbeTable, corruption: str, figure: str) -> list[tuple[str, str]]:
    """For each encoder the points of its linear read-out's curve from clean on, as SVG has them."""
    curves = []
    severities = [0, *sorted({c.severity for c in table.conditions() if c.corruption == corruption})]
    for name in table.encoder_ids:
        values = [
            table.row(name, LINEAR, Condition(corruption, s) if s else Condition()).figures[figure].value
            for s in severities
        ]
        curves.append((name, " ".join(_point(s, v, severities) for s, v in zip(severities, values, strict=True))))
    return curves


def _point(severity: int, value: float, severities: Sequence[int]) -> str:
    """A value, which at best is 1 and counts as 0 where it is worse or was not measured, in px."""
    x = MARGIN + (WIDTH - 2 * MARGIN) * severity / severities[-1]
    y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * min(max(value if math.isfinite(value) else 0.0, 0.0), 1.0)
    return f"{x:.1f},{y:.1f}"

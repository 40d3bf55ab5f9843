"""The report of a calibration: one page to judge it by."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, select_autoescape

from embodied_vision.calibrating.estimate import Calibration

ENLARGED = 30
"""Reprojection errors are drawn so many times as long as they are."""


def render_report(result: Calibration, camera: str) -> str:
    """An HTML page that needs nothing else: warnings, figures, residuals over the picture, and one line a view."""
    source = files("embodied_vision.calibrating").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=select_autoescape(default_for_string=True), undefined=StrictUndefined, trim_blocks=True
    )
    return environment.from_string(source).render(
        camera=camera,
        result=result,
        figures=result.to_dict(),
        position_mm=[round(1000 * float(value), 1) for value in result.X[:3, 3]],
        arrows=[_arrow(*row) for row in result.arrows.tolist()],
        cells=_cells(result),
        enlarged=ENLARGED,
        worst_px=max(view.residual_px for view in result.views if view.used),
    )


def _arrow(u: float, v: float, du: float, dv: float) -> dict[str, float]:
    ends = (u, v, u + ENLARGED * du, v + ENLARGED * dv)
    return dict(zip(("x1", "y1", "x2", "y2"), (round(value, 1) for value in ends), strict=True))


def _cells(result: Calibration) -> list[dict[str, Any]]:
    """Rectangles of the picture in which corners were seen, darker for more."""
    rows, columns = result.counts.shape
    width, height = result.lens.size[0] / columns, result.lens.size[1] / rows
    most = max(int(result.counts.max()), 1)
    return [
        {
            "x": round(column * width, 1),
            "y": round(row * height, 1),
            "width": round(width, 1),
            "height": round(height, 1),
            "opacity": round(0.1 + 0.4 * float(result.counts[row, column]) / most, 2),
            "count": int(result.counts[row, column]),
        }
        for row, column in np.argwhere(result.counts > 0).tolist()
    ]

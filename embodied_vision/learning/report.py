"""A contact sheet of an evaluation: what was decided on failed and on solved scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from embodied_vision.learning.evaluate import SceneResult

COLUMNS, CAPTION_PX = 3, 14


def contact_sheet(results: Sequence[SceneResult], path: Path, *, most: int = 24) -> None:
    """Save a PNG with one tile a scene, its last decision drawn on its map; failures first, then successes.

    Args:
        results: of an evaluation that drew its decisions.
        path: of the PNG.
        most: tiles at most; a third is kept for successes.
    """
    failures = [r for r in results if not r.solved and r.pictures]
    successes = [r for r in results if r.solved and r.pictures]
    failures = failures[: max(most - len(successes), most * 2 // 3)]
    shown = [*failures, *successes[: most - len(failures)]]
    if not shown:
        return
    height, width = shown[0].pictures[0].shape[:2]
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (width + 6), rows * (height + CAPTION_PX + 6)), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for number, result in enumerate(shown):
        x = (number % COLUMNS) * (width + 6)
        y = (number // COLUMNS) * (height + CAPTION_PX + 6)
        state = "solved" if result.solved else "refused" if result.refused else "failed"
        caption = f"seed {result.seed}: {state}, reward {result.reward:.2f}, {result.steps} steps"
        draw.text((x, y), caption, fill=(0, 110, 0) if result.solved else (190, 0, 0))
        sheet.paste(Image.fromarray(np.asarray(result.pictures[-1])), (x, y + CAPTION_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)

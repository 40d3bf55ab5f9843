"""`python -m embodied_vision_sim.randomisation_sheet FILE`: the same scenes under every preset, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from embodied_vision_sim.randomisation import PRESETS
from embodied_vision_sim.world import World

SCENES = (("block-insertion", 3), ("place-red-in-green", 5), ("stack-block-pyramid", 11))
"""Task and seed of each row."""


def sheet() -> Image.Image:
    """A row a scene, a column a preset, as the front camera sees them; half the size."""
    rows = []
    for task, seed in SCENES:
        row = []
        for preset in PRESETS:
            with World(task, randomisation=preset) as world:
                world.reset(seed)
                row.append(world.render()[0].color)
        rows.append(np.concatenate(row, axis=1))
    return Image.fromarray(np.concatenate(rows)).reduce(2)


def main() -> None:
    """Write the sheet to the file that is named."""
    parser = argparse.ArgumentParser(description="Draw the same scenes under the presets none, mild and strong.")
    parser.add_argument("file", type=Path, help="PNG to write, such as docs/images/randomisation.png")
    path: Path = parser.parse_args().file
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet().save(path, optimize=True)


if __name__ == "__main__":
    main()

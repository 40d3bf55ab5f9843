"""Whether resets leak: memory and bodies over 500 resets of every environment, each in one process.

`make bench-resets` runs them, `make bench-resets SMALL=1` 30 resets of each. One JSON line an environment; exits with 1
when memory grows by more than 5 % after the first tenth, or bodies are left over.
"""

from __future__ import annotations

import json
import resource
from multiprocessing import get_context
from pathlib import Path

import gymnasium
import pybullet
import typer
from rich.console import Console
from rich.progress import Progress

import embodied_vision_sim  # noqa: F401 - registers the environments
from embodied_vision.learning.seeds import scene_seed

MOST_GROWTH = 0.05


def _memory() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(env_id: str, resets: int, randomisation: str, renderer: str) -> dict[str, object]:
    """Resets of fresh scenes: resident memory after a tenth of them and at the end, and bodies left over."""
    env = gymnasium.make(env_id, randomisation=randomisation, renderer=renderer)
    warm, left_over = 0, 0
    for index in range(resets):
        env.reset(seed=scene_seed("train", index))
        cell = env.unwrapped
        bodies = pybullet.getNumBodies(physicsClientId=cell.world.client)
        left_over = max(left_over, bodies - len(cell.object_names))
        if index == max(resets // 10, 1):
            warm = _memory()
    grown = _memory() / warm - 1
    env.close()
    return {
        "bench": "resets",
        "figure": f"growth of memory, {env_id}",
        "value": round(100 * grown, 2),
        "unit": "%",
        "reference": "allowed",
        "reference_value": 100 * MOST_GROWTH,
        "ratio": round(grown / MOST_GROWTH, 3),
        "resets": resets,
        "memory_mb": round(warm / 2**20, 1),
        "left_over_bodies": left_over,
        "randomisation": randomisation,
        "renderer": renderer,
    }


def main(
    env: list[str] = typer.Option([], help="Gymnasium ids; all when left out."),
    resets: int = typer.Option(500, min=10, help="Resets of each."),
    randomisation: str = typer.Option("none", help="Preset."),
    renderer: str = typer.Option("software", help="software, egl or auto."),
) -> None:
    """Reset environments many times and watch memory and bodies."""
    ids = env or sorted(name for name in gymnasium.registry if name.startswith("embodied_vision/"))
    bad = 0
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in progress.track(ids, description="resets"):
            with get_context("spawn").Pool(1) as pool:
                line = pool.apply(measure, (name, resets, randomisation, renderer))
            print(json.dumps(line), flush=True)
            bad += float(str(line["ratio"])) > 1 or bool(line["left_over_bodies"])
    raise typer.Exit(1 if bad else 0)


if __name__ == "__main__":
    typer.run(main)

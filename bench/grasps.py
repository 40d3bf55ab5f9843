"""How often the expert's first grasp lifts an object, with training objects and with those held out.

`make bench-grasps` runs 100 scenes of each, `make bench-grasps SMALL=1` two. One JSON line each. Reference: about 90 %
are reported for deep reinforcement learning on held-out objects (Quillen et al., ICRA 2018).
"""

from __future__ import annotations

import json
from typing import Any, get_args

import gymnasium
import typer
from rich.console import Console
from rich.progress import Progress

from embodied_vision.errors import RunFailed
from embodied_vision.learning.seeds import Split, scene_seed
from embodied_vision.learning.statistics import wilson

ID = "embodied_vision_sim:embodied_vision/GraspDiverse-v0"
PUBLISHED = 0.9


def lifts(env: gymnasium.Env[Any, Any], seed: int) -> bool:
    """Whether the first grasp of the expert lifts an object of a scene."""
    env.reset(seed=seed)
    try:
        action = env.unwrapped.oracle()  # type: ignore[attr-defined]
    except RunFailed:
        return False
    return bool(env.step(action)[4]["solved"])


def main(
    scenes: int = typer.Option(100, min=1, help="Number of scenes of each split."),
    renderer: str = typer.Option("software", help="software, egl or auto."),
) -> None:
    """Let the expert grasp once in scenes of the training and of the test split."""
    splits: tuple[Split, ...] = tuple(split for split in get_args(Split) if split != "validation")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for split in splits:
            env = gymnasium.make(ID, attempts=1, renderer=renderer, disable_env_checker=True)
            seeds = [scene_seed(split, index) for index in range(scenes)]
            failed = [seed for seed in progress.track(seeds, description=split) if not lifts(env, seed)]
            env.close()
            share = wilson(scenes - len(failed), scenes)
            line = {
                "bench": "grasps",
                "figure": f"first grasps that lift, {'held-out' if split == 'test' else 'training'} objects",
                "value": share.value,
                "unit": "1",
                "reference": "deep reinforcement learning, held-out objects, published",
                "reference_value": PUBLISHED,
                "ratio": round(share.value / PUBLISHED, 3),
                "scenes": scenes,
                "ci_low": round(share.low, 4),
                "ci_high": round(share.high, 4),
                "failed_seeds": failed,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    typer.run(main)

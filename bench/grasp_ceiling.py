"""What a single grasp can reach: in how many scenes does any of 64 sampled grasps lift an object?

`make bench-grasp-ceiling` runs 100 test scenes with one object and 100 with five, `make bench-grasp-ceiling SMALL=1`
two of each. One JSON line each. The grasps are those that label training data, each tried from the same state of its
scene; sampling ends with the first that lifts. With `--journal` a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from embodied_vision.cli.evaluate import SplitName
from embodied_vision.learning import json_lines, provenance
from embodied_vision.learning.results_table import CEILING
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.learning.statistics import wilson
from embodied_vision_sim.aside import aside
from embodied_vision_sim.grasp_labelling import sampled
from embodied_vision_sim.grasping import GraspDiverseEnv, grasp_of

GRASPS = 64


def first_lift(env: GraspDiverseEnv, seed: int, grasps: int) -> int:
    """How many sampled grasps it takes to lift an object of a scene, 0 when none of them does."""
    env.reset(seed=seed)
    attempts = sampled(env.world, np.random.default_rng([seed, grasps]), grasps)
    for number, (_, pose, _) in enumerate(attempts, start=1):
        if aside(partial(_lifts, env, env.action_at(*grasp_of(np.asarray(pose, np.float64))))):
            return number
    return 0


def _lifts(env: GraspDiverseEnv, action: np.ndarray) -> bool:
    return bool(env.step(action)[4]["solved"])


def main(
    scenes: int = typer.Option(100, min=1, help="Number of scenes of each kind."),
    in_bin: list[int] = typer.Option([1, 5], help="Objects in the bin; may be given again."),
    split: SplitName = typer.Option(SplitName.TEST, help="Which scenes; those of test show held-out objects."),
    grasps: int = typer.Option(GRASPS, min=1, help="Grasps sampled in each scene at most."),
    journal: Path | None = typer.Option(None, help="File of JSON lines that an interrupted run goes on from."),
    append: Path | None = typer.Option(None, help="File of JSON lines to add the figures to, with their provenance."),
) -> None:
    """Try sampled grasps in each scene until one lifts."""
    commit = provenance.git_commit()  # before anything that is tracked changes
    known = {line["scene"]: line["first_lift"] for line in json_lines.read(journal)} if journal is not None else {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for count in in_bin:
            env = GraspDiverseEnv(in_bin=count, image_size=16, attempts=1)
            taken = []
            seeds = [scene_seed(split.value, index) for index in range(scenes)]
            for seed in progress.track(seeds, description=f"{count} in the bin"):
                scene = f"{count} {seed} {grasps}"
                if scene not in known:
                    known[scene] = first_lift(env, seed, grasps)
                    if journal is not None:
                        json_lines.append(journal, {"scene": scene, "first_lift": known[scene]})
                taken.append(known[scene])
            env.close()
            share, at_once = (wilson(sum(map(told, taken)), scenes) for told in (bool, (1).__eq__))
            line = {
                "bench": CEILING,
                "figure": f"scenes of {split.value} with {count} in the bin where one of {grasps} sampled grasps lifts",
                "value": share.value,
                "unit": "1",
                "reference": "the first sampled grasp alone",
                "reference_value": at_once.value,
                "ratio": round(share.value / max(at_once.value, 1 / scenes), 3),
                "split": split.value,
                "in_bin": count,
                "scenes": scenes,
                "solved": sum(map(bool, taken)),
                "solved_share": round(100 * share.value, 2),
                "solved_low": round(100 * share.low, 2),
                "solved_high": round(100 * share.high, 2),
                "failed_seeds": [seed for seed, number in zip(seeds, taken, strict=True) if not number],
            }
            print(json.dumps(line), flush=True)
            if append is not None:
                run = " ".join(["python", "bench/grasp_ceiling.py", *sys.argv[1:]])
                json_lines.append(append, {**line, "git_commit": commit, "command": run})


if __name__ == "__main__":
    typer.run(main)

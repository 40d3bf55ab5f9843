"""What the experts of the tasks score by real dynamics, and what a step costs.

`make bench-oracles` runs 100 training scenes of every task, `make bench-oracles SMALL=1` two. One JSON line a task.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.geometry import pose_to_vector
from embodied_vision.learning.environments import make_env
from embodied_vision.learning.provenance import git_commit
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.learning.statistics import bootstrap, wilson
from embodied_vision_sim.tasks import TASKS

SUFFICIENT = 0.99
"""Score above which a run counts as a demonstration."""


@dataclass(frozen=True)
class Run:
    """How one scene went.

    Attributes:
        seed: of the scene.
        score: at the end, 0 … 1.
        steps: actions taken.
        seconds: wall time of the steps, physics and rendering, without the expert's own.
        reason: why the scene was not solved, empty when it was.
    """

    seed: int
    score: float
    steps: int
    seconds: float
    reason: str = ""


def run_scene(task: str, seed: int, settings: dict[str, Any]) -> Run:
    """Let the expert act until the scene is solved, its steps are used up, or something fails."""
    env = make_env(task, **settings)
    score, steps, seconds, reason, over = 0.0, 0, 0.0, "", False
    try:
        env.reset(seed=seed)
        while not over:
            action = env.unwrapped.oracle()  # type: ignore[attr-defined]
            begun = time.perf_counter()
            _, _, terminated, truncated, info = env.step(
                {"pick": pose_to_vector(action.pick), "place": pose_to_vector(action.place)}
            )
            seconds += time.perf_counter() - begun
            steps, over, score = steps + 1, terminated or truncated, float(info["reward_total"])
            reason = "; ".join(f"{key}: {info[key]}" for key in ("refused", "failed") if key in info) or reason
    except RunFailed as error:
        reason = str(error)
    finally:
        env.close()
    if score > SUFFICIENT:
        return Run(seed, score, steps, seconds)
    return Run(seed, score, steps, seconds, reason or f"score {score:.3f} after {steps} actions")


def run_scenes(task: str, seeds: list[int], workers: int, settings: dict[str, Any]) -> Iterator[Run]:
    """`run_scene` for every seed, in the order in which they finish."""
    if workers == 1:
        for seed in seeds:
            yield run_scene(task, seed, settings)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_scene, task, seed, settings) for seed in seeds]):
            yield future.result()


def summarise(task: str, runs: list[Run], settings: dict[str, Any]) -> dict[str, Any]:
    """Figures of a task; scores and shares in [0, 1]."""
    score = bootstrap([run.score for run in runs])
    solved = wilson(sum(not run.reason for run in runs), len(runs))
    failed = [
        {"seed": run.seed, "score": round(run.score, 4), "steps": run.steps, "reason": run.reason}
        for run in sorted(runs, key=lambda run: run.seed)
        if run.reason
    ]
    steps = sum(run.steps for run in runs)
    return {
        "bench": "oracles",
        "figure": f"{task}, mean score of the expert",
        "value": round(score.value, 5),
        "unit": "1",
        "reference": "solved",
        "reference_value": 1.0,
        "ratio": round(score.value, 5),
        "task": task,
        **settings,
        "scenes": len(runs),
        "first_seed": min(run.seed for run in runs),
        "ci_low": round(score.low, 5),
        "ci_high": round(score.high, 5),
        "solved": round(solved.value, 4),
        "solved_low": round(solved.low, 4),
        "solved_high": round(solved.high, 4),
        "steps_per_scene": round(steps / len(runs), 2),
        "seconds_per_step": round(sum(run.seconds for run in runs) / max(steps, 1), 3),
        "failed": failed,
    }


def _tell(figures: dict[str, Any]) -> None:
    typer.echo(
        f"{figures['task']}, {figures['scenes']} scenes: score {figures['value']:.4f} "
        f"({figures['ci_low']:.4f} to {figures['ci_high']:.4f}), solved {figures['solved']:.3f} "
        f"({figures['solved_low']:.3f} to {figures['solved_high']:.3f}), "
        f"{figures['steps_per_scene']} steps a scene, {figures['seconds_per_step']:.2f} s a step"
    )
    for failure in figures["failed"]:
        typer.echo(f"  seed {failure['seed']}, score {failure['score']:.3f}: {failure['reason']}")


def main(
    task: list[str] = typer.Option([], help="Name of a task; may be given again.", show_default="all tasks"),
    scenes: int = typer.Option(100, min=1, help="Number of training scenes a task."),
    offset: int = typer.Option(0, min=0, help="Number of the first scene."),
    workers: int = typer.Option(1, min=1, help="Processes that run scenes at once."),
    robot: str = typer.Option("panda", help="Arm, panda or kuka_iiwa."),
    tool: str | None = typer.Option(None, help="Tool at its tip.", show_default="the task's usual one"),
    renderer: str = typer.Option("software", help="software, egl or auto: the expert picks on what the camera sees."),
    append: Path | None = typer.Option(None, help="File of JSON lines to add the figures to, with their provenance."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON line a task."),
) -> None:
    """Let the experts of the tasks solve training scenes by real dynamics."""
    console = Console(stderr=True)
    try:
        seeds = [scene_seed("train", offset + index) for index in range(scenes)]
        unknown = sorted(set(task) - set(TASKS))
        if unknown:
            raise BadInput(f"task {unknown[0]!r} is unknown; choose one of {', '.join(sorted(TASKS))}")
    except BadInput as error:
        console.print(str(error), highlight=False, markup=False)
        raise typer.Exit(2) from error
    commit = git_commit()
    settings = {"robot": robot, "tool": tool, "renderer": renderer}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    for name in task or sorted(TASKS):
        runs = []
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task(name, total=scenes)
            for run in run_scenes(name, seeds, workers, settings):
                runs.append(run)
                progress.advance(bar)
        figures = summarise(name, runs, settings)
        if append is not None:
            line = {**figures, "git_commit": commit, "command": " ".join(["python", *sys.argv])}
            append.parent.mkdir(parents=True, exist_ok=True)
            with open(append, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if as_json:
            typer.echo(json.dumps(figures))
        else:
            _tell(figures)


if __name__ == "__main__":
    typer.run(main)

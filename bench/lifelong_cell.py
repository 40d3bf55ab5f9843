"""A cell changes while it works, and finds back by itself: through ROS, in real processes, in real time.

The simulated cell works on one training scene after the other with a learner beside it. At one episode the light turns
to a low warm lamp and the parts are of another batch, darker and of other hues (`learning/scenario.py`). What success
does, what was promoted, and what is left of the old conditions is written to results/lifelong_cell.jsonl and drawn.

`python bench/lifelong_cell.py --output runs/lifelong_cell` takes about an hour; after an interruption the same command
goes on where it was. `--direct` does the same in one process without ROS, faster than real time, the learner working
between episodes. Exit code 1 when what must be shown is not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from embodied_vision.errors import RunFailed
from embodied_vision.launching.graph import CELL, LEARNER, GraphConfig
from embodied_vision.launching.supervisor import Supervisor
from embodied_vision.learning import json_lines, provenance, scenario
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.learner import LearnerConfig
from embodied_vision.learning.processes import Processes
from embodied_vision.learning.promotion import CURRENT, Pointer
from embodied_vision.learning.scenario import Plan, Trial, Worked
from embodied_vision.learning.scenario_direct import DirectCell
from embodied_vision.learning.scenario_plot import draw
from embodied_vision.learning.scene_results import SceneResult
from embodied_vision.learning.workers import Here, Pool
from embodied_vision.nodes.client import GraphClient

START_S, SCENE_S = 240.0, 900.0
EVERY, STEPS = 4, 250
console = Console(stderr=True)


class RosCell:
    """The launched cell, with a learner; use it as a context manager."""

    def __init__(self, plan: Plan, output: Path, learn: LearnConfig) -> None:
        self._plan = plan
        policies, store = output / "policies", output / "episodes"
        self._config = GraphConfig(
            nodes=(*CELL, LEARNER),
            run_dir=output / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            parameters={
                "cell": {"task": plan.task},
                "policy": {"checkpoint": str(policies / plan.task / CURRENT)},
                "recorder": {"store": str(store)},
                "task": {"task": plan.task},
                "learner": {
                    "store": str(store),
                    "policies": str(policies),
                    "tasks": [plan.task],
                    "every": EVERY,
                    "steps": learn.steps,
                    "scenes": learn.scenes,
                },
            },
        )
        self._held = ExitStack()

    def __enter__(self) -> RosCell:
        self._supervisor = self._held.enter_context(Supervisor(self._config))
        self._supervisor.wait_active(START_S)
        os.environ.update(self._supervisor.environment.variables)
        self._client = self._held.enter_context(GraphClient(domain_id=self._supervisor.domain))
        self._client.watch("task/status", "policy/info", "recorder/status", "learner/status")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def work(self, seed: int, condition: Mapping[str, Any]) -> tuple[float, bool, str, str]:
        """See `scenario.Cell`."""
        client = self._client
        client.set_parameters("cell", {"randomisation": json.dumps(condition)})
        client.set_parameters("task", {"seeds": [seed]})
        acting = str(
            client.wait("policy/info", lambda info: "checkpoint_id" in info, 10.0, self._alive)["checkpoint_id"]
        )
        self._begin()
        task = client.wait(
            "task/status",
            lambda s: s["state"] in ("finished", "failed") and s["seeds"] == [seed],
            SCENE_S,
            self._alive,
        )
        if task["state"] == "failed":
            raise RunFailed(f"{task['error']}; the logs are in {self._supervisor.run_dir / 'logs'}")
        client.wait("recorder/status", lambda s: not s["unfinished"], 60.0, self._alive)
        result = task["results"][-1]
        return float(result["reward"]), bool(result["solved"]), acting, str(result["episode"])

    def _begin(self) -> None:
        """Have the task node work; its former run may be about to end."""
        deadline = time.monotonic() + 5.0
        while True:
            try:
                self._client.trigger("task/run")
                return
            except RunFailed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _alive(self) -> None:
        if self._supervisor.failure:
            raise RunFailed(self._supervisor.failure)


def try_policies(
    plan: Plan, output: Path, worked: list[Worked], first: str, workers: int
) -> dict[tuple[str, str], Any]:
    """Results of the first, the recovered and the last policy on the trial scenes; known ones are not made again."""
    pointer, log = Pointer(output / "policies", plan.task), output / "trials.jsonl"
    policies = {
        "first": first,
        "recovered": worked[plan.change_at + plan.recovery - 1].checkpoint,
        "last": worked[-1].checkpoint,
    }
    known = {(r["checkpoint"], r["condition"], r["seed"]): SceneResult(**r["result"]) for r in json_lines.read(log)}
    wanted = [
        ("first", "usual"),
        ("first", "evening"),
        ("recovered", "evening"),
        ("last", "evening"),
        ("last", "usual"),
    ]
    seeds = scenario.trial_seeds(plan)
    results = {}
    with _bar() as progress:
        for who, condition in wanted:
            checkpoint = policies[who]
            bar = progress.add_task(f"{who} policy, {condition}", total=len(seeds))
            missing = [seed for seed in seeds if (checkpoint, condition, seed) not in known]
            progress.update(bar, completed=len(seeds) - len(missing))
            make = partial(Trial, plan.task, pointer.path(checkpoint), condition)
            running: Any = Here(make) if workers == 1 or len(missing) < 2 else Pool(Processes(make), workers)
            with running:
                for result in running.run(missing):
                    known[checkpoint, condition, result.seed] = result
                    record = {"checkpoint": checkpoint, "condition": condition, "seed": result.seed}
                    json_lines.append(log, {**record, "result": asdict(replace(result, actions=[], decision_s=[]))})
                    progress.advance(bar)
            results[who, condition] = [known[checkpoint, condition, seed] for seed in seeds]
    return results


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def main(
    output: Path = typer.Option(Path("runs/lifelong_cell"), help="Folder of episodes, policies and logs; to resume."),
    results: Path = typer.Option(Path("results/lifelong_cell.jsonl"), help="File that gains a line."),
    picture: Path = typer.Option(Path("docs/images/lifelong_cell.png"), help="The figure."),
    episodes: int = typer.Option(Plan.episodes, min=2, help="Episodes to work on."),
    change_at: int = typer.Option(Plan.change_at, min=1, help="First episode under the new conditions."),
    recovery: int = typer.Option(Plan.recovery, min=1, help="Episodes after the change in which it must recover."),
    demonstrations: int = typer.Option(Plan.demonstrations, min=1, help="Of the first policy, kept for rehearsal."),
    trials: int = typer.Option(Plan.trials, min=1, help="Validation scenes a policy and condition."),
    scenes: int = typer.Option(LearnConfig().scenes, min=1, help="Validation scenes of the gate."),
    steps: int = typer.Option(STEPS, min=1, help="Training steps of a round, each stage."),
    workers: int = typer.Option(2, min=1, help="Processes that try policies."),
    direct: bool = typer.Option(False, help="Without ROS, in this process, faster than real time."),
) -> None:
    """Work, learn, and show what came of it."""
    plan = Plan(
        episodes=episodes,
        change_at=change_at,
        recovery=recovery,
        demonstrations=demonstrations,
        trials=trials,
    )
    output = output.absolute()
    begun = time.monotonic()
    first = scenario.prepare(plan, output / "episodes", output / "policies", lambda n: None)
    first = _remember(output / "first.json", first)
    learn = LearnConfig(steps=steps, scenes=scenes, threads=1)
    cell: Any
    if direct:
        config = LearnerConfig(tasks=(plan.task,), every=EVERY, learn=learn)
        cell = DirectCell(plan.task, output / "episodes", output / "policies", config)
    else:
        cell = RosCell(plan, output, learn)
    log = output / "episodes.jsonl"
    with _bar() as progress:
        bar = progress.add_task("episodes", total=plan.episodes)

        def on_episode(w: Worked) -> None:
            progress.update(bar, completed=w.number + 1, description=f"{w.condition}, policy {w.checkpoint[:6]}")

        if len(json_lines.read(log)) < plan.episodes:
            with cell:
                worked = scenario.work(plan, cell, log, on_episode)
        else:
            worked = scenario.work(plan, _Nobody(), log, on_episode)
    tried = try_policies(plan, output, worked, first, workers)
    history = Pointer(output / "policies", plan.task).history()
    summary = {
        "through": "one process" if direct else "ROS",
        **scenario.figures(plan, worked, tried),
        "history": [{key: line[key] for key in ("time", "event", "candidate", "reason")} for line in history],
        "git_commit": provenance.git_commit(),
        "command": provenance.command(),
    }
    json_lines.append(results, summary)
    draw(picture, plan, worked, summary)
    _print(summary, time.monotonic() - begun)
    raise typer.Exit(0 if all(summary["shown"].values()) or trials < Plan.trials else 1)


class _Nobody:
    """All episodes are done already."""

    def work(self, seed: int, condition: Mapping[str, Any]) -> tuple[float, bool, str, str]:
        raise RunFailed("an episode is missing in the log")


def _remember(path: Path, first: str) -> str:
    """The policy that was in use when the scenario began, also after an interruption."""
    if not path.is_file():
        path.write_text(json.dumps({"checkpoint": first}), encoding="utf-8")
    return str(json.loads(path.read_text(encoding="utf-8"))["checkpoint"])


def _print(summary: Mapping[str, Any], seconds: float) -> None:
    levels = {name: summary[name]["score"] for name in ("former_level", "after_the_change", "recovered_level")}
    lines = {
        "success after the change": (levels["after_the_change"], "share", levels["former_level"]),
        "success recovered": (levels["recovered_level"], "share", levels["former_level"]),
        "old conditions, last less first": (summary["old_conditions"]["difference"], "share", -0.05),
        "promotions": (summary["promotions"], "", 1),
        "seconds": (round(seconds, 1), "s", 3600),
    }
    references = ("former level", "former level", "least allowed", "at least", "asked for")
    for (name, (value, unit, reference)), told in zip(lines.items(), references, strict=True):
        ratio = round(value / reference, 4) if reference else None
        figure = {"bench": "lifelong_cell", "figure": name, "value": value, "unit": unit}
        print(json.dumps({**figure, "reference": told, "reference_value": reference, "ratio": ratio}))


if __name__ == "__main__":
    typer.run(main)

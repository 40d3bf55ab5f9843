"""Pick-and-place tasks on an arm whose driver is a process of its own and keeps limits of its own.

`make bench-real-arm` runs 100 test scenes through the whole graph, the simulated cell being moved by
`embodied_vision_sim.driver_node` as a robot is by its joint trajectory controller; SMALL=1 runs two. INTERFACE=action
sends goals of FollowJointTrajectory and ParallelGripperCommand instead of messages, with a control_msgs that is built
for it. RESUME=1 goes on with a run that broke off. Prints one JSON line a figure, and ends with exit code 1 unless
every task was carried out and the driver saw none of its limits broken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from embodied_vision.control.player import START_S as REST_S
from embodied_vision.errors import RunFailed
from embodied_vision.launching.graph import DRIVEN_CELL, GraphConfig
from embodied_vision.launching.supervisor import Supervisor
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.nodes.client import GraphClient

ROOT = Path(__file__).resolve().parents[1]
START_S, SCENE_S = 180.0, 90.0
ROUND = 10
"""Scenes that are run, and written to the journal, together."""

UPSTREAM = ["encoder", "policy", "recorder", "task", "driver"]
NEEDS = ["cell", "encoder", "policy", "arm", "recorder", "driver"]

console = Console(stderr=True)


def parameters(task: str, interface: str, store: Path) -> dict[str, dict[str, Any]]:
    """What the nodes are set to."""
    return {
        "cell": {"driven": True, "task": task},
        "policy": {"checkpoint": task},
        "arm": {"upstream": UPSTREAM, "command_interface": interface, "gripper_interface": interface},
        "recorder": {"store": str(store), "task": task},
        "task": {"task": task, "needs": NEEDS},
    }


@contextmanager
def running(task: str, interface: str, folder: Path) -> Iterator[tuple[Supervisor, GraphClient]]:
    """The graph with all nodes active, and a client."""
    if interface == "action":
        built = subprocess.run([sys.executable, "tests/ros_interfaces/build.py"], cwd=ROOT, check=True, text=True)
        assert built.returncode == 0
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT / ".cache" / "control_msgs"), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
    run_dir = folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    config = GraphConfig(
        nodes=DRIVEN_CELL, run_dir=run_dir, parameters=parameters(task, interface, folder.resolve() / "episodes")
    )
    with Supervisor(config) as graph:
        graph.wait_active(START_S)
        os.environ.update(graph.environment.variables)
        with GraphClient(domain_id=graph.domain) as client:
            client.watch("task/status", "driver/status", "arm/status")
            yield graph, client


def account(client: GraphClient) -> dict[str, Any]:
    """What the driver counted up to now."""
    now_ns = time.time_ns()
    return client.wait("driver/status", lambda status: int(status["stamp_ns"]) > now_ns, 10.0)


def run_scenes(graph: Supervisor, client: GraphClient, task: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Run scenes one after the other and return how each went.

    Raises:
        RunFailed: the graph did not recover; the message names the logs.
    """

    def alive() -> None:
        if graph.failure:
            raise RunFailed(graph.failure)

    before = len(client.messages("task/status"))
    client.set_parameters("task", {"task": task, "seeds": list(seeds)})
    client.trigger("task/run")

    def ended(status: dict[str, Any]) -> bool:
        return len(client.messages("task/status")) > before and status["state"] in ("finished", "failed")

    status = client.wait("task/status", ended, START_S + SCENE_S * len(seeds), alive)
    if status["state"] == "failed":
        raise RunFailed(f"{status['error']}; the logs are in {graph.run_dir / 'logs'}")
    return list(status["results"])


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Rounds that are through; a line that broke off is left out."""
    rounds = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rounds.append(json.loads(line))
        except ValueError:
            break
    return rounds


def work(task: str, interface: str, count: int, folder: Path, *, resume: bool) -> list[dict[str, Any]]:
    """Run the scenes, or with `resume` those that the journal lacks; all its rounds."""
    journal = folder / f"{task}-{interface}.jsonl"
    if not resume:
        journal.unlink(missing_ok=True)
    rounds = read_journal(journal)
    done = {result["seed"] for one in rounds for result in one["results"]}
    seeds = [seed for seed in (scene_seed("test", index) for index in range(count)) if seed not in done]
    if not seeds:
        return rounds
    with running(task, interface, folder) as (graph, client):
        before = account(client)
        for start in range(0, len(seeds), ROUND):
            results = run_scenes(graph, client, task, seeds[start : start + ROUND])
            after = account(client)
            counts = {
                name: _rise(before[name], after[name])
                for name in ("accepted", "malformed", "refused", "violations", "braked")
            }
            shares = {name: after[name] for name in ("velocity_share", "acceleration_share", "late_s")}
            deaths = sum(event.kind == "died" for event in graph.events)
            rounds.append({"results": results, **counts, **shares, "last": after["last"], "deaths": deaths})
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rounds[-1]) + "\n")
            before = after
            console.print(f"{len(done) + start + len(results)} of {count} tasks", highlight=False)
    return rounds


def _rise(before: Any, after: Any) -> int:
    """How many more there are, of a number or of all numbers by name."""
    if isinstance(after, dict):
        return sum(after.values()) - sum(before.values())
    return int(after - before)


def figure(name: str, value: float, unit: str, reference: str, reference_value: float) -> None:
    """Print one figure."""
    ratio = round(value / reference_value, 4) if reference_value else None
    line = {"bench": "real_arm", "figure": name, "value": value, "unit": unit}
    print(json.dumps({**line, "reference": reference, "reference_value": reference_value, "ratio": ratio}), flush=True)


def report(rounds: list[dict[str, Any]], count: int) -> bool:
    """Print the figures; whether all tasks were carried out without a limit broken."""
    results = [result for one in rounds for result in one["results"]]
    total = {name: sum(one[name] for one in rounds) for name in ("accepted", "malformed", "refused", "violations")}
    figure("tasks carried out", len(results), "tasks", "asked for", count)
    figure("tasks solved", sum(bool(result["solved"]) for result in results), "tasks", "carried out", len(results))
    figure("attempts", sum(int(result["attempts"]) for result in results), "attempts", "tasks", len(results))
    accepted = total["accepted"]
    figure("setpoints that broke a limit of the driver", total["violations"], "setpoints", "allowed", 0)
    figure("trajectories refused by a limit of the driver", total["refused"], "trajectories", "accepted", accepted)
    figure("trajectories rejected as malformed or late", total["malformed"], "trajectories", "accepted", accepted)
    figure("brakes of the driver's own", sum(one["braked"] for one in rounds), "brakes", "accepted", accepted)
    for what in ("velocity", "acceleration"):
        share = max(one[f"{what}_share"] for one in rounds)
        figure(f"largest {what}", round(share, 4), "of the driver's limit", "the limit", 1.0)
    late_ms = round(max(one["late_s"] for one in rounds) * 1e3, 2)
    figure("longest way of a trajectory to the driver", late_ms, "ms", "rest before every leg", REST_S * 1e3)
    for last in {one["last"] for one in rounds if one["last"]}:
        console.print(f"the driver said: {last}", highlight=False)
    return len(results) == count and total["violations"] == total["refused"] == 0


def main(
    tasks: int = typer.Option(100, min=1, help="Number of tasks, each a test scene."),
    task: str = typer.Option("block-insertion", help="Task and shipped checkpoint."),
    interface: str = typer.Option("topic", help="How the arm node speaks to the driver: topic or action."),
    output: Path | None = typer.Option(None, help="Where logs and journal go.", show_default="a temporary folder"),
    resume: bool = typer.Option(False, "--resume", help="Go on with the journal in --output."),
) -> None:
    """Run the tasks on the driven cell and print what the driver saw."""
    with tempfile.TemporaryDirectory(prefix="bench-real-arm-") as scratch:
        folder = output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not report(work(task, interface, tasks, folder, resume=resume), tasks):
            raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

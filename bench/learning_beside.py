"""What a learner that trains costs those who move the arm: camera to trajectory, with and without it, in one run.

The simulated cell is launched as usual. Again and again a scene is built, a decision asked for, and the time taken from
the picture that it was made on to the trajectory (`trace`); the arm is stopped then and goes home. A round of learning
trains beside it, in the process and at the priority that the learner node gives it; it is halted and continued in
turns, so that both kinds of decisions see the same machine. Prints one JSON line a figure; exit code 1 when the 99th
percentile grows by more than a fifth (told, but not judged, below 100 decisions of each kind).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import typer
from diagnostic_msgs.msg import DiagnosticArray
from rich.console import Console

from embodied_vision.errors import RunFailed
from embodied_vision.launching.graph import CELL, GraphConfig
from embodied_vision.launching.process import ManagedProcess
from embodied_vision.launching.supervisor import Supervisor
from embodied_vision.learning.collect import collect
from embodied_vision.learning.environments import Conditions
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.learner import ROUND
from embodied_vision.learning.learner_round import RoundSpec
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from embodied_vision.nodes.trace import read_marks

FIRST, LAST = "cell.publish", "arm.publish"
START_S, DECISION_S, HOME_S, TRAINING_S = 180.0, 30.0, 60.0, 240.0
GOAL = 1.2
FEWEST = 100
"""Decisions of each kind below which a 99th percentile is told and not judged."""
console = Console(stderr=True)


class Witness:
    """Hears on `trace` how long each decision took."""

    def __init__(self, client: GraphClient) -> None:
        self._published: dict[int, int] = {}
        self.took_ms: list[float] = []
        client.node.create_subscription(DiagnosticArray, "trace", self._take, qos.TRACE)

    def _take(self, message: DiagnosticArray) -> None:
        for mark in read_marks(message):
            if mark.stage == FIRST:
                self._published[mark.stamp_ns] = mark.monotonic_ns
            elif mark.stage == LAST and mark.stamp_ns in self._published:
                self.took_ms.append((mark.monotonic_ns - self._published.pop(mark.stamp_ns)) * 1e-6)


def decide(client: GraphClient, witness: Witness, graph: Supervisor, number: int) -> float | None:
    """A decision on a scene of its own, ms from its picture to its trajectory; None where it came to nothing."""

    def alive() -> None:
        if graph.failure:
            raise RunFailed(graph.failure)

    client.set_parameters("cell", {"seed": scene_seed("validation", number)})
    client.trigger("cell/reset")
    before = len(witness.took_ms)
    try:
        decision = client.trigger("policy/predict", DECISION_S)
    except RunFailed as error:
        console.print(f"no decision: {error}", highlight=False)
        return None
    deadline = time.monotonic() + DECISION_S
    while len(witness.took_ms) == before:
        status = client.messages("arm/status")[-1]
        if status["refused"] and status["decision_id"] == decision:
            console.print(f"refused: {status['reason']}", highlight=False)
            return None
        alive()
        if time.monotonic() > deadline:
            raise RunFailed(f"no trajectory within {DECISION_S:g} s; the logs are in {graph.run_dir / 'logs'}")
        time.sleep(0.005)
    client.trigger("arm/stop")
    client.wait("arm/status", lambda s: s["state"] == "stopped", 10.0, alive)
    client.trigger("arm/resume")
    client.trigger("arm/home", HOME_S)
    client.wait("arm/status", lambda s: s["state"] == "idle", 10.0, alive)
    return witness.took_ms[before]


def start_training(task: str, folder: Path, demonstrations: int) -> ManagedProcess:
    """A round of learning that goes on training until it is ended, once it trains."""
    store = folder / "episodes"
    made = collect(task, store, demonstrations, conditions=Conditions("none", "software"))
    ids = [demonstration.episode_id for demonstration in made if demonstration.episode_id is not None]
    learn = LearnConfig(steps=10_000_000, minutes=600.0, threads=1)
    spec = folder / "round.json"
    wanted = RoundSpec(task, str(store), str(folder / "policies"), "default", ids, [], learn)
    spec.write_text(wanted.to_json(), encoding="utf-8")
    command = [sys.executable, "-m", ROUND, str(spec)]
    process = ManagedProcess("learner", command, dict(os.environ), folder / "learner.log", read=True)
    begun = time.monotonic()
    for line in process.output:
        if json.loads(line).get("phase") == "training":
            return process
        if time.monotonic() > begun + TRAINING_S:
            break
    process.send(signal.SIGKILL)
    raise RunFailed(f"the learner does not train: {process.last_lines()}")


def figure(name: str, value: float, reference: float) -> None:
    """Print one figure."""
    line = {"bench": "learning_beside", "figure": name, "value": round(value, 2), "unit": "ms"}
    ratio = round(value / reference, 4) if reference else None
    told = {"reference": "without the learner", "reference_value": round(reference, 2), "ratio": ratio}
    print(json.dumps({**line, **told}), flush=True)


def main(
    decisions: int = typer.Option(200, min=1, help="Of each kind."),
    block: int = typer.Option(10, min=1, help="Decisions in a row with the learner training, or halted."),
    demonstrations: int = typer.Option(20, min=1, help="That the learner trains on."),
    task: str = typer.Option("block-insertion", help="Task of cell, policy and learner."),
) -> None:
    """Measure, and print the percentiles of both kinds."""
    took: dict[bool, list[float]] = {False: [], True: []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="learning-beside-")))
        nodes = tuple(node for node in CELL if node.name != "task")
        parameters = {
            "cell": {"task": task},
            "policy": {"checkpoint": task},
            "arm": {"upstream": ["encoder", "policy", "recorder"]},  # no task node: the scenes are built here
            "recorder": {"store": str(folder / "recorded"), "min_free_mb": 0},
        }
        config = GraphConfig(nodes=nodes, run_dir=folder / "run", parameters=parameters)
        learner = start_training(task, folder, demonstrations)
        stack.callback(learner.wait, 10.0)
        stack.callback(learner.send, signal.SIGKILL)
        learner.send(signal.SIGSTOP)
        graph = stack.enter_context(Supervisor(config))
        graph.wait_active(START_S)
        os.environ.update(graph.environment.variables)
        client = stack.enter_context(GraphClient(domain_id=graph.domain))
        client.watch("arm/status")
        client.wait("arm/status", lambda s: s["state"] == "idle", 60.0)
        witness = Witness(client)
        client.wait("encoder/info", lambda info: bool(info), 30.0)
        number = 0
        decide(client, witness, graph, number)  # the first one warms up
        while min(map(len, took.values())) < decisions:
            for trains in (False, True):
                learner.send(signal.SIGCONT if trains else signal.SIGSTOP)
                for _ in range(min(block, decisions - len(took[trains]))):
                    number += 1
                    value = decide(client, witness, graph, number)
                    took[trains] += [value] if value is not None else []
                if number > 4 * decisions + 20:
                    raise RunFailed(
                        f"only {[len(values) for values in took.values()]} of {number} decisions came about"
                    )
            console.print(f"{len(took[True])} of {decisions}", highlight=False)
    without, beside = np.array(took[False]), np.array(took[True])
    for name, percent in (("median", 50), ("p95", 95), ("p99", 99)):
        figure(
            f"camera to trajectory beside training, {name}",
            *(float(np.percentile(x, percent)) for x in (beside, without)),
        )
    growth = float(np.percentile(beside, 99) / np.percentile(without, 99))
    if decisions >= FEWEST and growth > GOAL:
        console.print(f"the 99th percentile is {growth:.2f} times that without the learner, {GOAL} are allowed")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

"""The simulated cell at work for a long time: what its processes keep, whether a heartbeat is missed, what grows.

`make soak MINUTES=45` has the whole graph work on one scene after the other. Every few seconds it looks at the private
memory of each process, and hears every heartbeat and every decision's way through the graph. After a warm-up of ten
minutes a line is laid through each process' memory and through the latency of the decisions. Prints one JSON line a
figure and draws them; ends with exit code 1 when something grows, a heartbeat was missed or a process died.

How a slope is judged: memory and latency come in steps and bursts, so that neighbouring samples tell the same. The
time after the warm-up is cut into blocks, the means of the blocks are fitted with a line, and the line's standard
error is widened by what the residuals of neighbouring blocks still have in common (lag-1 correlation r: the blocks
count as n (1 - r) / (1 + r)). Nothing grows when the interval of every slope reaches down to zero. The intervals are
at 95 % for all slopes together (Bonferroni): at 95 % for each of eight, one run in five would find growth where there
is none. Looks come at random moments, one in each few seconds: frames and what is done every 30 s keep their time so
well that regular looks would meet them in a phase that drifts over the hour, and memory with it. SMALL=1 takes about a
minute: it shows that all of this works, but slopes over so short a time judge nothing.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import typer
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import linregress
from scipy.stats import t as student
from std_msgs.msg import String

from embodied_vision.errors import RunFailed
from embodied_vision.launching.graph import CELL, GraphConfig
from embodied_vision.launching.supervisor import Supervisor
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from embodied_vision.nodes.trace import read_marks

START_S, SCENE_S = 180.0, 90.0
ROUND = 3
"""Scenes that the task node is given at once."""

BLOCKS = 20
LEAST_MINUTES = 10.0
"""Slopes over less time than this are told and not judged."""

LEAST_SAMPLES = 8

MISSED_S = 1.0
"""A heartbeat is missed when none came for so long: the arm stops then (its parameter `heartbeat_timeout`)."""

FIRST, LAST = "cell.publish", "arm.publish"

Series = tuple[list[float], list[float]]
"""Times in s and values."""

console = Console(stderr=True)


@dataclass(frozen=True)
class Slope:
    """A rise a minute, with half the width of its interval."""

    rise: float
    half: float

    @property
    def grows(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.rise - self.half > 0


def slope(times_s: Sequence[float], values: Sequence[float], among: int = 1) -> Slope:
    """Lay a line through the block means of `LEAST_SAMPLES` values or more; this file's docstring tells how it errs.

    Args:
        times_s, values: the series.
        among: how many slopes hold together at 95 %, this one among them.
    """
    count = min(BLOCKS, len(values) // 2)
    blocks = np.array_split(np.arange(len(values)), count)
    minutes = np.array([np.mean(np.take(times_s, block)) for block in blocks]) / 60
    means = np.array([np.mean(np.take(values, block)) for block in blocks])
    if np.ptp(means) == 0:
        return Slope(0.0, 0.0)
    line = linregress(minutes, means)
    rest = means - (line.intercept + line.slope * minutes)
    power = float(rest @ rest)
    common = min(max(float(rest[1:] @ rest[:-1]) / power, 0.0), 0.9) if power > 0 else 0.0
    effective = max(count * (1 - common) / (1 + common), 3.0)
    error = float(line.stderr) * float(np.sqrt(count / effective))
    return Slope(float(line.slope), error * float(student.ppf(1 - 0.025 / among, effective - 2)))


def private_mb(pid: int) -> float:
    """Memory that belongs to a process alone, MB; swapped pages count."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]:
        name, value = line.split(":")
        if name in ("Private_Dirty", "Private_Clean", "Swap"):
            total += int(value.split()[0])
    return total / 1024


def monitor_pid() -> int | None:
    """The process of the supervisor's monitor, a child of this one."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text(encoding="utf-8").split():
            try:
                if "embodied_vision.nodes.monitor" in Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8"):
                    return int(child)
            except OSError:
                continue
    return None


@dataclass
class Memory:
    """Private memory of one process over time."""

    times_s: list[float] = field(default_factory=list)
    values_mb: list[float] = field(default_factory=list)


class Witness:
    """Hears every heartbeat and how long each decision took. Times are of the steady clock.

    Attributes:
        longest_s: node → longest time without a heartbeat.
        missed: node → how often it was longer than `MISSED_S`.
        latencies: (time in s, latency in ms) of each decision, from the picture to the trajectory.
    """

    def __init__(self, client: GraphClient, names: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._heard: dict[str, float] = {}
        self.longest_s: dict[str, float] = dict.fromkeys(names, 0.0)
        self.missed: dict[str, int] = dict.fromkeys(names, 0)
        self.latencies: list[tuple[float, float]] = []
        self._published: OrderedDict[int, int] = OrderedDict()
        for name in names:
            client.node.create_subscription(String, f"heartbeat/{name}", self._hear(name), qos.HEARTBEAT)
        client.node.create_subscription(DiagnosticArray, "trace", self._take, qos.TRACE)

    def _hear(self, name: str):  # type: ignore[no-untyped-def]
        def hear(_message: String) -> None:
            self._note(name, time.monotonic())

        return hear

    def _note(self, name: str, now_s: float) -> None:
        with self._lock:
            silent_s = now_s - self._heard.get(name, now_s)
            self._heard[name] = now_s
            self.longest_s[name] = max(self.longest_s[name], silent_s)
            self.missed[name] += silent_s > MISSED_S

    def end(self) -> None:
        """Count the silence that lasts."""
        for name in list(self.missed):
            if name not in self._heard:
                self.missed[name] += 1
            self._note(name, time.monotonic())

    def _take(self, message: DiagnosticArray) -> None:
        for mark in read_marks(message):
            if mark.stage == FIRST:
                self._published[mark.stamp_ns] = mark.monotonic_ns
                while len(self._published) > 300:
                    self._published.popitem(last=False)
            elif mark.stage == LAST and mark.stamp_ns in self._published:
                took_ns = mark.monotonic_ns - self._published.pop(mark.stamp_ns)
                self.latencies.append((mark.monotonic_ns * 1e-9, took_ns * 1e-6))


@dataclass
class Run:
    """What was seen: processes' memory by name, decisions, heartbeats, scenes, and what went wrong."""

    begun_s: float
    warm_s: float
    memory: dict[str, Memory]
    witness: Witness
    scenes: int = 0
    solved: int = 0
    attempts: int = 0
    deaths: list[str] = field(default_factory=list)

    def warm(self, times_s: Sequence[float], values: Sequence[float]) -> Series:
        """What was measured after the warm-up."""
        kept = [(time_s, value) for time_s, value in zip(times_s, values, strict=True) if time_s >= self.warm_s]
        return [time_s for time_s, _ in kept], [value for _, value in kept]


def watch(minutes: float, warm_up: float, task: str, output: Path) -> Run:
    """Have the cell work for so long and return what was seen.

    Raises:
        RunFailed: the graph did not start, or did not recover; the message names the logs.
    """
    parameters: dict[str, dict[str, Any]] = {
        "cell": {"task": task},
        "policy": {"checkpoint": task},
        "recorder": {"store": str((output / "episodes").resolve()), "task": task},
        "task": {"task": task},
    }
    run_dir = output / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    period_s = min(5.0, minutes * 60 / 120)
    phase = np.random.default_rng(0)
    with Supervisor(GraphConfig(nodes=CELL, run_dir=run_dir, parameters=parameters)) as graph:
        graph.wait_active(START_S)
        os.environ.update(graph.environment.variables)
        with GraphClient(domain_id=graph.domain) as client:
            client.watch("task/status")
            witness = Witness(client, [node.name for node in CELL])
            begun_s = time.monotonic()
            run = Run(begun_s, begun_s + warm_up * 60, {}, witness)
            end_s, due_s, first = begun_s + minutes * 60, begun_s, 0
            results = _Scenes(client, graph, task)
            while time.monotonic() < end_s:
                if graph.failure:
                    raise RunFailed(graph.failure)
                if results.over():
                    results.begin([scene_seed("test", first + index) for index in range(ROUND)])
                    first += ROUND
                _sample(run.memory, graph)
                due_s += period_s
                time.sleep(max(0.0, due_s + phase.uniform(0.0, 0.9 * period_s) - time.monotonic()))
                if round((due_s - begun_s) / period_s) % 60 == 0:
                    console.print(f"{(due_s - begun_s) / 60:.1f} min, {results.count} scenes", highlight=False)
            witness.end()
            run.scenes, run.solved, run.attempts = results.count, results.solved, results.attempts
            run.deaths = [f"{event.node}: {event.detail}" for event in graph.events if event.kind == "died"]
    return run


class _Scenes:
    """Rounds of scenes that the task node works on."""

    def __init__(self, client: GraphClient, graph: Supervisor, task: str) -> None:
        self._client, self._graph, self._task = client, graph, task
        self._asked = 0
        self._under_way = False
        self.count = self.solved = self.attempts = 0

    def over(self) -> bool:
        """Whether no round is under way; the results of one that ended are taken over.

        Raises:
            RunFailed: it failed.
        """
        if not self._under_way:
            return True
        messages = self._client.messages("task/status")[self._asked :]
        last = messages[-1] if messages else {}
        if last.get("state") == "failed":
            raise RunFailed(f"{last['error']}; the logs are in {self._graph.run_dir / 'logs'}")
        if last.get("state") != "finished":
            return False
        results = last["results"]
        self.count += len(results)
        self.solved += sum(bool(result["solved"]) for result in results)
        self.attempts += sum(int(result["attempts"]) for result in results)
        self._under_way = False
        return True

    def begin(self, seeds: list[int]) -> None:
        """Start a round."""
        self._asked = len(self._client.messages("task/status"))
        self._client.set_parameters("task", {"task": self._task, "seeds": seeds})
        self._client.trigger("task/run")
        self._under_way = True


def _sample(memory: dict[str, Memory], graph: Supervisor) -> None:
    pids: dict[str, int | None] = {**graph.pids, "monitor": monitor_pid()}
    for name, pid in pids.items():
        if pid is None:
            continue
        try:
            value = private_mb(pid)
        except OSError:  # it died between the two looks; the supervisor tells
            continue
        kept = memory.setdefault(name, Memory())
        kept.times_s.append(time.monotonic())
        kept.values_mb.append(value)


def draw(run: Run, path: Path) -> None:
    """Memory of each process and latency of each decision over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = len(run.memory) + 1
    figure, axes = pyplot.subplots(rows, 1, figsize=(9, 1.6 * rows), sharex=True, constrained_layout=True)

    def minutes(times_s: Sequence[float]) -> NDArray[np.float64]:
        return (np.asarray(times_s) - run.begun_s) / 60

    times, values = zip(*run.witness.latencies, strict=True) if run.witness.latencies else ((), ())
    series = [(f"{name}, MB", m.times_s, m.values_mb, "-") for name, m in run.memory.items()]
    for axis, (label, x, y, style) in zip(axes, [*series, ("decision, ms", times, values, ".")], strict=True):
        axis.plot(minutes(x), y, style, linewidth=1, markersize=3)
        axis.axvline((run.warm_s - run.begun_s) / 60, color="0.7", linewidth=1)
        axis.set_ylabel(label)
    axes[-1].set_xlabel("minutes; the grey line ends the warm-up")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def figure(name: str, value: float, unit: str, reference: str, reference_value: float) -> None:
    """Print one figure."""
    ratio = round(value / reference_value, 4) if reference_value else None
    line = {"bench": "soak", "figure": name, "value": round(value, 4), "unit": unit}
    print(json.dumps({**line, "reference": reference, "reference_value": reference_value, "ratio": ratio}), flush=True)


def report(run: Run, *, judge_slopes: bool) -> list[str]:
    """Print the figures; what did not hold, in words."""
    failed = []
    slopes = len(run.memory) + 1

    def tell(what: str, samples: Series, unit: str) -> None:
        if len(samples[0]) < LEAST_SAMPLES:
            failed.extend([f"only {len(samples[0])} samples of {what}"] if judge_slopes else [])
            return
        found = slope(*samples, among=slopes)
        width = f"half width of its interval, {slopes} at 95 % together"
        figure(f"slope of {what}", found.rise, f"{unit}/min", width, round(found.half, 4))
        if judge_slopes and found.grows:
            failed.append(f"{what} grows by {found.rise:.3f} ± {found.half:.3f} {unit} a minute")

    for name, memory in run.memory.items():
        tell(f"private memory of {name}", run.warm(memory.times_s, memory.values_mb), "MB")
        figure(f"private memory of {name} at the end", memory.values_mb[-1], "MB", "largest", max(memory.values_mb))
    witness = run.witness
    for name, count in witness.missed.items():
        figure(f"longest silence of {name}", witness.longest_s[name], "s", "allowed", MISSED_S)
        if count:
            failed.append(f"{count} heartbeats of {name} missed")
    figure("heartbeats missed", sum(witness.missed.values()), "heartbeats", "allowed", 0)
    figure("deaths", len(run.deaths), "processes", "allowed", 0)
    failed += [f"died: {death}" for death in run.deaths]
    latencies = [value for _, value in witness.latencies]
    figure("decisions", len(latencies), "decisions", "scenes", run.scenes)
    if latencies:
        figure("latency of a decision, median", float(np.median(latencies)), "ms", "largest", round(max(latencies), 1))
    tell("latency of decisions", run.warm([time_s for time_s, _ in witness.latencies], latencies), "ms")
    figure("scenes solved", run.solved, "scenes", "scenes", run.scenes)
    figure("attempts", run.attempts, "attempts", "scenes", run.scenes)
    return failed


def main(
    minutes: float = typer.Option(45.0, min=0.1, help="How long it works, warm-up included."),
    warm_up: float | None = typer.Option(
        None, min=0.0, help="How long memory may grow at first, in minutes.", show_default="10, or a third if shorter"
    ),
    task: str = typer.Option("block-insertion", help="Task and shipped checkpoint."),
    output: Path = typer.Option(Path("runs/soak"), help="Where logs, samples, episodes and soak.png go."),
) -> None:
    """Have the cell work for a long time and tell what grows."""
    warm = min(10.0, minutes / 3) if warm_up is None else warm_up
    if warm >= minutes:
        raise typer.BadParameter(f"warm-up of {warm:g} minutes leaves nothing of {minutes:g}", param_hint="--warm-up")
    output.mkdir(parents=True, exist_ok=True)
    run = watch(minutes, warm, task, output)
    samples = {"memory": {name: asdict(memory) for name, memory in run.memory.items()}}
    (output / "samples.json").write_text(json.dumps({**samples, "latencies": run.witness.latencies}))
    draw(run, output / "soak.png")
    judged = minutes - warm >= LEAST_MINUTES
    failed = report(run, judge_slopes=judged)
    console.print(f"drawn in {output / 'soak.png'}", highlight=False)
    if not judged:
        console.print(f"slopes over {minutes - warm:g} minutes are not judged", highlight=False)
    for words in failed:
        console.print(words, style="red", highlight=False)
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)

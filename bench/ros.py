"""What the way through ROS costs: recorded frames through the unmodified graph, beside the same hops without it.

As ros2_benchmark does it: a player process publishes frames that lie in an episode store, paced; encoder, policy, arm
and recorder run as they are launched; a monitor reads the `trace` topic, on which every stage says when it handled
which frame by CLOCK_MONOTONIC. In blocks of seconds, in turn, the player feeds a bare twin instead: for every hop a
process with nothing but rclpy's subscription of the same type, size and quality of service, and beside them, in
processes of their own, the same encoding, deciding and compressing as load. A hop of the graph reaches from before its
sender converts to after its receiver did; a bare hop from `publish` to the callback.

`make bench-ros` measures 640x480 and 1280x720, one camera at 30 Hz and two at 15 Hz, 3,000 frames each, and searches
the highest rate at which features of at least 95 % of the frames come out; `make bench-ros SMALL=1` takes less than a
minute. Prints one JSON line a figure.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import typer
from diagnostic_msgs.msg import DiagnosticArray
from hops.bare import ROLES
from hops.frames import Setup, record
from rich.console import Console
from std_msgs.msg import String

from embodied_vision.calibration import write_cameras
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import RunFailed
from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import process_environment
from embodied_vision.launching.process import ManagedProcess
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from embodied_vision.nodes.conversions import to_json
from embodied_vision.nodes.trace import read_marks

SETUPS = (Setup(640, 480, 1), Setup(640, 480, 2), Setup(1280, 720, 1), Setup(1280, 720, 2))
FRAMES = 3000
FRAMES_A_SECOND = 30.0
"""Of all cameras together."""
BLOCK_S, BARE_S, PAUSE_S = 10.0, 2.0, 0.3
MOST_DROPPED = 0.05
SEARCH_HZ = 60.0
PREDICT_S = 0.5
GOAL = {"median": 1.5, "p95": 2.0}
NODES = ("encoder", "policy", "arm", "recorder")
Clocks = dict[str, dict[int, int]]
"""Stage → frame stamp → CLOCK_MONOTONIC in ns."""

console = Console(stderr=True)


def budgets_ms(setup: Setup) -> dict[str, float]:
    """What the stages between the hops may take, median, on a core each, with the shipped encoder and policy."""
    images = setup.width * setup.height / (640 * 480)
    return {
        "encoding": 40.0 * images,
        "scene and policy": 100.0 + 50.0 * images * setup.cameras,
        "IK, plan and guard": 150.0,
    }


@dataclass(frozen=True)
class Hop:
    """A way from one process to the next: what is measured, and its bare twin.

    Attributes:
        name: for figures.
        begin, end: stages between which it lies.
        conversion: begin and end of a conversion that its receiver does later, if any.
    """

    name: str
    begin: str
    end: str
    conversion: tuple[str, str] | None = None


HOPS = (
    Hop("color to the encoder", "player.color", "encoder.receive", ("encoder.begin", "encoder.converted")),
    Hop("features to the policy", "encoder.encoded", "policy.receive", ("policy.begin", "policy.converted")),
    Hop("decision to the arm", "policy.decided", "arm.receive"),
    Hop("frame to the recorder", "player.depth", "recorder.receive"),
)
STAGES = (
    ("encoding", "encoder.converted", "encoder.encoded"),
    ("scene and policy", "policy.converted", "policy.decided"),
    ("IK, plan and guard", "arm.receive", "arm.publish"),
)


def figure(setup: Setup, name: str, value: float, unit: str, reference: str, reference_value: float) -> None:
    """Print one figure."""
    ratio = round(value / reference_value, 3) if reference_value else None
    line = {"bench": "ros", "figure": f"{setup.name}: {name}", "value": round(value, 4), "unit": unit}
    print(
        json.dumps({**line, "reference": reference, "reference_value": round(reference_value, 4), "ratio": ratio}),
        flush=True,
    )


class Player:
    """The process that publishes recorded frames."""

    def __init__(self, store: Path, environment: Mapping[str, str], log: Path) -> None:
        self._log = log.open("wb")
        command = [sys.executable, "-m", "hops.player", str(store)]
        self._process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def wait(self, alive: Callable[[], None]) -> None:
        """Wait until it has found its readers, while all others live."""
        assert self._process.stdout is not None
        while not select.select([self._process.stdout], [], [], 0.5)[0]:
            alive()
        self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that it says.

        Raises:
            RunFailed: it ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RunFailed(f"the player ended: {Path(self._log.name).read_text()[-2000:]}")
        content: dict[str, Any] = json.loads(line)
        return content

    def play(self, to: str, rate: float, seconds: float) -> dict[str, list[list[int]]]:
        """Play, and return stamp and clocks of every frame by camera."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"to": to, "rate": rate, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        stamps: dict[str, list[list[int]]] = self.answer()["stamps"]
        return stamps

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@dataclass
class Monitor:
    """Reads the trace topic."""

    client: GraphClient
    clocks: Clocks = field(default_factory=dict)
    deciding: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    decisions: int = 0

    def __post_init__(self) -> None:
        self.client.node.create_subscription(DiagnosticArray, "trace", self._take, qos.TRACE)
        self._asker = threading.Thread(target=self._ask, daemon=True)
        self._asker.start()

    def _take(self, message: DiagnosticArray) -> None:
        for mark in read_marks(message):
            self.clocks.setdefault(mark.stage, {}).setdefault(mark.stamp_ns, mark.monotonic_ns)

    def _ask(self) -> None:
        """Ask the policy for a decision every few seconds while `deciding` is set; one that is refused is no fault."""
        while not self.ended.is_set():
            if self.deciding.wait(0.2):
                try:
                    self.client.trigger("policy/predict", 30.0)
                    self.decisions += 1
                except RunFailed as error:
                    console.print(f"no decision: {error}", highlight=False)
                self.ended.wait(PREDICT_S)

    def seen(self, stage: str, stamps: list[int]) -> int:
        """How many of these frames passed a stage."""
        marks = self.clocks.get(stage, {})
        return sum(stamp in marks for stamp in stamps)

    def close(self) -> None:
        """End the thread that asks."""
        self.ended.set()
        self._asker.join(35.0)


def cpu_s(pid: int) -> float:
    """Processor time that a process has taken."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Memory that a process has, without pages of files and without what it shares with others through /dev/shm."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


@dataclass
class Rig:
    """All processes of one setup."""

    setup: Setup
    player: Player
    monitor: Monitor
    nodes: dict[str, ManagedProcess]
    bare: dict[str, ManagedProcess]
    folder: Path

    def alive(self) -> None:
        """Raise `RunFailed` when a process has ended."""
        for process in (*self.nodes.values(), *self.bare.values()):
            if process.exit_code() is not None:
                raise RunFailed(f"{process.name} ended: {process.last_lines(20)}")

    def bare_clocks(self) -> Clocks:
        """End the bare processes and read what they noted."""
        found: Clocks = {}
        for role, process in self.bare.items():
            process.send(signal.SIGTERM)
            if not process.wait(20.0):
                raise RunFailed(f"the bare {role} does not end: {process.last_lines(20)}")
            for stage, marks in json.loads((self.folder / f"bare_{role}.json").read_text()).items():
                found[stage] = {stamp: clock for stamp, clock in marks}
        return found


@contextmanager
def running(setup: Setup, folder: Path) -> Iterator[Rig]:
    """Everything started, and ready to play."""
    recorded, calibration = folder / "recorded", folder / "cameras.yaml"
    write_cameras(record(setup, recorded), calibration)
    parameters: dict[str, dict[str, Any]] = {
        "encoder": {"cameras": setup.names, "moving_rate": 0.0},
        "policy": {"calibration": str(calibration), "timeout": 15.0},
        "arm": {"cameras": [""], "upstream": ["encoder", "policy", "recorder"]},  # frames pause while the twin has them
        "recorder": {"calibration": str(calibration), "store": str(folder / "store"), "min_free_mb": 0},
    }
    with ExitStack() as stack:
        lock = stack.enter_context(hold_free_domain())
        environment = process_environment(folder, lock.domain)
        # Only for this setup: the next would keep its profile as if the user gave it, and the file is gone by then.
        stack.enter_context(patch.dict(os.environ, environment.variables))
        variables = {**environment.variables, "PYTHONPATH": str(Path(__file__).parent)}
        client = stack.enter_context(GraphClient(domain_id=lock.domain))
        monitor = Monitor(client)
        stack.callback(monitor.close)

        def start(name: str, command: list[str]) -> ManagedProcess:
            process = ManagedProcess(name, [sys.executable, *command], variables, folder / f"{name}.log")
            stack.callback(process.wait, 10.0)
            stack.callback(process.send, signal.SIGTERM)
            return process

        nodes = {}
        for name in NODES:
            command = ["-m", f"embodied_vision.nodes.{name}", "--ros-args"]
            for key, value in parameters[name].items():
                command += ["-p", f"{key}:={json.dumps(value)}"]
            nodes[name] = start(name, command)
        start("joints", ["-m", "hops.joints", "panda_suction"])
        bare = {}
        for role in ROLES:
            noted = folder / f"bare_{role}.json"
            bare[role] = start(f"bare_{role}", ["-m", "hops.bare", role, str(noted), str(calibration), *setup.names])
        player = Player(recorded, variables, folder / "player.log")
        stack.callback(player.close)
        rig = Rig(setup, player, monitor, nodes, bare, folder)
        console.print(f"{setup.name}: starting", highlight=False)
        player.wait(rig.alive)
        client.wait("arm/status", lambda s: s["state"] == "idle", 60.0, rig.alive)
        client.find("policy/predict")
        yield rig


@dataclass
class Blocks:
    """What the player sent, and the processor time that it took, over all blocks of one kind."""

    clocks: Clocks = field(default_factory=lambda: {"player.color": {}, "player.depth": {}})
    stamps: list[int] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)

    def add(self, sent: Mapping[str, list[list[int]]]) -> None:
        """Note what was sent."""
        for frames in sent.values():
            for stamp, color_ns, depth_ns in frames:
                self.stamps.append(stamp)
                self.clocks["player.color"][stamp] = color_ns
                self.clocks["player.depth"][stamp] = depth_ns


def measure(rig: Rig, seconds: float, block_s: float, bare_s: float) -> tuple[Blocks, Blocks]:
    """Play to graph and twin in turn, until the graph has had so many seconds of frames."""
    rate = FRAMES_A_SECOND / rig.setup.cameras
    graph, bare = Blocks(), Blocks()
    for _ in range(max(1, round(seconds / block_s))):
        rig.alive()
        before = {name: cpu_s(process.pid) for name, process in rig.nodes.items()}
        rig.monitor.deciding.set()
        graph.add(rig.player.play("graph", rate, block_s))
        rig.monitor.deciding.clear()
        for name, process in rig.nodes.items():
            graph.cpu_s[name] = graph.cpu_s.get(name, 0.0) + cpu_s(process.pid) - before[name]
        time.sleep(PAUSE_S)  # what is under way arrives
        bare.add(rig.player.play("bare", rate, bare_s))
        time.sleep(PAUSE_S)
    return graph, bare


def differences_ms(clocks: Clocks, begin: str, end: str, stamps: set[int]) -> np.ndarray:
    """Time between two stages of each of these frames that passed both."""
    first, last = clocks.get(begin, {}), clocks.get(end, {})
    return np.array([(last[s] - first[s]) / 1e6 for s in first.keys() & last.keys() & stamps])


def report_hops(setup: Setup, graph: Clocks, bare: Clocks, played: tuple[set[int], set[int]]) -> None:
    """Print each hop beside its twin, and their sums.

    Raises:
        RunFailed: no frame went over a hop.
    """
    sums = {"median": [0.0, 0.0], "p95": [0.0, 0.0]}
    missing = []
    for hop in HOPS:
        ours = differences_ms(graph, hop.begin, hop.end, played[0])
        theirs = differences_ms(bare, hop.begin, hop.end, played[1])
        if not len(ours) or not len(theirs):
            missing.append(f"{hop.name}: {len(ours)} through the graph, {len(theirs)} through its twin")
            continue
        converting = differences_ms(graph, *hop.conversion, played[0]) if hop.conversion else np.zeros(1)
        for name, share in (("median", 50), ("p95", 95)):
            mine = float(np.percentile(ours, share))
            if len(converting):
                mine += float(np.percentile(converting, share))
            twin = float(np.percentile(theirs, share))
            figure(setup, f"{hop.name}, {name} of {len(ours)}", mine, "ms", f"bare hop, {name} of {len(theirs)}", twin)
            sums[name][0] += mine
            sums[name][1] += twin
        p99 = [float(np.percentile(values, 99)) for values in (ours, theirs)]
        figure(setup, f"{hop.name}, p99 of {len(ours)}", p99[0], "ms", f"bare hop, p99 of {len(theirs)}", p99[1])
    if missing:
        raise RunFailed(f"{setup.name}: no sum of the hops: {'; '.join(missing)}")
    for name, (mine, twin) in sums.items():
        figure(setup, f"sum of the hops, {name}", mine, "ms", f"sum of the bare hops; goal {GOAL[name]} times", twin)


def report_stages(setup: Setup, clocks: Clocks, stamps: set[int]) -> None:
    """Print what happens between the hops beside its budget."""
    budgets = budgets_ms(setup)
    for name, begin, end in STAGES:
        times = differences_ms(clocks, begin, end, stamps)
        if len(times):
            figure(setup, f"{name}, median of {len(times)}", float(np.median(times)), "ms", "budget", budgets[name])


def search(rig: Rig, trials: int, seconds: float) -> None:
    """Find and print the highest rate a camera at which fewer than 5 % of the frames end without features."""
    cameras = rig.setup.cameras
    fails, holds = SEARCH_HZ / cameras, 0.0
    rate = fails
    for trial in range(trials):
        sent = rig.player.play("graph", rate, seconds)
        time.sleep(2 * PAUSE_S)
        stamps = [frame[0] for frames in sent.values() for frame in frames]
        encoded = rig.monitor.seen("encoder.publish", stamps)
        dropped = 1 - encoded / len(stamps)
        console.print(f"{rig.setup.name}: {rate:.1f} Hz, {100 * dropped:.0f} % dropped", highlight=False)
        if dropped < MOST_DROPPED:
            holds = max(holds, rate)
        else:
            fails = min(fails, rate)
        if trial == 0 and holds == 0.0:
            rate = max(1.0, 0.9 * encoded / seconds / cameras)  # what came out is what it can do
        else:
            rate = (holds + fails) / 2 if holds else 0.7 * rate
        if holds >= fails:
            break
    figure(rig.setup, "highest rate with < 5 % drops", holds, "Hz", "played at most", SEARCH_HZ / cameras)


def run(setup: Setup, folder: Path, *, seconds: float, block_s: float, bare_s: float, trials: int) -> None:
    """Measure one setup and print its figures."""
    with running(setup, folder) as rig:
        for to in ("graph", "bare"):
            rig.player.play(to, FRAMES_A_SECOND / setup.cameras, min(2.0, block_s))  # warm up
        memory_mb = {name: resident_mb(process.pid) for name, process in rig.nodes.items()}
        search(rig, trials, min(2.5, block_s))
        events = rig.monitor.client.node.create_publisher(String, "episode/event", qos.EVENT)
        client = rig.monitor.client
        while events.get_subscription_count() < 1:
            time.sleep(0.05)
        events.publish(to_json({"event": "start", "task": "bench", "stamp_ns": time.time_ns()}))
        client.wait("recorder/status", lambda s: bool(s["episode"]), 30.0, rig.alive)
        graph, bare = measure(rig, seconds, block_s, bare_s)
        events.publish(to_json({"event": "end", "outcome": {"reward": 0.0}, "stamp_ns": time.time_ns()}))
        status = client.wait("recorder/status", lambda s: not s["unfinished"] and not s["episode"], 120.0, rig.alive)
        clocks: Clocks = {**rig.monitor.clocks, **graph.clocks}
        stamps = set(graph.stamps)
        report_stages(setup, clocks, stamps)
        for name, taken_s in graph.cpu_s.items():
            each_ms = 1e3 * taken_s / len(stamps)
            figure(setup, f"processor time of {name} a frame", each_ms, "ms", "period", 1e3 / FRAMES_A_SECOND)
            now_mb = resident_mb(rig.nodes[name].pid)
            figure(setup, f"memory of {name} at the end", now_mb, "MB", "after the first frames", memory_mb[name])
        store = EpisodeStore(folder / "store")
        logged = {stamp for name in setup.names for i in store.ids() for stamp in store.open(i).frames(name).stamps_ns}
        figure(setup, "frames lost by the recorder", len(stamps - logged), "frames", "played", len(stamps))
        figure(
            setup,
            "messages lost on the way to the recorder",
            status["messages_lost"],
            "messages",
            "played",
            len(stamps),
        )
        figure(setup, "decisions", rig.monitor.decisions, "decisions", "frames", len(stamps))
        report_hops(setup, clocks, {**rig.bare_clocks(), **bare.clocks}, (stamps, set(bare.stamps)))


def main(
    small: bool = typer.Option(False, help="One camera of 640x480 for a few seconds."),
    only: str = typer.Option("", help="Only the setups whose name contains this, such as 1280x720."),
    output: Path | None = typer.Option(None, help="Where logs go.", show_default="a temporary folder"),
) -> None:
    """Play frames through the graph and its bare twin, and print the figures."""
    chosen = SETUPS[:1] if small else [setup for setup in SETUPS if only in setup.name]
    extent: dict[str, Any] = {"seconds": FRAMES / FRAMES_A_SECOND, "block_s": BLOCK_S, "bare_s": BARE_S, "trials": 5}
    if small:
        extent = {"seconds": 4.0, "block_s": 2.0, "bare_s": 1.0, "trials": 1}
    for number, setup in enumerate(chosen):
        with tempfile.TemporaryDirectory(prefix="bench-ros-") as scratch:
            folder = Path(scratch) if output is None else output / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            run(setup, folder, **extent)


if __name__ == "__main__":
    typer.run(main)

"""Run the simulated cell on unseen scenes through ROS, replay an episode, and measure on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embodied_vision.demo.latency import latencies_ms
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import RunFailed
from embodied_vision.launching.graph import CELL, GraphConfig
from embodied_vision.launching.supervisor import Supervisor
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.paths import shipped

START_S = 60.0
SCENE_S = 90.0
"""Bound on one scene, its retries included."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo runs.

    Attributes:
        output: folder for report, summary, logs and episodes.
        task: name of the task.
        scenes: how many test scenes, from the first.
        policy: checkpoint folder.
    """

    output: Path
    task: str = "block-insertion"
    scenes: int = 5
    policy: Path | None = None


@dataclass(frozen=True, eq=False)
class DemoRun:
    """What came out of it.

    Attributes:
        summary: the figures of `summary.json`.
        store: the episodes of this run.
        checkpoint: the policy that acted.
    """

    summary: dict[str, Any]
    store: EpisodeStore
    checkpoint: Path


class _Witness:
    """Sees the small messages that go with each frame: its stamp and its traces."""

    def __init__(self, client: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import CameraInfo

        from embodied_vision.nodes import qos
        from embodied_vision.nodes.conversions import stamp_to_ns
        from embodied_vision.nodes.trace import read_marks

        self.stamps: list[int] = []
        self.traces: dict[int, dict[str, int]] = {}

        def mark(message: DiagnosticArray) -> None:
            for one in read_marks(message):
                self.traces.setdefault(one.stamp_ns, {}).setdefault(one.stage, one.monotonic_ns)

        client.node.create_subscription(
            CameraInfo, "camera/color/camera_info", lambda m: self.stamps.append(stamp_to_ns(m.header.stamp)), qos.LOG
        )
        client.node.create_subscription(DiagnosticArray, "trace", mark, qos.TRACE)


def _replay_on_topics(episode: Episode, store: Path, cell: Supervisor, client: Any) -> dict[str, Any]:
    """Put an episode back on topics under `replay/` and compare stamps and timing with the log."""
    from sensor_msgs.msg import CameraInfo

    from embodied_vision.nodes import qos
    from embodied_vision.nodes.conversions import stamp_to_ns

    heard: list[tuple[int, int]] = []
    client.node.create_subscription(
        CameraInfo,
        "replay/camera/color/camera_info",
        lambda m: heard.append((stamp_to_ns(m.header.stamp), time.monotonic_ns())),
        qos.LOG,
    )
    logged = episode.frames(next(iter(episode.cameras))).stamps_ns
    span_s = float(logged[-1] - logged[0]) / 1e9
    command = [sys.executable, "-m", "embodied_vision.cli.main", "replay", episode.id, "--store", str(store), "--topics"]
    log = cell.run_dir / "logs" / "replay.log"
    with log.open("w") as output:
        done = subprocess.run(
            command, env=dict(cell.environment.variables), stdout=output, stderr=output, timeout=span_s + 60, check=False
        )
    if done.returncode:
        raise RunFailed(f"replay of {episode.id} ended with exit code {done.returncode}; read {log}")
    stamps = np.array([stamp for stamp, _ in heard], np.int64)
    clocks = np.array([clock for _, clock in heard], np.int64)
    exact = len(stamps) == len(logged) and bool(np.array_equal(stamps, logged))
    timing = float(np.abs((clocks - clocks[0]) - (stamps - stamps[0])).max()) / 1e6 if len(stamps) else float("nan")
    return {"frames": len(stamps), "logged": len(logged), "stamps_exact": exact, "worst_timing_error_ms": round(timing, 1)}


def _logged_frames(store: EpisodeStore) -> tuple[int, int, int]:
    """Frames in the episodes of a store, first and last stamp."""
    stamps = [e.frames(name).stamps_ns for e in map(store.open, store.ids()) for name in e.cameras]
    filled = [s for s in stamps if len(s)]
    return sum(map(len, filled)), min(int(s[0]) for s in filled), max(int(s[-1]) for s in filled)


def _drive(
    settings: DemoSettings, seeds: list[int], cell: Supervisor, progress: Callable[[int, str], None]
) -> dict[str, Any]:
    """Run the scenes on an active graph and return what was measured live."""
    from embodied_vision.nodes.client import GraphClient

    store = EpisodeStore(cell.run_dir / "episodes")

    def alive() -> None:
        if cell.failure:
            raise RunFailed(cell.failure)
        status = (client.messages("task/status") or [{}])[-1]
        progress(int(status.get("scenes_done", 0)), str(status.get("state", "")))

    with GraphClient(domain_id=cell.domain) as client:
        client.watch("task/status", "cell/status", "recorder/status", "encoder/status")
        witness = _Witness(client)
        client.set_parameters("task", {"task": settings.task, "seeds": seeds})
        client.trigger("task/run")
        task = client.wait("task/status", lambda s: s["state"] == "done", START_S + SCENE_S * len(seeds), alive)
        recorder = client.wait("recorder/status", lambda s: not s["episode"], 30, alive)
        cell_status, encoder = client.messages("cell/status")[-1], client.messages("encoder/status")[-1]
        progress(len(seeds), "replaying on topics")
        replay = _replay_on_topics(store.open(store.ids()[0]), store.path, cell, client)
    return {
        "task": task,
        "cell": cell_status,
        "recorder": recorder,
        "encoder": encoder,
        "stamps": witness.stamps,
        "latency_ms": latencies_ms(witness.traces),
        "replay": replay,
    }

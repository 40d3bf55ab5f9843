"""Run the simulated cell on unseen scenes through ROS, replay an episode, and measure on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo

from embodied_vision.demo.latency import latencies_ms
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import RunFailed
from embodied_vision.launching.graph import CELL, GraphConfig
from embodied_vision.launching.supervisor import Supervisor
from embodied_vision.learning.replay import replay_decisions
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from embodied_vision.nodes.conversions import stamp_to_ns
from embodied_vision.nodes.trace import read_marks
from embodied_vision.policies.locate import locate
from embodied_vision.policies.policy import Policy

START_S = 120.0
JOIN_S = 20.0
TRACING = ("cell", "encoder", "policy", "arm", "recorder")
SCENE_S = 90.0
"""Bound on one scene, its retries included."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo runs.

    Attributes:
        output: folder for report, summary, logs and episodes.
        task: name of the task.
        scenes: how many test scenes, from the first.
        policy: checkpoint, by folder or shipped name.
    """

    output: Path
    task: str = "block-insertion"
    scenes: int = 5
    policy: str | Path = "block-insertion"


@dataclass(frozen=True, eq=False)
class DemoRun:
    """What came out of it.

    Attributes:
        summary: the figures of `summary.json`.
        episodes: the record of every scene, in its last attempt.
        policy, encoder: who acted.
    """

    summary: dict[str, Any]
    episodes: tuple[Episode, ...]
    policy: Policy
    encoder: Encoder


class _Witness:
    """Sees the small message that each stage sends for each frame."""

    def __init__(self, client: GraphClient) -> None:
        self.traces: dict[int, dict[str, int]] = {}
        self._node = client.node
        client.node.create_subscription(DiagnosticArray, "trace", self._take, qos.TRACE)

    def _take(self, message: DiagnosticArray) -> None:
        for mark in read_marks(message):
            self.traces.setdefault(mark.stamp_ns, {}).setdefault(mark.stage, mark.monotonic_ns)

    def wait_joined(self, alive: Callable[[], None]) -> None:
        """Wait until every node that traces is known and frames flow, so that no stage of the first decision is missed.

        Raises:
            RunFailed: it took longer than `JOIN_S`.
        """
        deadline = time.monotonic() + JOIN_S
        flowing = ("cell.publish", "encoder.publish", "recorder.receive")
        while self._node.count_publishers("trace") < len(TRACING) or not all(map(self.stamps, flowing)):
            if time.monotonic() > deadline:
                raise RunFailed(f"no traces of all of {', '.join(TRACING)} within {JOIN_S:.0f} s; is a node missing?")
            alive()
            time.sleep(0.05)

    def stamps(self, stage: str) -> set[int]:
        """Frames that passed a stage."""
        return {stamp for stamp, stages in list(self.traces.items()) if stage in stages}


def _replay_on_topics(episode: Episode, cell: Supervisor, client: GraphClient) -> dict[str, Any]:
    """Put an episode back on topics under `replay/` and compare stamps and timing with the log."""
    heard: list[tuple[int, int]] = []
    client.node.create_subscription(
        CameraInfo,
        "replay/camera/color/camera_info",
        lambda message: heard.append((stamp_to_ns(message.header.stamp), time.monotonic_ns())),
        qos.LOG,
    )
    logged = episode.frames(next(iter(episode.cameras))).stamps_ns
    span_s = float(logged[-1] - logged[0]) / 1e9
    store = episode.path.parents[1]
    command = [
        sys.executable,
        "-m",
        "embodied_vision.cli.main",
        "replay",
        episode.id,
        "--store",
        str(store),
        "--topics",
    ]
    log = cell.run_dir / "logs" / "replay.log"
    with log.open("w") as output:
        done = subprocess.run(
            command,
            env=dict(cell.environment.variables),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=span_s + 60,
            check=False,
        )
    if done.returncode:
        raise RunFailed(f"replay of {episode.id} ended with exit code {done.returncode}; read {log}")
    stamps, clocks = (np.array(column, np.int64) for column in zip(*heard, strict=True)) if heard else (logged[:0],) * 2
    late = (clocks - clocks[0]) - (stamps - stamps[0]) if heard else np.array([np.nan])
    return {
        "episode": episode.id,
        "frames": len(heard),
        "frames_logged": len(logged),
        "stamps_equal": bool(np.array_equal(stamps, logged)),
        "timing_error_p95_ms": round(float(np.percentile(np.abs(late), 95)) / 1e6, 1),
    }


def _replay_offline(episodes: tuple[Episode, ...], policy: Policy, encoder: Encoder) -> dict[str, int]:
    """Let the same policy decide again on every logged decision."""
    again = [comparison for episode in episodes for comparison in replay_decisions(episode, policy, encoder)]
    return {"decisions": len(again), "identical": sum(comparison.identical for comparison in again)}


def run_demo(settings: DemoSettings, progress: Callable[[int, str], None]) -> DemoRun:
    """Start the graph, run the scenes, replay, and measure.

    Args:
        progress: called with the number of scenes that are through and what is being done.

    Raises:
        RunFailed: the graph did not do its work; the message names the logs.
    """
    begun = time.monotonic()
    checkpoint = locate(settings.policy)
    encoder = load_encoder()
    policy = Policy.load(checkpoint, encoder)
    run_dir = settings.output / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    store = EpisodeStore(settings.output / "episodes")
    seeds = [scene_seed("test", index) for index in range(settings.scenes)]
    config = GraphConfig(
        nodes=CELL,
        run_dir=run_dir,
        parameters={
            "policy": {"checkpoint": str(checkpoint.resolve())},
            "recorder": {"store": str(store.path.resolve())},
            "task": {"task": settings.task, "seeds": seeds},
        },
    )
    with Supervisor(config) as cell:
        progress(0, "starting the nodes")
        cell.wait_active(START_S)
        os.environ.update(cell.environment.variables)
        with GraphClient(domain_id=cell.domain) as client:
            live = _drive(settings, cell, client, progress)
            episodes = tuple(store.open(result["episode"]) for result in live["results"])
            progress(settings.scenes, "replaying on topics")
            replay = _replay_on_topics(episodes[0], cell, client)
    progress(settings.scenes, "deciding again offline")
    summary = {
        "task": settings.task,
        "checkpoint": policy.checkpoint_id,
        "encoder": policy.encoder_id,
        "seeds": seeds,
        **live,
        "episodes": [episode.id for episode in episodes],
        "store": str(store.path),
        "replay_topics": replay,
        "replay_offline": _replay_offline(episodes, policy, encoder),
        "logs": str(run_dir),
        "seconds": round(time.monotonic() - begun, 1),
    }
    return DemoRun(summary, episodes, policy, encoder)


def _drive(
    settings: DemoSettings, cell: Supervisor, client: GraphClient, progress: Callable[[int, str], None]
) -> dict[str, Any]:
    """Run the scenes on an active graph and return what was measured live."""

    def alive() -> None:
        if cell.failure:
            raise RunFailed(cell.failure)
        status = (client.messages("task/status") or [{}])[-1]
        progress(int(status.get("through", 0)), str(status.get("phase", "")))

    client.watch("task/status", "cell/status", "recorder/status", "encoder/status")
    witness = _Witness(client)
    witness.wait_joined(alive)
    client.trigger("task/run")
    task = client.wait(
        "task/status", lambda s: s["state"] in ("finished", "failed"), START_S + SCENE_S * settings.scenes, alive
    )
    if task["state"] == "failed":
        raise RunFailed(f"{task['error']}; the logs are in {cell.run_dir / 'logs'}")
    recorder = client.wait("recorder/status", lambda s: not s["unfinished"], 30.0, alive)
    received, published = witness.stamps("recorder.receive"), witness.stamps("cell.publish")
    span = {stamp for stamp in published if min(received) <= stamp <= max(received)}
    encoder, status = client.messages("encoder/status")[-1], client.messages("cell/status")
    return {
        "scenes": len(task["results"]),
        "placed": task["solved"],
        "results": task["results"],
        "frames_published": len(span),
        "frames_received": len(span & received),
        "frames_logged": recorder["frames_logged"],
        "frames_encoded": len(span & witness.stamps("encoder.publish")),
        "frames_skipped_by_encoder": encoder["skipped"],
        "latency_ms": latencies_ms(witness.traces.copy()),  # more keep coming in from its thread
        "real_time_factor": round(float(np.median([s["real_time_factor"] for s in status])), 3),
    }

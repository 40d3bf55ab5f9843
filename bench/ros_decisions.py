"""The same scenes through ROS and directly: same decisions, same outcome, and what the way through ROS costs.

`make bench-ros-decisions` runs 20 test scenes of block insertion, with SMALL=1 two. Prints one JSON line a figure.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import typer

from embodied_vision.demo.run import DemoRun, DemoSettings, run_demo
from embodied_vision.encoders.region import encode_frame
from embodied_vision.geometry import yaw_of
from embodied_vision.learning.environments import make_env
from embodied_vision.types import PickPlace

SAME_M, SAME_DEG = 0.002, 2.0
"""Decisions are the same within half a map cell and this turn."""


def _apart(one: PickPlace, other: PickPlace) -> tuple[float, float]:
    """Largest distance in m and difference of the object's turn in degrees between two decisions."""
    distance = max(
        float(np.linalg.norm(one.pick[:3, 3] - other.pick[:3, 3])),
        float(np.linalg.norm(one.place[:3, 3] - other.place[:3, 3])),
    )
    turns = [yaw_of(action.place) - yaw_of(action.pick) for action in (one, other)]
    return distance, float(abs(np.degrees((turns[0] - turns[1] + np.pi) % (2 * np.pi) - np.pi)))


def _decide_directly(run: DemoRun, task: str) -> tuple[list[dict[str, float | bool]], float]:
    """For every logged first decision, the decision in the environment of that seed; and its median time in ms."""
    torch.set_num_threads(1)
    env = make_env(task, renderer="software")
    rows: list[dict[str, float | bool]] = []
    times = []
    for episode in run.episodes:
        seed = int(episode.attributes["seed"])
        env.reset(seed=seed)
        frames = env.unwrapped.frames()  # type: ignore[attr-defined]
        begun = time.perf_counter()
        features = [encode_frame(run.encoder, frame) for frame in frames]
        action = run.policy.decide(frames, features)
        times.append((time.perf_counter() - begun) * 1e3)
        logged = episode.decisions[0]
        distance, turn = _apart(action, logged.action)
        same_frame = bool(np.array_equal(frames[0].color, logged.frames[0].color))
        rows.append({"seed": seed, "distance_m": distance, "turn_deg": turn, "same_frame": same_frame})
    env.close()
    return rows, float(np.median(times))


def _figure(figure: str, value: float, unit: str, reference: str, reference_value: float) -> None:
    ratio = round(value / reference_value, 3) if reference_value else None
    line = {"bench": "ros_decisions", "figure": figure, "value": value, "unit": unit}
    print(json.dumps({**line, "reference": reference, "reference_value": reference_value, "ratio": ratio}), flush=True)


def main(
    scenes: int = typer.Option(20, min=1, help="Number of test scenes."),
    task: str = typer.Option("block-insertion", help="Task and shipped checkpoint."),
    output: Path | None = typer.Option(None, help="Where logs and episodes go.", show_default="a temporary folder"),
) -> None:
    """Run the scenes through ROS, decide directly on the same seeds, and compare."""
    with tempfile.TemporaryDirectory(prefix="bench-ros-") as scratch:
        run = run_demo(DemoSettings(output or Path(scratch), task, scenes, task), lambda done, phase: None)
        rows, direct_ms = _decide_directly(run, task)
    for row in rows:
        print(json.dumps(row))
    same = sum(float(r["distance_m"]) <= SAME_M and float(r["turn_deg"]) <= SAME_DEG for r in rows)
    summary = run.summary
    latency = summary["latency_ms"]
    _figure("same decisions", same, "scenes", "scenes", len(rows))
    _figure("bit-identical first frames", sum(bool(r["same_frame"]) for r in rows), "scenes", "scenes", len(rows))
    _figure("placed right", summary["placed"], "scenes", "scenes", summary["scenes"])
    _figure("frames received", summary["frames_received"], "frames", "frames published", summary["frames_published"])
    _figure("frame to trajectory, median", latency["median"], "ms", "encoder and policy called directly", direct_ms)
    _figure("frame to trajectory, p95", latency["p95"], "ms", "encoder and policy called directly", direct_ms)
    _figure("real-time factor", summary["real_time_factor"], "1", "real time", 1.0)


if __name__ == "__main__":
    typer.run(main)

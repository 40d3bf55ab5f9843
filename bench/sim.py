"""How fast the simulator is: pick-and-place decisions, closed-loop steps, and what a second worker brings.

`make bench-sim` measures each on one core, `make bench-sim SMALL=1` in the smallest form. One JSON line a figure.
A decision is motion, contact, settling and the observation, as `step` of the environment; resets are left out.
Reference: google-research/ravens takes 0.77 s a decision (0.7 to 0.84) on two such cores with its three views.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import gymnasium
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from embodied_vision.geometry import look_at, pose_to_vector
from embodied_vision.learning.environments import make_env
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.types import Camera
from embodied_vision_sim.camera import front_camera
from embodied_vision_sim.renderer import egl_available
from embodied_vision_sim.world import World

RAVENS_S = 0.77
TARGET_S, TARGET_HZ, TARGET_RATIO = 0.2, 60.0, 1.8
CLOSED_LOOP = "embodied_vision_sim:embodied_vision/GraspDiverseClosedLoop-v0"
SIZES = ((64, 64), (320, 240), (424, 240), (640, 480))
EYES = {"front": (1.0, 0.0, 0.85), "left": (0.55, 0.75, 0.75), "right": (0.55, -0.75, 0.75)}


def camera(name: str, width: int, height: int) -> Camera:
    """A camera that sees the table as broadly as the cell's, from one of three sides."""
    usual = front_camera()
    focal = usual.K[0, 0] * width / usual.width
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return Camera(name, width, height, K, look_at(EYES[name], (0.5, 0.0, 0.0)))


def _decisions(cameras: tuple[Camera, ...], renderer: str, count: int, first: int = 0) -> list[float]:
    """Wall seconds of so many decisions of the expert in training scenes, after two that warm up."""
    env = make_env("block-insertion", cameras=cameras, renderer=renderer)
    seconds = []
    for index in range(first, first + count + 2):
        env.reset(seed=scene_seed("train", index))
        decision = env.unwrapped.oracle()  # type: ignore[attr-defined]
        action = {"pick": pose_to_vector(decision.pick), "place": pose_to_vector(decision.place)}
        begun = time.perf_counter()
        env.step(action)
        seconds.append(time.perf_counter() - begun)
    env.close()
    return seconds[2:]


def _closed_loop_steps(renderer: str, steps: int) -> float:
    """Steps per second of random actions, resets left out."""
    env = gymnasium.make(CLOSED_LOOP, renderer=renderer)
    env.reset(seed=scene_seed("train", 0))
    env.action_space.seed(0)
    seconds, taken, over = 0.0, 0, False
    while taken < steps:
        if over:
            env.reset()
        action = env.action_space.sample()
        begun = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        seconds += time.perf_counter() - begun
        taken, over = taken + 1, terminated or truncated
    env.close()
    return taken / seconds


def _worker(core: int, ready: Any, count: int) -> None:
    os.sched_setaffinity(0, {core})
    _decisions((camera("front", 320, 240),), "software", 1)
    ready.wait()
    _decisions((camera("front", 320, 240),), "software", count, 100 * core)


def _workers_seconds(workers: int, count: int) -> float:
    """Wall seconds in which so many workers, each on a core, make `count` decisions each, resets included."""
    context = get_context("spawn")
    ready = context.Barrier(workers + 1)
    cores = sorted(os.sched_getaffinity(0))
    running = [
        context.Process(target=_worker, args=(cores[k % len(cores)], ready, count), daemon=True) for k in range(workers)
    ]
    for process in running:
        process.start()
    ready.wait()
    begun = time.perf_counter()
    for process in running:
        process.join()
    return time.perf_counter() - begun


def _picture_ms(renderer: str, width: int, height: int, count: int) -> float:
    """Median milliseconds of an RGB-D picture of a scene of block insertion, conversion included."""
    with World("block-insertion", cameras=(camera("front", width, height),), renderer=renderer) as world:
        world.reset(0)
        seconds = []
        for _ in range(count + 1):
            begun = time.perf_counter()
            world.render()
            seconds.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(seconds[1:]))


def _line(figure: str, value: float, unit: str, reference: str, reference_value: float, **more: Any) -> None:
    ratio = round(value / reference_value, 3)
    line = {"bench": "sim", "figure": figure, "value": round(value, 4), "unit": unit, **more}
    print(
        json.dumps(
            {**line, "reference": reference, "reference_value": reference_value, "ratio": ratio}, ensure_ascii=False
        ),
        flush=True,
    )


def _on_one_core(measure: Callable[[], float | list[float]]) -> Any:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        return measure()
    finally:
        os.sched_setaffinity(0, cores)


def main(
    decisions: int = typer.Option(40, min=1, help="Decisions to measure for each choice of cameras."),
    steps: int = typer.Option(600, min=1, help="Closed-loop steps to measure."),
) -> None:
    """Measure decisions with one and three cameras, closed-loop steps, and two workers against one."""
    views = {
        "one 320×240 view": (camera("front", 320, 240),),
        "three 640×480 views": tuple(camera(name, 640, 480) for name in EYES),
    }
    renderers = ["software", "egl"] if egl_available() else ["software"]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("bench-sim", total=len(renderers) * (len(views) + 1) + 1)
        for renderer in renderers:
            for name, cameras in views.items():
                seconds = _on_one_core(lambda c=cameras, r=renderer: _decisions(c, r, decisions))
                middle, p95 = np.percentile(seconds, [50, 95])
                spread = {"p95": round(float(p95), 4), "renderer": renderer}
                _line(f"decision, {name}", float(middle), "s", "ravens, three 640×480 views", RAVENS_S, **spread)
                if name.startswith("one"):
                    _line(f"decision, {name}", float(middle), "s", "target", TARGET_S, **spread)
                progress.advance(bar)
            for width, height in SIZES:
                ms = _on_one_core(lambda w=width, h=height, r=renderer: _picture_ms(r, w, h, decisions))
                _line(f"picture, {width}×{height}", ms, "ms", "one frame at 30 Hz", 1e3 / 30, renderer=renderer)
            rate = _on_one_core(lambda r=renderer: _closed_loop_steps(r, steps))
            _line("closed-loop steps, 64×64 view", rate, "1/s", "target", TARGET_HZ, renderer=renderer)
            progress.advance(bar)
        one, two = (_workers_seconds(workers, decisions) for workers in (1, 2))
        _line("two workers over one", 2 * one / two, "1", "target", TARGET_RATIO, cores=len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    typer.run(main)

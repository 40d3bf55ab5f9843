"""How fast the policy head decides, and how close that is to what the machine can do.

`make bench-policy` measures, `make bench-policy SMALL=1` in the smallest form. One JSON line a figure. A decision
starts at the fused map with its encoder features and ends at the action; weights are random, which costs the same. The
reference of the time is the target of 60 ms on two cores for 160 × 80 cells, that of the rate a large matrix product.
"""

from __future__ import annotations

import json
import time

import numpy as np
import torch
import typer
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from embodied_vision.cores import use_cores
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from embodied_vision.policies.policy import Policy
from embodied_vision.types import Features, Scene, Workspace

TARGET_MS = 60.0
FEATURES = 64
MAPS = {
    "160 x 80 cells": Workspace(x=(0.34, 0.66), y=(-0.32, 0.32)),
    "256 x 128 cells": Workspace(),
}
BLOCK_CELLS, BLOCKS = 10, 8


class Eyes:
    """Stands for the encoder that the features come from."""

    encoder_id = "bench"
    artefact_id = "bench"
    dimension = FEATURES

    def encode(self, color: np.ndarray, stamp_ns: int = 0) -> Features:
        """Not asked for: maps come with their features."""
        raise NotImplementedError


def scene(workspace: Workspace, rng: np.random.Generator) -> Scene:
    """A table with blocks of random colors, fully seen."""
    rows, columns = workspace.shape
    color = np.full((rows, columns, 3), 150, np.uint8)
    height = np.zeros((rows, columns), np.float32)
    for _ in range(BLOCKS):
        i, j = rng.integers(0, [rows - BLOCK_CELLS, columns - BLOCK_CELLS])
        color[i : i + BLOCK_CELLS, j : j + BLOCK_CELLS] = rng.integers(0, 255, 3)
        height[i : i + BLOCK_CELLS, j : j + BLOCK_CELLS] = 0.04
    features = rng.normal(size=(rows, columns, FEATURES)).astype(np.float32)
    return Scene(color, height, features, np.ones((rows, columns), bool), workspace, 0)


def policy(workspace: Workspace) -> Policy:
    """A head with random weights."""
    config = NetworkConfig(features=FEATURES)
    weights = PolicyNetwork.seeded(config, 0).state_dict()
    checkpoint = Checkpoint("bench", "bench", workspace, config, Normalisation.identity(FEATURES), weights=weights)
    return Policy(checkpoint, Eyes())


def matrix_rate() -> float:
    """Floating-point operations a second of a large single-precision matrix product, the best of five."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - begun)
    return float(2 * 1024**3 / min(seconds))


def main(
    decisions: int = typer.Option(40, min=1, help="Decisions that are timed, after two that warm up."),
    threads: int = typer.Option(2, min=1, help="Threads of an operation."),
) -> None:
    """Time decisions on two sizes of map and print one JSON line a figure."""
    use_cores(threads)
    console, rng = Console(stderr=True), np.random.default_rng(0)
    peak = matrix_rate()
    for name, workspace in MAPS.items():
        head, scenes = policy(workspace), [scene(workspace, rng) for _ in range(decisions + 2)]
        with FlopCounterMode(display=False) as counter:
            head.explain_scene(scenes[0])
        head.explain_scene(scenes[1])
        seconds = []
        for one in scenes[2:]:
            begun = time.perf_counter()
            head.explain_scene(one)
            seconds.append(time.perf_counter() - begun)
        median, p95 = (float(np.percentile(seconds, q)) for q in (50, 95))
        rate = counter.get_total_flops() / median
        console.print(
            f"{name}: median {1e3 * median:.1f} ms, p95 {1e3 * p95:.1f} ms, {counter.get_total_flops() / 1e9:.2f} GFLOP"
        )
        _print(f"decision on {name}, median", 1e3 * median, "ms", "target", TARGET_MS)
        _print(f"decision on {name}, p95", 1e3 * p95, "ms", "target", TARGET_MS)
        _print(f"rate of a decision on {name}", rate / 1e9, "GFLOP/s", "matrix product", peak / 1e9)


def _print(figure: str, value: float, unit: str, reference: str, reference_value: float) -> None:
    line = {"bench": "policy", "figure": figure, "value": round(value, 2), "unit": unit}
    line |= {"reference": reference, "reference_value": round(reference_value, 2)}
    print(json.dumps({**line, "ratio": round(value / reference_value, 3)}), flush=True)


if __name__ == "__main__":
    typer.run(main)

"""Every bench runs in its smallest form and prints figures that a script can read."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"bench", "figure", "value", "unit", "reference", "reference_value", "ratio"}
SMALLEST = {
    "encoder": ["--rounds", "1", "--sizes", "1", "--blocks", "1", "--rows", "520"],
    "episodes": [
        *("--episodes", "1", "--steps", "18", "--seconds", "0.1"),
        *("--images", "1", "--video-frames", "2"),
    ],
    "catalogue": ["--episodes", "20"],
    "grasps": ["--scenes", "2"],
    "grasp_ceiling": ["--scenes", "1"],
    "guard": ["--commands", "400"],
    "reading": ["--episodes", "1", "--steps", "20", "--seconds", "0.1"],
    "learning_beside": ["--decisions", "2", "--block", "1", "--demonstrations", "2"],
    "lifelong_cell": [
        "--direct",
        *("--episodes", "3", "--change-at", "1", "--recovery", "1", "--demonstrations", "2", "--trials", "2"),
        *("--output", str(ROOT / ".tmp" / "lifelong_cell"), "--results", str(ROOT / ".tmp" / "lifelong_cell.jsonl")),
        *("--picture", str(ROOT / ".tmp" / "lifelong_cell.png"), "--workers", "1"),
    ],
    "ros": ["--small"],
    "ros_decisions": ["--scenes", "1"],
    "poisoned": ["--small"],
    "policy": ["--decisions", "2"],
    "sim": ["--decisions", "1", "--steps", "10"],
    "recorder": ["--minutes", "0.1", "--episode-seconds", "3"],
    "real_arm": ["--tasks", "1"],
    "soak": ["--minutes", "0.2", "--output", str(ROOT / ".tmp" / "soak")],
    "resets": [
        "--resets",
        "12",
        "--env",
        "embodied_vision/BlockInsertion-v0",
        "--env",
        "embodied_vision/GraspDiverse-v0",
    ],
    "oracles": ["--scenes", "1", "--json", "--workers", "2", "--task", "block-insertion", "--task", "packing-boxes"],
}


ALONE = {"learning_beside", "ros", "ros_decisions", "recorder", "real_arm", "soak"}
"""These start nodes and want the machine for themselves; the others run beside other tests."""


@pytest.mark.parametrize(
    "bench",
    [
        pytest.param(name, marks=pytest.mark.system) if name in ALONE else name
        for name in sorted(path.stem for path in (ROOT / "bench").glob("*.py"))
    ],
)
def test_a_bench_prints_its_figures(bench: str) -> None:
    run = subprocess.run(
        [sys.executable, f"bench/{bench}.py", *SMALLEST[bench]], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    figures = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"bench"')]
    assert figures
    for figure in figures:
        assert figure.keys() >= FIELDS
        assert figure["bench"] == bench
        assert math.isfinite(figure["value"])

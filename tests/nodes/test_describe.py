"""What is written down about parameters, topics and services is what the nodes declare."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")
pytest.importorskip("pybullet", reason="the simulated cell is not installed (extra `sim`)")

from embodied_vision.nodes.describe import faults_of_table

ROOT = Path(__file__).resolve().parents[2]
SUBSCRIBE = ("subscribe", "subscribe_sensor", "create_subscription")


def test_the_page_and_the_checked_names_are_those_of_the_nodes() -> None:
    command = [sys.executable, "-m", "embodied_vision.nodes.describe", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120.0, check=False)
    assert done.returncode == 0, done.stderr


def test_every_topic_that_is_subscribed_to_is_on_the_page() -> None:
    """Subscriptions are made when a node becomes active, so that their names are read in the code."""
    files = [*(ROOT / "embodied_vision" / "nodes").glob("*.py"), *(ROOT / "sim").glob("*node.py")]
    heard = {name for file in files for name in subscriptions(file)}
    assert {"joint_states", "recorder/status", "driver/setpoints"} <= heard, "the names are found"
    page = (ROOT / "docs" / "ros.md").read_text(encoding="utf-8")
    assert sorted(name for name in heard if f"`{name}`" not in page) == []


def subscriptions(file: Path) -> list[str]:
    """Names of topics that stand in calls which subscribe."""
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    made = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in SUBSCRIBE and len(c.args) > 1]
    return [c.args[1].value for c in made if isinstance(c.args[1], ast.Constant) and isinstance(c.args[1].value, str)]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("| `eye` | | `seen`, `CAMERA/health` | `~/look` |", None),
        ("| `eye` | | `seen` | `~/look` |", "lacks `camera/health`"),
        ("| `eye` | | `seen`, `CAMERA/health` | `~/look`, `~/blink` |", "tells of `~/blink`"),
        ("| `ear` | | |", "lacks `seen`"),
    ],
)
def test_a_wrong_table_is_told(row: str, fault: str | None) -> None:
    faults = faults_of_table(row, {"eye": ["~/look", "seen", "camera/health"]})
    assert any(fault in each for each in faults) if fault is not None else faults == []

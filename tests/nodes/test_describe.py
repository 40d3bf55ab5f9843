"""What is written down about parameters is what the nodes declare."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")
pytest.importorskip("pybullet", reason="the simulated cell is not installed (extra `sim`)")


def test_the_page_and_the_checked_names_are_those_of_the_nodes() -> None:
    command = [sys.executable, "-m", "embodied_vision.nodes.describe", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120.0, check=False)
    assert done.returncode == 0, done.stderr

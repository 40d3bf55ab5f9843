"""`calibrate collect` beside a running driver: pictures and poses of the rests, and what it says without one."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from calibrating.synthetic import BOARD, board_poses, picture
from sensor_msgs.msg import Image, JointState

from embodied_vision.control.robot import RobotModel
from embodied_vision.launching.process import ManagedProcess
from embodied_vision.locks import exclusive
from embodied_vision.nodes.conversions import color_to_image, joint_state_message
from tests.nodes.conftest import Graph, until

pytestmark = [pytest.mark.system, pytest.mark.together]
MODEL = RobotModel.load("panda_suction")


def _collect(graph: Graph, folder: Path, *more: str) -> ManagedProcess:
    command = [sys.executable, "-m", "embodied_vision.cli.main", "calibrate", "collect", str(folder), *more]
    process = ManagedProcess("collect", command, graph.variables, graph.run_dir / "collect.log")
    graph.processes.append(process)
    return process


def test_rests_are_collected(graph: Graph, tmp_path: Path) -> None:
    process = _collect(graph, tmp_path / "pictures", "--count", "2", "--camera", "front")
    colors = graph.publisher(Image, "front/color/image_raw")
    joints = graph.publisher(JointState, "joint_states")
    seen = [picture(T) for T in board_poses(2, np.random.default_rng(0))]
    start_s = time.monotonic()
    number = 0

    def drive() -> bool:
        """Rest for 1.5 s, move for 1 s, rest."""
        nonlocal number
        number += 1
        share = float(np.clip(time.monotonic() - start_s - 1.5, 0.0, 1.0))
        q = MODEL.home + share * np.array([0.3, 0.1, 0.0, 0.0, 0.2, 0.0, 0.0])
        now_ns = time.time_ns()
        joints.publish(joint_state_message(MODEL.joint_names, q, np.zeros(7), now_ns))
        if number % 5 == 0:
            colors.publish(color_to_image(seen[int(share > 0.5)], now_ns, "front_optical_frame"))
        time.sleep(0.01)
        return process.exit_code() is not None

    until(drive, what="two pictures")
    assert process.exit_code() == 0, process.last_lines(30)
    with open(tmp_path / "pictures" / "poses.csv") as file:
        header, first, second = csv.reader(file)
    assert header == ["image", *MODEL.joint_names]
    assert np.array(first[1:], float) == pytest.approx(MODEL.home, abs=1e-6)
    assert np.array(second[1:], float) - MODEL.home == pytest.approx([0.3, 0.1, 0, 0, 0.2, 0, 0], abs=1e-6)
    assert len(BOARD.detect(seen[0])) > 6


def test_a_second_one_does_not_write_into_the_same_folder(graph: Graph, tmp_path: Path) -> None:
    with exclusive(tmp_path / "pictures" / ".collecting", "the first one"):
        process = _collect(graph, tmp_path / "pictures")
        until(lambda: process.exit_code() is not None, what="the end")
    assert process.exit_code() == 1
    assert "somebody else collects" in " ".join(process.last_lines(30).split())


def test_without_a_driver_it_says_what_is_missing(graph: Graph, tmp_path: Path) -> None:
    process = _collect(graph, tmp_path / "pictures", "--timeout", "1")
    until(lambda: process.exit_code() is not None, what="the end")
    assert process.exit_code() == 1
    assert "no pictures and no joint states within 1 s" in " ".join(process.last_lines(30).split())

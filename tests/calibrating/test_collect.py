"""Pictures are taken at rest, once a place, and what a run leaves can be used and gone on with at any moment."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibrating.synthetic import BOARD, LENS, board_poses, picture, pose
from embodied_vision.calibrating.collect import Collector
from embodied_vision.calibrating.poses import read_poses
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.types import FloatArray

MS = 1_000_000
SEEN = [picture(T, LENS) for T in board_poses(3, np.random.default_rng(0))]


class Arm:
    """A toy arm."""

    joint_names = ("a", "b")

    def forward(self, q: FloatArray) -> FloatArray:
        return pose((float(q[0]), float(q[1]), 0.0), (0.0, 0.0, 0.0))


class Run:
    """A collector and a clock."""

    def __init__(self, folder: Path) -> None:
        self.collector = Collector(folder, BOARD, Arm())
        self.now_ms = 1000
        self.said: list[str] = []

    def rest(self, q: tuple[float, float], color: np.ndarray, ms: int = 1000) -> None:
        self.go(q, q, color, ms)

    def go(self, start: tuple[float, float], end: tuple[float, float], color: np.ndarray, ms: int) -> None:
        for step in range(0, ms, 20):
            share = step / ms
            q = (1 - share) * np.array(start) + share * np.array(end)
            self.collector.add_joints((self.now_ms + step) * MS, q)
            if step % 60 == 0:
                self.collector.add_picture((self.now_ms + step) * MS, color)
            if step % 100 == 0 and (said := self.collector.look()):
                self.said.append(said)
        self.now_ms += ms


def test_one_picture_a_rest(tmp_path: Path) -> None:
    run = Run(tmp_path / "new")
    run.rest((0.0, 0.0), SEEN[0])
    run.go((0.0, 0.0), (0.5, 0.2), SEEN[1], 800)
    run.rest((0.5, 0.2), SEEN[1], 2500)
    assert [said.split(":")[0] for said in run.said] == ["000.png", "001.png"]
    poses = read_poses(tmp_path / "new" / "poses.csv", Arm)
    assert poses["001.png"] == pytest.approx(Arm().forward(np.array([0.5, 0.2])), abs=1e-8)
    with Image.open(tmp_path / "new" / "001.png") as taken:
        assert (np.asarray(taken) == SEEN[1]).all(), "the picture of that rest, without loss"
    assert 0.05 < run.collector.coverage < 1.0


def test_motion_and_silence_give_no_picture(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.go((0.0, 0.0), (1.0, 1.0), SEEN[0], 3000)
    assert run.said == []
    run.collector.add_picture(run.now_ms * MS, SEEN[0])
    assert run.collector.look() is None, "nobody knows yet whether the arm will stay"
    assert Run(tmp_path / "other").collector.look() is None


def test_a_rest_without_the_board_is_said_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.rest((0.0, 0.0), np.full_like(SEEN[0], 90), 2000)
    assert len(run.said) == 1
    assert "no picture: it is nearly uniform" in run.said[0]
    assert run.collector.count == 0
    assert not (tmp_path / "poses.csv").exists()


def test_a_later_run_goes_on(tmp_path: Path) -> None:
    Run(tmp_path).rest((0.0, 0.0), SEEN[0])
    run = Run(tmp_path)
    assert run.collector.count == 1
    run.rest((0.4, 0.0), SEEN[1])
    run.rest((0.0, 0.4), SEEN[2])
    assert sorted(read_poses(tmp_path / "poses.csv", Arm)) == ["000.png", "001.png", "002.png"]
    assert run.collector.diversity_deg > 5.0


def test_a_folder_of_another_robot_is_refused(tmp_path: Path) -> None:
    (tmp_path / "poses.csv").write_text("image,x,y\n")
    with pytest.raises(BadInput, match="give another folder"):
        Collector(tmp_path, BOARD, Arm())
    (tmp_path / "poses.csv").write_text("image,a,b\n000.png,0.1")
    with pytest.raises(BadInput, match="cut short"):
        Collector(tmp_path, BOARD, Arm())


def test_a_full_disk_ends_the_run_and_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    run.rest((0.0, 0.0), SEEN[0])

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match=r"does not take picture 001\.png"):
        run.rest((0.5, 0.0), SEEN[1])
    assert list(read_poses(tmp_path / "poses.csv", Arm)) == ["000.png"]


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot be made"):
        Collector(tmp_path / "file" / "folder", BOARD, Arm())

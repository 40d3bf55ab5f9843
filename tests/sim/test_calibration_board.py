"""Cameras of the simulated cell are found from pictures alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embodied_vision.calibrating.board import Board
from embodied_vision.calibrating.estimate import calibrate
from embodied_vision.calibrating.hand_eye import Mount
from embodied_vision.calibrating.solve import difference
from embodied_vision.calibrating.views import Shot, find_board
from embodied_vision.calibration import read_cameras
from embodied_vision.cli.calibrate import app
from embodied_vision.control.robot import RobotModel
from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.geometry import project
from embodied_vision.types import RGBD
from embodied_vision_sim.calibration_board import board_pose, camera, take_pictures, true_pose


def test_corners_are_drawn_where_the_camera_sees_them() -> None:
    model, board = RobotModel.load(), Board()
    errors = []
    for shot in take_pictures(model, board, "wrist", 3, seed=2, noise=0.0):
        corners = board.detect(shot.color)
        T = board_pose(board, "wrist")
        points = board.points[corners.ids] @ T[:3, :3].T + T[:3, 3]
        seen = project(points, camera().K, model.forward(shot.q) @ true_pose("wrist"))[0]
        errors.append(corners.pixels - seen)
    assert np.abs(np.concatenate(errors).mean(axis=0)).max() < 0.08, "no quarter of a pixel anywhere"


@pytest.mark.parametrize("mount", ["cell", "wrist"])
def test_the_camera_is_found_where_it_is(mount: Mount) -> None:
    model, board = RobotModel.load(), Board()
    taken = take_pictures(model, board, mount, 10, seed=1)
    shots = [Shot(str(number), shot.color, model.forward(shot.q)) for number, shot in enumerate(taken)]
    result = calibrate(board, find_board(board, shots), mount)
    mm, deg = difference(result.X, true_pose(mount))
    # About 0.15 px noise in each of 200 corners; ten views with a lens of their own leave some tenths of a millimetre.
    assert mm < 1.5
    assert deg < 0.15
    assert np.abs(result.lens.K - camera().K).max() < 2.5
    assert result.noise.corner_px < 0.25
    assert result.noise.arm_m < 3e-4
    assert not result.lens.distortion.any()


def test_a_camera_is_found_in_a_logged_episode(tmp_path: Path) -> None:
    model, seen = RobotModel.load(), camera()
    store = EpisodeStore(tmp_path / "episodes")
    taken = list(take_pictures(model, Board(), "cell", 9, seed=3))
    attributes = {"joint_names": list(model.joint_names)}
    with EpisodeWriter(store, task="manual", robot=model.name, cameras=[seen], attributes=attributes) as writer:
        now_ns = 10**18
        for before, shot in pairwise([taken[0], *taken]):
            for share in [*np.linspace(0.0, 1.0, 20), *[1.0] * 50]:  # 0.4 s on the way, 1 s of rest; 50 a second
                q = before.q + share * (shot.q - before.q)
                writer.append("joint_state", now_ns, np.concatenate([q, np.zeros(7)]))
                now_ns += 20_000_000
            depth = np.zeros((seen.height, seen.width), np.float32)
            writer.append_frame(RGBD(shot.color, depth, seen, now_ns - 500_000_000))
        episode = writer.close({})
    output = tmp_path / "cameras.yaml"
    arguments = ["hand-eye", "--store", store.path, "--episode", episode, "--mount", "cell", "--output", output]
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "from 9 of 9 pictures" in ran.stdout
    (found,) = read_cameras(output)
    mm, deg = difference(np.asarray(found.T_base_camera), true_pose("cell"))
    assert mm < 1.5
    assert deg < 0.15

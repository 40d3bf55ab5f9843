"""Closed methods: exact on exact data, alike on noisy data, and no answer where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from calibrating.synthetic import BOARD_POSE, CAMERA, board_poses, pose, tip_pose
from embodied_vision.calibrating.hand_eye import METHODS, Mount, Poses, arm_poses
from embodied_vision.calibrating.solve import difference, turn_diversity_deg


def _motions(mount: Mount, noise: float = 0.0, count: int = 15) -> tuple[Poses, Poses]:
    rng = np.random.default_rng(3)
    B = board_poses(count, rng)
    A = arm_poses(np.stack([tip_pose(mount, T) for T in B]), mount)
    shaken = [T @ pose(tuple(rng.normal(size=3) * noise), tuple(rng.normal(size=3) * noise)) for T in B]
    return A, np.stack(shaken)


@pytest.mark.parametrize("mount", ["cell", "wrist"])
@pytest.mark.parametrize("method", list(METHODS))
def test_exact_data_give_the_exact_camera(method: str, mount: Mount) -> None:
    A, B = _motions(mount)
    X = METHODS[method](A, B)
    assert difference(X, CAMERA[mount]) == pytest.approx((0.0, 0.0), abs=1e-5)
    assert np.abs(A @ X @ B - BOARD_POSE[mount]).max() < 1e-8


@pytest.mark.parametrize("method", list(METHODS))
def test_noise_of_a_millimetre_stays_one(method: str) -> None:
    A, B = _motions("cell", noise=1e-3, count=25)
    mm, deg = difference(METHODS[method](A, B), CAMERA["cell"])
    assert mm < 3.0
    assert deg < 0.3


@pytest.mark.parametrize(
    ("method", "position"),
    [
        ("park_martin", (0.9041227003474592, 0.098107686294968, 0.7945907230696838)),
        ("daniilidis", (0.9024948989136901, 0.09789365654488896, 0.7942390111992498)),
    ],
)
def test_methods_are_those_of_opencv_4(method: str, position: tuple[float, float, float]) -> None:
    # Made by cv2.calibrateHandEye of OpenCV 4.12 from the same numbers; OpenCV 5 does not offer it to Python.
    assert METHODS[method](*_stored())[:3, 3] == pytest.approx(position, abs=1e-9)


def _stored() -> tuple[Poses, Poses]:
    X, Z = pose((0.3, -2.0, 0.5), (0.9, 0.1, 0.8)), pose((0.1, 3.0, 0.2), (0.05, -0.02, 0.1))
    turns = [(0.1, 0.2, 0.3), (-0.4, 0.1, 0.2), (0.3, -0.5, 0.1), (0.2, 0.3, -0.6), (-0.1, -0.3, 0.4)]
    places = [(0.1, 0.0, 0.2), (0.0, 0.2, -0.1), (-0.2, 0.1, 0.0), (0.2, -0.1, 0.1), (0.0, 0.0, 0.3)]
    errors = [(1, 0, 2), (-1, 2, 0), (0, -2, 1), (2, 1, -1), (-2, 0, 1)]
    A = np.stack([pose(turn, place) for turn, place in zip(turns, places, strict=True)])
    shaken = [pose(tuple(1e-3 * np.array(e)), tuple(1e-3 * np.array(e[::-1]))) for e in errors]
    B = np.stack([np.linalg.inv(a @ X) @ Z @ s for a, s in zip(A, shaken, strict=True)])
    return A, B


def test_turns_about_one_axis_leave_the_camera_open() -> None:
    A = np.stack([pose((0.0, 0.0, 0.3 * number), (0.1 * number, 0.0, 0.0)) for number in range(8)])
    assert turn_diversity_deg(A) < 1e-6
    B = np.linalg.inv(A @ CAMERA["cell"]) @ BOARD_POSE["cell"]
    for method in ("park_martin", "shah"):
        with pytest.raises(np.linalg.LinAlgError):
            METHODS[method](A, B)


def test_diversity_is_the_second_axis() -> None:
    about_two = [pose((0.3 * (n % 2), 0.2 * (n // 2 % 2), 0.0), (0.0, 0.0, 0.0)) for n in range(8)]
    assert 3.0 < turn_diversity_deg(np.stack(about_two)) < 12.0
    assert turn_diversity_deg(np.stack(about_two[:2])) == 0.0

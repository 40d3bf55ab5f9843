"""Sampling a trajectory gives the motion that it was sampled from."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import BadInput


def quintic(times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    polynomial = np.polynomial.Polynomial([0.3, -1.0, 2.0, 0.5, -0.7, 0.2])
    return tuple(polynomial.deriv(k)(times)[:, None] if k else polynomial(times)[:, None] for k in range(3))  # type: ignore[return-value]


def test_quintics_are_reproduced_exactly_between_samples() -> None:
    coarse = np.array([0.0, 0.4, 0.5, 1.3])
    trajectory = Trajectory(coarse, *quintic(coarse))
    fine = np.linspace(0.0, 1.3, 57)
    for got, expected in zip(trajectory.sample_many(fine), quintic(fine), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-9)


def test_before_and_after_it_rests_at_its_ends() -> None:
    times = np.array([0.0, 1.0])
    trajectory = Trajectory(times, *quintic(times))
    for t, end in ((-0.5, 0), (1.5, 1)):
        q, qd, qdd = trajectory.sample(t)
        assert q == trajectory.positions[end]
        assert qd == qdd == 0


def test_reversed_runs_the_same_path_backwards() -> None:
    times = np.linspace(0.0, 1.0, 5)
    trajectory = Trajectory(times, *quintic(times))
    back = trajectory.reversed()
    for t in (0.0, 0.3, 1.0):
        q, qd, qdd = trajectory.sample(t)
        rq, rqd, rqdd = back.sample(1.0 - t)
        np.testing.assert_allclose([rq, -rqd, rqdd], [q, qd, qdd], atol=1e-9)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(BadInput, match=r"\(3, 2\)"):
        Trajectory(np.zeros(2), np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2)))

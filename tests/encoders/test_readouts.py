"""Read-outs in closed form are what the slow way gives."""

from __future__ import annotations

import numpy as np

from embodied_vision.encoders import readouts
from embodied_vision.encoders.readouts import PENALTIES, Neighbours, balanced_ridge, ridge_left_out, vote

RNG = np.random.default_rng(0)


def test_the_penalty_is_the_one_that_leaving_samples_out_prefers() -> None:
    for noise in (0.0, 3.0):
        x = RNG.normal(size=(30, 40))
        y = x[:, :2] + noise * RNG.normal(size=(30, 2))
        slope, bias = ridge_left_out(x, y)
        z = (x - x.mean(0)) / (x.std(0) + 1e-9)
        errors, fits = [], []
        for penalty in PENALTIES:
            kernel = z.T @ z + penalty * len(x) * np.eye(z.shape[1])
            hat = z @ np.linalg.solve(kernel, z.T) + 1 / len(x)
            errors.append((((y - hat @ y) / (1 - np.diag(hat))[:, None]) ** 2).sum())
            fits.append(hat @ y)
        np.testing.assert_allclose(x @ slope + bias, fits[int(np.argmin(errors))], atol=1e-6)


def test_rare_kinds_count_as_much_as_frequent_ones() -> None:
    kind = np.array([0] * 990 + [1] * 10)
    x = RNG.normal(size=(1000, 2)) + kind[:, None] * 2.5
    slope, bias = balanced_ridge(x, kind, 2)
    found = (x @ slope + bias).argmax(1)
    assert (found[kind == 1] == 1).mean() > 0.8


def test_neighbours_are_those_of_an_exhaustive_search() -> None:
    x, held = RNG.normal(size=(50, 6)) * (1, 1, 1, 9, 9, 9), RNG.normal(size=(7, 6))
    found = Neighbours(x, seed=0).of(held)
    z, q = ((each - x.mean(0)) / x.std(0) for each in (x, held))
    cosine = (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (z / np.linalg.norm(z, axis=1, keepdims=True)).T
    np.testing.assert_array_equal(found, (-cosine).argsort(1)[:, : readouts.NEIGHBOURS])


def test_a_large_bank_is_thinned_and_indices_stay_those_of_the_samples() -> None:
    x = np.repeat(np.eye(4), 2000, axis=0) + 1e-3 * RNG.normal(size=(8000, 4))
    found = Neighbours(x, seed=0).of(np.eye(4))
    np.testing.assert_array_equal(found // 2000, np.arange(4)[:, None].repeat(readouts.NEIGHBOURS, 1))


def test_the_majority_decides_and_the_nearest_between_equals() -> None:
    kind = np.array([0, 0, 1, 1, 1])
    neighbours = np.array([[0, 1, 2, 3], [2, 3, 0, 1], [0, 2, 3, 4]])
    np.testing.assert_array_equal(vote(kind, neighbours, 2), [0, 1, 1])

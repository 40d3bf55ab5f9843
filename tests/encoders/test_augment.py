"""Another table and another lamp: what they change, and what they leave alone."""

from __future__ import annotations

import numpy as np

from embodied_vision.encoders.augment import PATTERN_PX, another_table, lamp, pattern


def test_another_table_leaves_what_stands_on_it_alone() -> None:
    rng = np.random.default_rng(0)
    color = np.full((64, 64, 3), 120, np.uint8)
    ground = np.zeros((64, 64), bool)
    ground[:, :40] = True
    tables = [another_table(rng, color, ground) for _ in range(30)]
    for table in tables:
        assert (table[:, 40:] == 120).all()
    means = np.array([table[:, :40].mean((0, 1)) for table in tables])
    assert means.std(0).min() > 10  # its color
    assert np.ptp(means - means.mean(1, keepdims=True), axis=0).min() > 5  # its tint
    assert np.mean([table[:, :40].std() > 3 for table in tables]) > 0.6  # its texture


def test_patterns_are_seamless_and_of_several_kinds() -> None:
    rng = np.random.default_rng(0)
    patterns = [pattern(rng) for _ in range(40)]
    for p in patterns:
        assert p.shape == (PATTERN_PX, PATTERN_PX)
        assert p.min() >= 0
        assert p.max() <= 1
    clouds = [p for p in patterns if len(np.unique(p)) > 100]
    assert 5 < len(clouds) < 30
    for cloud in clouds:
        across = np.abs(cloud - np.roll(cloud, 1, axis=1)).max(0)
        assert across[0] < 2 * across[1:].max() + 1e-3


def test_a_lamp_stands_to_one_side() -> None:
    rng = np.random.default_rng(3)
    color = np.full((33, 33, 3), 100, np.uint8)
    lit = [lamp(rng, color).astype(float).mean(2) for _ in range(10)]
    for image in lit:
        assert abs(image[16, 16] - 100) <= 1
        assert abs(image[0, 0] * image[-1, -1] - 100**2) < 400
    assert np.mean([np.ptp(image) > 15 for image in lit]) > 0.7


def test_the_seed_decides() -> None:
    color = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    ground = np.ones((32, 32), bool)
    once, again, other = (another_table(np.random.default_rng(seed), color, ground) for seed in (5, 5, 6))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()

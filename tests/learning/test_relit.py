"""Scenes in another light: colors and heights change a little, what is seen and what is to be done does not."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import synthetic

from embodied_vision.learning.augment import FLAT_M, NOISE_M, relit
from embodied_vision.learning.dataset import Example, to_example
from embodied_vision.policies.segments import segment_at


def example(seed: int) -> Example:
    return to_example(*synthetic.insertion(np.random.default_rng(seed)))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_object_is_found_as_before(seed: int) -> None:
    one = example(seed)
    seen = relit(one, np.random.default_rng(seed))
    assert (seen.scene.color != one.scene.color).any()
    assert np.array_equal(seen.place, one.place)
    assert seen.segment is one.segment
    found = segment_at(seen.scene, one.segment.grasp)
    assert (found.mask & one.segment.mask).sum() > 0.9 * one.segment.mask.sum()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_a_color_changes_by_one_factor_a_channel_and_the_table_by_another(seed: int) -> None:
    one = example(seed)
    seen = relit(one, np.random.default_rng(seed))
    flat = np.abs(one.scene.height) < FLAT_M
    for cells in (flat, ~flat):
        before, after = (each.scene.color[cells & one.scene.valid].astype(float) for each in (one, seen))
        for channel in range(3):
            lit = (before[:, channel] > 40) & (after[:, channel] < 255)
            if lit.any():
                factors = after[lit, channel] / before[lit, channel]
                assert factors.max() - factors.min() < 2 / 40, "rounded to whole levels twice at most"


def test_unseen_cells_stay_unseen_and_heights_keep_their_mean() -> None:
    one = example(3)
    one.scene.valid[:20], one.scene.color[:20], one.scene.height[:20] = False, 0, 0
    seen = relit(one, np.random.default_rng(1))
    assert not seen.scene.color[:20].any()
    assert not seen.scene.height[:20].any()
    change = (seen.scene.height - one.scene.height)[20:]
    assert 0 < change.std() < NOISE_M
    assert abs(change.mean()) < 5 * NOISE_M / np.sqrt(change.size)
    assert seen.scene.height.dtype == np.float32
    assert seen.scene.color.dtype == np.uint8

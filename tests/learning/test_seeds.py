"""The splits never meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_vision.errors import BadInput
from embodied_vision.learning.seeds import SPLIT_SIZE, Split, scene_seed, split_of

SPLITS: list[Split] = ["train", "validation", "test"]


@given(st.sampled_from(SPLITS), st.integers(0, SPLIT_SIZE - 1))
def test_a_seed_belongs_to_the_split_that_gave_it(split: Split, index: int) -> None:
    assert split_of(scene_seed(split, index)) == split


def test_the_documented_ranges() -> None:
    assert [scene_seed(split, 0) for split in SPLITS] == [0, 1_000_000, 2_000_000]


@pytest.mark.parametrize("index", [-1, SPLIT_SIZE])
def test_an_index_outside_of_a_split_is_refused(index: int) -> None:
    with pytest.raises(BadInput, match=str(index)):
        scene_seed("train", index)


def test_unknown_split_and_seed_are_refused() -> None:
    with pytest.raises(BadInput, match="holdout"):
        scene_seed("holdout", 0)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="3000000"):
        split_of(3_000_000)

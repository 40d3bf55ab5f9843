"""Every sample once an epoch, over all ranks, in an order that can be taken up anywhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.errors import BadInput
from embodied_vision.learning.episode_sampler import ShuffledSampler, permute

LENGTHS = st.integers(1, 40) | st.integers(1, 5000)


@given(LENGTHS, st.integers(0, 2**64), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_permutation_takes_every_number_to_another(length: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(length), length, seed, epoch)) == list(range(length))


def test_a_permutation_needs_no_more_than_the_places_asked_for() -> None:
    places = np.array([0, 5, 2**40])
    drawn = permute(places, 2**40 + 3, 1, 2)
    assert len(set(drawn.tolist())) == 3
    np.testing.assert_array_equal(permute(places[1:], 2**40 + 3, 1, 2), drawn[1:])


def test_each_place_is_taken_by_any_sample() -> None:
    """Of 1200 orders of 6 samples each pair (place, sample) comes in a sixth: 200, of a standard deviation of 13."""
    orders = np.array([permute(np.arange(6), 6, seed, 0) for seed in range(1200)])
    counts = np.array([[(orders[:, place] == sample).sum() for sample in range(6)] for place in range(6)])
    assert abs(counts - 200).max() < 65
    followers = Counter(zip(orders[:, 0].tolist(), orders[:, 1].tolist(), strict=True))
    assert len(followers) == 30
    assert max(abs(count - 40) for count in followers.values()) < 32


@given(LENGTHS, st.integers(1, 5), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_ranks_share_an_epoch_without_overlap(length: int, ranks: int, shuffle: bool, even: bool) -> None:
    ranks = min(ranks, length)
    shares = [
        list(ShuffledSampler(length, seed=3, shuffle=shuffle, rank=rank, ranks=ranks, even=even))
        for rank in range(ranks)
    ]
    drawn = [sample for share in shares for sample in share]
    assert len(drawn) == len(set(drawn))
    if even:
        assert {len(share) for share in shares} == {length // ranks}
    else:
        assert sorted(drawn) == list(range(length))


def test_epochs_have_orders_of_their_own_and_seeds_repeat_them() -> None:
    one, same, other = ShuffledSampler(50, seed=1), ShuffledSampler(50, seed=1), ShuffledSampler(50, seed=2)
    first = list(one)
    assert first == list(one) == list(same)
    assert first != list(other)
    one.advance(50)
    assert (one.epoch, one.position) == (1, 0)
    assert list(one) != first
    assert sorted(list(one)) == sorted(first)


@given(st.integers(2, 60), st.data())
@settings(deadline=None)
def test_an_order_is_taken_up_in_the_middle(length: int, data: st.DataObject) -> None:
    ranks = data.draw(st.integers(1, min(3, length)))
    rank = data.draw(st.integers(0, ranks - 1))
    whole = ShuffledSampler(length, seed=9, rank=rank, ranks=ranks)
    whole.advance(whole.share)
    epoch = list(whole)
    done = data.draw(st.integers(0, len(epoch) - 1))
    whole.advance(done)
    resumed = ShuffledSampler(length, seed=9, rank=rank, ranks=ranks)
    resumed.load_state_dict(whole.state_dict())
    assert len(resumed) == len(epoch) - done
    assert list(resumed) == epoch[done:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 4, "rank": 2, "ranks": 2}, "rank 2 of 2"),
        ({"length": 1, "ranks": 2}, "cannot be shared"),
        ({"length": 0}, "cannot be shared"),
        ({"length": 4, "seed": -1}, "negative"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ShuffledSampler(**arguments)


@pytest.mark.parametrize(
    "change", [{"length": 11}, {"seed": 2}, {"ranks": 2}, {"position": 10}, {"epoch": -1}, {"shuffle": False}]
)
def test_a_state_of_another_sampler_is_refused(change: dict) -> None:
    sampler = ShuffledSampler(10, seed=1)
    with pytest.raises(BadInput, match="state"):
        sampler.load_state_dict({**sampler.state_dict(), **change})


def test_no_more_can_be_done_with_than_is_left() -> None:
    sampler = ShuffledSampler(10)
    sampler.advance(7)
    with pytest.raises(BadInput, match="3 are left"):
        sampler.advance(4)

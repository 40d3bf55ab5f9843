"""A bad policy is taken back within a few episodes, one as good as the former seldom, and every look is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from policies.stubs import TINY, random_checkpoint

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput
from embodied_vision.learning import canary
from embodied_vision.learning.canary import LEVEL, Plan, failed_at
from embodied_vision.learning.gate import Pairs
from embodied_vision.learning.promotion import Pointer

TASK = "block-insertion"


def act(store: EpisodeStore, policy_id: str, *solved: bool, aborted: bool = False) -> None:
    for outcome in solved:
        writer = EpisodeWriter(store, task=TASK, robot="panda_suction", cameras=[], policy_id=policy_id)
        writer.close({"reward": float(outcome), "solved": outcome, **({"aborted": True} if aborted else {})})


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "store")


@pytest.fixture
def pointer(tmp_path: Path) -> Pointer:
    """A good policy, and a candidate put to use over it, watched for five episodes."""
    pointer = Pointer(tmp_path / "policies", TASK)
    good, bad = (pointer.add(random_checkpoint("", seed=seed, config=TINY)).name for seed in (1, 2))
    pointer.promote(good, "start")
    pointer.promote(bad, "forced", thresholds={"canary": Plan(5, 20, 0).to_dict()})
    return pointer


@pytest.mark.parametrize(("solved", "failed"), [(20, 0), (50, 0), (45, 5), (16, 4)])
def test_what_only_fails_is_recognised_within_five_episodes(solved: int, failed: int) -> None:
    number = failed_at([False] * 20, Plan(20, solved, failed))
    assert number is not None
    assert number <= 5


@pytest.mark.parametrize("former", [10, 20, 50])
def test_one_that_is_as_good_is_seldom_taken_back(former: int) -> None:
    """By simulation: rates drawn alike, the former's record and the new one's episodes by the same rate."""
    rng = np.random.default_rng(former)
    taken_back = 0
    for _ in range(1500):
        rate = rng.uniform()
        solved = int(rng.binomial(former, rate))
        outcomes = (rng.uniform(size=20) < rate).tolist()
        taken_back += failed_at(outcomes, Plan(20, solved, former - solved)) is not None
    assert taken_back / 1500 <= LEVEL + 2 * np.sqrt(LEVEL / 1500)


def test_one_that_is_much_worse_is_mostly_taken_back() -> None:
    rng = np.random.default_rng(0)
    numbers = [failed_at((rng.uniform(size=20) < 0.5).tolist(), Plan(20, 48, 2)) for _ in range(500)]
    assert sum(number is not None for number in numbers) > 475


def test_a_forced_bad_policy_is_rolled_back_and_the_log_says_by_which_episodes(
    pointer: Pointer, store: EpisodeStore
) -> None:
    bad, good = pointer.current, pointer.former
    assert bad is not None
    assert canary.check(pointer, store).word == "watching"
    state = canary.check(pointer, store)
    while state.word == "watching":
        act(store, bad, False)
        state = canary.check(pointer, store)
    assert (state.word, len(state.episodes) <= 5) == ("rolled back", True)
    assert (state.checkpoint, state.now, pointer.current, pointer.former) == (bad, good, good, bad)
    last = pointer.history()[-1]
    assert (last["event"], last["episodes"]) == ("rolled back", list(state.episodes))
    assert canary.check(pointer, store).word == "off"
    assert pointer.was_rolled_back(bad)


def test_a_good_one_passes_once_and_others_episodes_do_not_count(pointer: Pointer, store: EpisodeStore) -> None:
    assert pointer.former is not None
    assert pointer.current is not None
    act(store, pointer.former, False, False, False)
    act(store, pointer.current, True, True, True, True)
    assert canary.check(pointer, store).solved == 4
    act(store, pointer.current, True, False, False)
    assert [canary.check(pointer, store).word for _ in range(2)] == ["passed", "passed"]
    assert [line["event"] for line in pointer.history()].count("canary passed") == 1


def test_episodes_that_were_broken_off_count_as_failures(pointer: Pointer, store: EpisodeStore) -> None:
    assert pointer.current is not None
    act(store, pointer.current, True, True, True, aborted=True)
    assert canary.check(pointer, store).word == "rolled back"


def test_a_plan_knows_the_former_policy_by_its_episodes_or_else_by_its_scenes(
    pointer: Pointer, store: EpisodeStore
) -> None:
    scenes = Pairs(TASK, "simulation", list("abc"), [True] * 3, [True, True, False])
    assert canary.plan(pointer, store, [scenes], 20) == Plan(20, 2, 1)
    assert pointer.current is not None
    act(store, pointer.current, True, False)
    assert canary.plan(pointer, store, [scenes], 20) == Plan(20, 1, 1)


def test_a_plan_that_watches_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="no plan of a canary"):
        Plan(0, 20, 0)

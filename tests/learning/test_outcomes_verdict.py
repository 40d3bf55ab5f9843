"""What follows from verdicts: a scene is solved, goes on, or nobody knows; and all of it is logged for who reads it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_vision.episodes.edit import relabel
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.learning.calibrated import Calibration
from embodied_vision.learning.experience import samples
from embodied_vision.learning.gate_evidence import is_solved, outcome_known
from embodied_vision.learning.life_report import outcomes_of
from embodied_vision.learning.outcomes import Classifier
from embodied_vision.learning.outcomes_judge import Judge, label
from embodied_vision.learning.outcomes_network import OutcomeNetwork
from embodied_vision.learning.outcomes_verdict import NOT_JUDGED, Tally, Verdict, at_least, conclude
from embodied_vision.learning.outcomes_views import earned
from embodied_vision.learning.watch import Arrivals
from tests.block_world import TASK, WORKSPACE, Cell, PatchEncoder

GOOD, BAD = Verdict("success", 0.97), Verdict("failure", 0.04)
OPEN = Verdict("unsure", 0.6, "it looks like neither")
BLIND = Verdict("unsure", math.nan, "the features are not finite; check the encoder")
SOLVED: dict[str, Any] = {"reward": 1.0, "solved": True}
UNSOLVED: dict[str, Any] = {"reward": 0.0, "solved": False}


def never(question: str) -> bool | None:
    raise AssertionError(f"nobody is to be asked: {question}")


def says(answer: bool | None) -> Callable[[str], bool | None]:
    return lambda question: answer


def tally(*verdicts: Verdict, needed: int = 1, ask: Callable[[str], bool | None] = never) -> Tally:
    """A scene with so many decisions, all carried out."""
    made = Tally(needed, "c1")
    for number, verdict in enumerate(verdicts):
        made.decided(f"d{number}")
        made.judge(verdict, ask)
    return made


def test_at_least_is_the_sum_over_all_ways() -> None:
    p = np.random.default_rng(0).uniform(size=5)
    for needed in (1, 2, 5, 6):
        ways = [way for way in itertools.product([False, True], repeat=5) if sum(way) >= needed]
        total = sum(float(np.prod(np.where(way, p, 1 - p))) for way in ways)
        assert at_least(needed, p) == pytest.approx(total)
    assert at_least(1, []) == 0.0
    assert math.isnan(at_least(1, [0.5, math.nan]))


@pytest.mark.parametrize(
    ("words", "needed", "ended"),
    [
        (["success"], 1, SOLVED),
        (["failure", "success"], 1, SOLVED),
        (["failure"], 1, UNSOLVED),
        (["success", "failure"], 2, {"reward": 0.5, "solved": False}),
        (["unsure"], 1, {}),
        (["success", "unsure"], 2, {}),
        (["failure", "unsure"], 2, UNSOLVED),
        ([], 1, {}),
    ],
)
def test_how_a_scene_ended(words: list[Any], needed: int, ended: dict[str, Any]) -> None:
    assert conclude(words, needed) == ended


def test_a_success_solves_a_scene_and_is_logged_with_its_probability() -> None:
    made = tally(BAD, GOOD)
    assert (made.solved, made.reward, made.unknown) == (True, 1.0, "")
    assert made.logged(SOLVED) == {
        **SOLVED,
        "source": "cameras",
        "probability": pytest.approx(1 - 0.03 * 0.96),
        "judged": {
            "classifier": "c1",
            "needed": 1,
            "decisions": [
                {"word": "failure", "probability": 0.04, "reason": "", "decision_id": "d0"},
                {"word": "success", "probability": 0.97, "reason": "", "decision_id": "d1"},
            ],
            "successes": 1,
            "failures": 1,
            "unsure": 0,
        },
    }


def test_a_failure_goes_on_and_several_successes_may_be_needed() -> None:
    made = tally(GOOD, BAD, needed=2)
    assert (made.solved, made.reward, made.unknown) == (False, 0.5, "")
    made.decided("d2")
    assert not made.is_up_to_date
    assert not made.judge(GOOD, never)
    assert (made.is_up_to_date, made.solved) == (True, True)


@pytest.mark.parametrize("verdict", [OPEN, BLIND])
def test_where_the_cameras_are_unsure_an_operator_says_it(verdict: Verdict) -> None:
    asked: list[str] = []

    def ask(question: str) -> bool | None:
        asked.append(question)
        return len(asked) > 1

    made = tally(verdict, verdict, ask=ask)
    assert "d0" in asked[0]
    assert verdict.reason in asked[0]
    assert made.solved
    logged = made.logged(SOLVED)
    assert (logged["source"], logged["earned"], logged["probability"]) == ("operator", [0.0, 1.0], 1.0)
    assert logged["judged"]["unsure"] == 2, "the cameras' own words are kept"
    json.dumps(logged, allow_nan=False)


@pytest.mark.parametrize("verdict", [OPEN, BLIND])
def test_where_nobody_says_it_the_scene_ends_with_an_unknown_outcome(verdict: Verdict) -> None:
    made = tally(verdict, ask=says(None))
    assert not made.solved
    assert "nobody knows whether decision d0 succeeded" in made.unknown
    assert verdict.reason in made.unknown
    logged = made.logged({**UNSOLVED, "reason": made.unknown})
    assert "solved" not in logged
    assert "reward" not in logged
    assert logged["reason"] == made.unknown
    json.dumps(logged, allow_nan=False)


def test_what_was_broken_off_stays_so() -> None:
    made = tally(OPEN, ask=says(None))
    made.decided("d1")
    broken = {**UNSOLVED, "aborted": True, "reason": "the encoder is gone"}
    logged = made.logged(broken)
    assert broken.items() <= logged.items()
    assert logged["judged"]["decisions"][1] == {**NOT_JUDGED.to_dict(), "decision_id": "d1"}
    assert tally().logged(broken)["judged"]["decisions"] == []


def test_refused_decisions_keep_their_place() -> None:
    made = Tally(1, "c1")
    made.decided("refused")
    made.decided("done")
    made.judge(OPEN, says(True))
    logged = made.logged(SOLVED)
    assert [each["decision_id"] for each in logged["judged"]["decisions"]] == ["refused", "done"]
    assert logged["earned"] == [None, 1.0]
    assert logged["probability"] == 1.0


# ---- as it is read


def test_gate_and_learner_read_it_as_any_other_outcome(tmp_path: Path) -> None:
    cell = Cell(EpisodeStore(tmp_path))

    def work(*verdicts: Verdict, ends: dict[str, Any], ask: Callable[[str], bool | None] = never) -> str:
        episode = cell.store.open(cell.episode([verdict is GOOD for verdict in verdicts], reward=False))
        made = Tally(1, "c1")
        for number, verdict in enumerate(verdicts):
            made.decided(episode.decisions.action(number).decision_id)
            made.judge(verdict, ask)
        relabel(cell.store, episode.id, made.logged(ends))
        return episode.id

    ids = {
        "solved": work(GOOD, ends=SOLVED),
        "unsolved": work(BAD, ends=UNSOLVED),
        "said": work(OPEN, GOOD, ends=SOLVED, ask=says(False)),
        "unknown": work(OPEN, ends=UNSOLVED, ask=says(None)),
    }
    episodes = {name: cell.store.open(each) for name, each in ids.items()}
    assert {name for name, each in episodes.items() if outcome_known(each)} == {"solved", "unsolved", "said"}
    assert {name for name, each in episodes.items() if is_solved(each)} == {"solved", "said"}
    assert earned(episodes["said"]) == [0.0, None]
    assert outcomes_of(cell.store, TASK) == {"p1": (3, 2)}
    arrivals = Arrivals(cell.store)
    assert set(arrivals.look()) == set(ids.values())
    assert {seen.id: seen.solved for seen in arrivals.seen[TASK]} == {
        ids["solved"]: True,
        ids["unsolved"]: False,
        ids["said"]: True,
    }
    found = samples(cell.store, TASK, PatchEncoder(), WORKSPACE)
    assert {(s.source.split("/")[0], s.sign) for s in found} >= {(ids["solved"], 1), (ids["unsolved"], -1)}
    assert ids["unknown"] not in {s.source.split("/")[0] for s in found}


def always(word: str) -> Judge:
    """A judge that says the same of everything."""
    shift = {"success": 6.0, "failure": -6.0}[word]
    classifier = Classifier(
        task=TASK,
        encoder_id=PatchEncoder().encoder_id,
        workspace=WORKSPACE,
        dimension=4,
        calibration=Calibration(scale=1e-3, shift=shift),
        sure=0.9,
        weights=OutcomeNetwork(4).state_dict(),
    )
    return Judge(classifier, PatchEncoder())


def test_judging_again_counts_the_successes_that_the_scene_needs(tmp_path: Path) -> None:
    cell = Cell(EpisodeStore(tmp_path))

    def again(logged: dict[str, Any], word: str, actions: int = 1) -> dict[str, Any]:
        episode_id = cell.episode([True] * actions, reward=False, outcome=logged)
        return label(cell.store, cell.store.open(episode_id), always(word))

    solved = again(tally(BAD, GOOD).logged(SOLVED), "success")
    assert (solved["solved"], solved["judged"]["needed"], solved["source"]) == (True, 1, "cameras")
    assert again(tally(BAD, BAD, needed=3).logged(UNSOLVED), "success", 2)["reward"] == pytest.approx(2 / 3, abs=1e-5)
    assert again(tally(BAD, GOOD).logged(SOLVED), "failure")["solved"] is False
    unknown = tally(BAD, OPEN, ask=says(None)).logged(UNSOLVED)
    assert "solved" not in again(unknown, "failure"), "the policy might have solved it yet"
    assert again(unknown, "success")["solved"]
    said = tally(OPEN, OPEN, ask=says(True)).logged(SOLVED)
    assert again(said, "failure")["solved"], "an operator's word counts"


def test_a_list_with_gaps_leaves_these_to_what_was_logged(tmp_path: Path) -> None:
    cell = Cell(EpisodeStore(tmp_path))
    for said, read in (([None, 1], [0.5, 1.0]), ([None, None], [0.5, 0.0]), ([None, "x"], [0.5, 0.0])):
        episode_id = cell.episode([True, False], outcome={"reward": 0.5, "solved": False, "earned": said})
        assert earned(cell.store.open(episode_id)) == read

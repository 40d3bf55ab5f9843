"""A judge in a process of its own answers, and when it hangs or dies the one who asked is told, and may ask again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from learning import judging_jobs

from embodied_vision.encoders import registry
from embodied_vision.errors import CheckpointError, RunFailed
from embodied_vision.learning import outcomes
from embodied_vision.learning.calibrated import Calibration
from embodied_vision.learning.outcomes import Classifier
from embodied_vision.learning.outcomes_network import OutcomeNetwork
from embodied_vision.learning.outcomes_process import About, JudgeProcess, load_judge
from tests.block_world import TASK, WORKSPACE, PatchEncoder, action, frame

SEEN = [frame([(0.5, 0.0)], 1)]
WAIT_S = 20.0


@pytest.fixture
def judge() -> Iterator[JudgeProcess]:
    made = JudgeProcess(judging_jobs.make)
    yield made
    made.close()


def ask(judge: JudgeProcess, decision_id: str = "d") -> int:
    """Have an action judged; the process that did it."""
    verdict = judge.ask(SEEN, SEEN, action((0.5, 0.0), (0.5, 0.1), 1, decision_id=decision_id)).result(WAIT_S)
    assert (verdict.word, verdict.probability) == ("success", 0.97)
    return int(verdict.reason)


def test_it_says_what_it_is_for_and_answers_again_and_again(judge: JudgeProcess) -> None:
    assert judge.about(WAIT_S) == About("stacking", "c1")
    one, other = ask(judge), ask(judge)
    assert one == other != os.getpid()


def test_one_that_was_killed_between_two_questions_is_replaced(judge: JudgeProcess) -> None:
    first = ask(judge)
    os.kill(first, signal.SIGKILL)
    time.sleep(0.1)
    assert ask(judge) != first


def test_a_verdict_that_never_comes_can_be_given_up(judge: JudgeProcess) -> None:
    waiting = judge.ask(SEEN, SEEN, action((0.5, 0.0), (0.5, 0.1), 1, decision_id=judging_jobs.NEVER))
    with pytest.raises(TimeoutError):
        waiting.result(1.0)
    judge.drop()
    with pytest.raises(RunFailed, match=r"lost: worker process .* SIGKILL"):
        waiting.result(WAIT_S)
    ask(judge)


def test_one_that_stands_still_does_not_hold_up_who_gives_it_frames(judge: JudgeProcess) -> None:
    first = ask(judge)
    os.kill(first, signal.SIGSTOP)
    many = SEEN * 40  # more than the socket holds
    waiting = judge.ask(many, many, action((0.5, 0.0), (0.5, 0.1), 1))
    with pytest.raises(TimeoutError):
        waiting.result(0.3)
    began_s = time.monotonic()
    judge.close()
    assert time.monotonic() - began_s < 2.0
    with pytest.raises(RunFailed, match="lost"):
        waiting.result(0.0)


def test_one_that_cannot_be_loaded_says_why() -> None:
    judge = JudgeProcess(judging_jobs.refuse)
    with pytest.raises(CheckpointError, match="reads encoder a, given b"):
        judge.about(WAIT_S)
    judge.close()


def test_a_classifier_of_another_encoder_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    classifier = Classifier(
        task=TASK,
        encoder_id="patches-1",
        workspace=WORKSPACE,
        dimension=4,
        calibration=Calibration(),
        sure=0.9,
        weights=OutcomeNetwork(4).state_dict(),
    )
    outcomes.save(classifier, tmp_path / "judge")
    monkeypatch.setattr(registry, "load_encoder", lambda _: PatchEncoder("patches-2"))
    with pytest.raises(CheckpointError, match=r"reads encoder patches-1, given\s+patches-2"):
        load_judge(str(tmp_path / "judge"), "default")

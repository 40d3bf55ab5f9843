"""The loop of work against a scripted graph: what it asks for, in which order, and what it does when that fails."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from embodied_vision.control.task_loop import Interrupted, MotionResult, Outcome, Progress, TaskLoop
from embodied_vision.errors import RunFailed


class ScriptedCell:
    """Solves a scene after `needed` decisions; `faults` maps a call to what it raises, once each time it is listed."""

    def __init__(
        self,
        needed: int = 1,
        faults: Mapping[str, list[Exception]] | None = None,
        refuse: str = "",
        refusals: int = 1_000_000,
        misses: int = 0,
    ) -> None:
        self.calls: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._needed, self._refuse, self._refusals = needed, refuse, refusals
        self._faults = {name: list(errors) for name, errors in (faults or {}).items()}
        self._misses = misses
        self._clock = 0
        self._seed = 0
        self._executed = 0

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self._clock += 1
        if self._faults.get(name):
            raise self._faults[name].pop(0)

    def _outcome(self) -> Outcome:
        reward = min(1.0, self._executed / self._needed)
        raw = {"scene": f"s{self._seed}", "renderer": "software"}
        return Outcome(self._seed, reward, reward >= 1.0, self._clock, 3, raw)

    def wait_ready(self) -> None:
        self._call("ready")

    def reset(self, task: str, seed: int) -> Outcome:
        self._seed, self._executed = seed, 0
        self._call("reset")
        return self._outcome()

    def home(self) -> None:
        self._call("home")

    def start_episode(self, event: Mapping[str, Any]) -> str:
        self.events.append(dict(event))
        self._call("start")
        return f"episode-{len(self.events)}"

    def end_episode(self, event: Mapping[str, Any]) -> None:
        self._call("end")
        self.events.append(dict(event))

    def decide(self) -> str:
        self._call("decide")
        return f"decision-{self._clock}"

    def execute(self, decision_id: str) -> MotionResult:
        self._call("execute")
        if self._refuse and self._refusals > 0:
            self._refusals -= 1
            return MotionResult(False, self._refuse, f"{self._refuse}: so it is", self._clock)
        if self._misses > 0:
            self._misses -= 1
            return MotionResult(False, "", "nothing is held after the lift", self._clock, "grasp_missed")
        self._executed += 1
        return MotionResult(True, "", "", self._clock)

    def outcome_after(self, stamp_ns: int) -> Outcome:
        assert stamp_ns <= self._clock
        self._call("outcome")
        return self._outcome()


def run(cell: ScriptedCell, seeds: Sequence[int] = (7,), **options: int) -> tuple[Progress, list[Progress]]:
    said: list[Progress] = []
    loop = TaskLoop(cell, said.append, **options)
    return loop.run("stacking", seeds), said


def test_scenes_are_worked_through_in_order() -> None:
    cell = ScriptedCell(needed=2)
    progress, said = run(cell, (7, 8))
    one = ["ready", "reset", "start", *["decide", "execute", "outcome"] * 2, "end"]
    assert cell.calls == one * 2
    assert progress.state == "finished"
    assert [(r.seed, r.solved, r.steps, r.attempts) for r in progress.results] == [(7, True, 2, 1), (8, True, 2, 1)]
    assert len(set(progress.results[0].decisions)) == 2
    assert (progress.scenes, progress.through, progress.solved) == (2, 2, 2)
    common = {"task": "stacking", "scene": "s7", "attempt": 1, "renderer": "software"}
    assert cell.events[0] == {"event": "start", "seed": 7, **common}
    assert cell.events[1]["outcome"] == {"reward": 1.0, "solved": True}
    assert said[0].state == "running"
    assert said[-1].to_dict()["solved"] == 2


def test_what_is_told_does_not_grow_with_the_run() -> None:
    progress, said = run(ScriptedCell(needed=1), range(1_000_000, 1_000_150))
    assert (progress.scenes, progress.through, progress.solved) == (150, 150, 150)
    assert [result.seed for result in progress.results] == list(range(1_000_050, 1_000_150)), "the last hundred"
    assert max(len(json.dumps(one.to_dict())) for one in said) < 30_000


@pytest.mark.parametrize(("max_steps", "decided"), [(0, 3), (1, 1)])
def test_an_unsolved_scene_ends_after_the_allowed_decisions(max_steps: int, decided: int) -> None:
    cell = ScriptedCell(needed=10)
    progress, _ = run(cell, max_steps=max_steps)
    assert cell.calls.count("decide") == decided
    assert (progress.results[0].solved, progress.results[0].reason) == (False, f"not solved after {decided} decisions")


def test_a_refused_decision_ends_the_scene_with_its_reason() -> None:
    progress, _ = run(ScriptedCell(refuse="workspace"), (7, 8))
    assert progress.state == "finished"
    assert [r.reason for r in progress.results] == ["workspace: so it is"] * 2


def test_a_decision_that_came_too_late_is_made_again_and_costs_no_step() -> None:
    cell = ScriptedCell(needed=2, refuse="stale_observation", refusals=3)
    progress, _ = run(cell)
    result = progress.results[0]
    assert (result.solved, result.steps, result.attempts, len(result.decisions)) == (True, 2, 1, 5)
    assert cell.calls.count("reset") == 1


def test_a_missed_grasp_is_tried_again_by_a_new_decision_and_costs_no_step() -> None:
    cell = ScriptedCell(misses=2)
    progress, _ = run(cell, max_steps=1)
    result = progress.results[0]
    assert (result.solved, result.steps, result.attempts, len(result.decisions)) == (True, 1, 1, 3)
    assert cell.calls.count("outcome") == 3
    assert cell.calls.count("reset") == 1


def test_grasps_that_fail_again_and_again_end_the_scene() -> None:
    cell = ScriptedCell(misses=100)
    progress, _ = run(cell, (7, 8), grasps=4)
    assert progress.state == "finished"
    assert [(r.solved, r.reason, len(r.decisions)) for r in progress.results] == [
        (False, "nothing is held after the lift", 4)
    ] * 2


def test_decisions_that_come_too_late_again_and_again_interrupt_the_scene() -> None:
    progress, _ = run(ScriptedCell(refuse="lost"), retries=2)
    assert progress.state == "failed"
    assert "interrupted 3 times, at last: lost: so it is" in progress.error


@pytest.mark.parametrize("call", ["decide", "execute", "outcome"])
def test_an_interrupted_scene_is_closed_and_begun_again_from_home(call: str) -> None:
    cell = ScriptedCell(faults={call: [Interrupted("encoder is gone")]})
    progress, reports = run(cell)
    assert {(r.attempt, r.interrupted) for r in reports if r.attempt} == {(1, ""), (2, "encoder is gone")}
    assert cell.events[1]["outcome"] == {"reward": 0.0, "solved": False, "aborted": True, "reason": "encoder is gone"}
    second = cell.calls[cell.calls.index("end") + 1 :]
    assert second[:4] == ["ready", "home", "reset", "start"]
    assert (progress.results[0].solved, progress.results[0].attempts) == (True, 2)
    assert progress.results[0].episode == "episode-3"


def test_a_graph_that_does_not_recover_fails_the_run() -> None:
    cell = ScriptedCell(faults={"decide": [Interrupted("no frames")] * 9})
    progress, _ = run(cell, retries=2)
    assert cell.calls.count("reset") == 3
    assert (progress.state, progress.results) == ("failed", ())
    assert "interrupted 3 times" in progress.error
    assert "no frames" in progress.error


def test_what_cannot_be_tried_again_fails_at_once() -> None:
    cell = ScriptedCell(faults={"ready": [RunFailed("the arm is stopped; call arm/resume")]})
    progress, _ = run(cell)
    assert (progress.state, progress.error) == ("failed", "the arm is stopped; call arm/resume")
    assert cell.calls == ["ready"]


@pytest.mark.parametrize("call", ["start", "execute"])  # while the recorder is waited for, and later
def test_a_cancelled_episode_is_closed(call: str) -> None:
    cell = ScriptedCell(faults={call: [RunFailed("the run was cancelled")]})
    progress, _ = run(cell)
    assert progress.state == "failed"
    assert cell.events[-1]["outcome"]["aborted"]


def test_a_scene_of_which_nobody_knows_how_it_stands_ends_there_and_the_run_goes_on() -> None:
    class Blind(ScriptedCell):
        def outcome_after(self, stamp_ns: int) -> Outcome:
            outcome = super().outcome_after(stamp_ns)
            return replace(outcome, over="the cameras do not tell") if outcome.seed == 7 else outcome

    progress, _ = run(Blind(needed=2), (7, 8))
    assert progress.state == "finished"
    assert [(r.solved, r.reason, r.steps) for r in progress.results] == [
        (False, "the cameras do not tell", 1),
        (True, "", 2),
    ]

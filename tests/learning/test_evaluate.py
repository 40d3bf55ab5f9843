"""An evaluation counts what happened, in the order of its seeds, and the same again each time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies.stubs import TINY, frame, random_checkpoint

from embodied_vision.errors import BadInput
from embodied_vision.learning import provenance
from embodied_vision.learning.evaluate import SceneResult, evaluate, examined, run_scene, split_seeds, summarise
from embodied_vision.learning.scene_results import SceneLog
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.policy import Explanation, Policy


class Scripted:
    """An environment in which the second action solves half of the task and the third is refused."""

    def __init__(self) -> None:
        self.unwrapped = self
        self.seed = -1

    def frames(self) -> list[Any]:
        return [frame(self.seed % 100)]

    def reset(self, *, seed: int) -> None:
        self.seed, self.steps = seed, 0

    def step(self, action: dict[str, np.ndarray]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action["pick"].shape == action["place"].shape == (7,)
        self.steps += 1
        info: dict[str, Any] = {"reward_total": 0.5 * (self.steps >= 2), "solved": False}
        if self.steps == 3:
            info["refused"] = "workspace: tip"
        return None, 0.0, False, self.steps == 3, info


def test_a_scene_ends_when_its_steps_are_used_up() -> None:
    seen: list[Explanation] = []
    policy = Policy(random_checkpoint("", config=TINY), None)
    result = run_scene(Scripted(), policy, None, 2_000_001, seen.append)
    assert (result.seed, result.reward, result.solved, result.steps) == (2_000_001, 0.5, False, 3)
    assert result.refused == ["workspace: tip"]
    assert len(result.decision_s) == len(result.actions) == 3
    assert [len(made.failed) for made in seen] == [0, 1, 2], "nothing ever changes in what this environment shows"


def test_figures_have_the_documented_fields() -> None:
    results = [SceneResult(2_000_000 + k, 1.0 if k else 0.5, bool(k), 2, decision_s=[0.1]) for k in range(10)]
    figures = summarise("block-insertion", "here", results)
    wanted = {"task", "checkpoint", "preset", "seeds", "scenes", "score", "ci_low", "ci_high", "seconds_per_decision"}
    assert wanted <= set(figures)
    assert (figures["score"], figures["solved"], figures["failed_seeds"]) == (95.0, 9, [2_000_000])
    assert figures["ci_low"] <= 95 <= figures["ci_high"]
    assert figures["solved_low"] < 90 < figures["solved_high"]
    json.dumps(figures)


def test_splits_give_disjoint_seeds() -> None:
    seeds = [set(split_seeds(split, 100, 50)) for split in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert len(set.union(*seeds)) == 300


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    checkpoints.save(random_checkpoint("", config=TINY), tmp_path / "policy")
    with pytest.raises(BadInput, match="place-red-in-green"):
        evaluate("place-red-in-green", tmp_path / "policy", [2_000_000])


def test_one_and_two_workers_give_the_same_results(tmp_path: Path) -> None:
    """Real scenes, random weights: what counts is that actions and rewards agree to the last bit."""
    checkpoints.save(random_checkpoint("", config=TINY), tmp_path / "policy")
    seeds = split_seeds("validation", 2)
    one, two = (evaluate("block-insertion", tmp_path / "policy", seeds, workers=workers) for workers in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert (a.seed, a.reward, a.steps, a.refused) == (b.seed, b.reward, b.steps, b.refused)
        poses = [[(d["pick"], d["place"], d["scores"]) for d in result.actions] for result in (a, b)]
        assert poses[0] == poses[1]


def test_no_scene_is_run_twice(tmp_path: Path) -> None:
    """The second evaluation finds one scene in the log, told apart by what was examined, and runs the other."""
    checkpoints.save(random_checkpoint("", config=TINY), tmp_path / "policy")
    log = SceneLog(tmp_path / "scenes.jsonl")
    what = examined("block-insertion", tmp_path / "policy")
    marked = SceneResult(1_000_000, 0.25, False, 7, decision_s=[0.5], refused=["reach"], renderer="software")
    log.add(what, marked)
    log.add(replace(what, preset="mild"), SceneResult(1_000_001, 0.75, False, 7))
    log.add(replace(what, code="of yesterday"), SceneResult(1_000_001, 0.75, False, 7))
    log.add(replace(what, checkpoint_id="another"), SceneResult(1_000_001, 0.75, False, 7))
    told: list[int] = []
    first, second = evaluate(
        "block-insertion",
        tmp_path / "policy",
        [1_000_000, 1_000_001],
        log=log,
        report=lambda result: told.append(result.seed),
    )
    assert first == marked
    assert second.steps <= 3
    assert told == [1_000_000, 1_000_001]
    assert SceneLog(tmp_path / "new.jsonl", log.path).known(what)[1_000_001].reward == second.reward


def test_the_code_that_runs_a_scene_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "simulator").mkdir()
    source = tmp_path / "simulator" / "__init__.py"
    source.write_text("GRAVITY = 9.81")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = [provenance.scene_code("simulator")]
    source.write_text("GRAVITY = 9.82")
    names += [provenance.scene_code("simulator"), provenance.scene_code("simulator"), provenance.scene_code("absent")]
    assert names[0] != names[1] == names[2] != names[3]

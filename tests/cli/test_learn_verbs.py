"""The verbs around promotion answer in words and in JSON, and say what to do when they cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from policies.stubs import TINY, random_checkpoint

from embodied_vision.cli.main import app
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput
from embodied_vision.learning.canary import Plan
from embodied_vision.learning.promotion import Pointer
from tests.command_line import prints

TASK = "block-insertion"
run = partial(prints, app, "learn")


@pytest.fixture
def pointer(tmp_path: Path) -> Pointer:
    """Two policies, of which the second learnt from an episode and is watched."""
    pointer = Pointer(tmp_path / "policies", TASK)
    first = random_checkpoint("", seed=1, config=TINY)
    pointer.promote(pointer.add(first).name, "start")
    second = replace(
        random_checkpoint("", seed=2, config=TINY), training={"episodes": ["a"], "parent": first.checkpoint_id}
    )
    pointer.promote(pointer.add(second).name, "better", thresholds={"canary": Plan(5, 20, 0).to_dict()})
    return pointer


def test_history_in_words_and_json(pointer: Pointer) -> None:
    policies = pointer.folder.parent
    words = run("history", "--policies", policies).splitlines()
    assert len(words) == 2
    assert f"promoted {pointer.current} (before {pointer.former}): better" in words[1]
    events = [json.loads(line) for line in run("history", "--policies", policies, "--json").splitlines()]
    assert events == pointer.history()
    assert len(run("history", "--policies", policies, "--last", 1).splitlines()) == 1
    with pytest.raises(BadInput, match="no policies of 'stacking'"):
        run("history", "--policies", policies, "--task", "stacking")
    with pytest.raises(BadInput, match="no folder of policies"):
        run("history", "--policies", policies / "nowhere")


def test_scenes_needed_with_their_error_rates() -> None:
    rows = [json.loads(line) for line in run("scenes", "--margin", 0.2, "--simulate", 2000, "--json").splitlines()]
    assert [row["needed"] for row in rows] == sorted(row["needed"] for row in rows)
    assert all(row["false_promotions"] <= 0.05 + 2e-4 for row in rows)
    assert all(abs(row["passes"] - row["simulated_passes"]) < 0.05 for row in rows)
    assert "takes at least 59 scenes" in run("scenes", "--tasks", 2)


def test_canary_looks_and_says_when_it_takes_back(pointer: Pointer, tmp_path: Path) -> None:
    store, watched, policies = EpisodeStore(tmp_path / "store"), pointer.current, pointer.folder.parent
    with pytest.raises(BadInput, match="no episode store"):
        run("canary", "--policies", policies, "--store", store.path)
    for _ in range(3):
        assert watched is not None
        writer = EpisodeWriter(store, task=TASK, robot="panda_suction", cameras=[], policy_id=watched)
        writer.close({"reward": 0.0, "solved": False})
    line = json.loads(run("canary", "--policies", policies, "--store", store.path, "--watch", "--json", code=1))
    assert (line["word"], line["checkpoint"], line["now"]) == ("rolled back", watched, pointer.current)
    assert "no promoted policy is watched" in run("canary", "--policies", policies, "--store", store.path)


def test_lineage_of_a_checkpoint_and_of_an_episode(pointer: Pointer) -> None:
    policies = pointer.folder.parent
    assert pointer.current is not None
    line = json.loads(run("lineage", pointer.current, "--policies", policies, "--json"))["line"]
    assert [(a["checkpoint_id"], a["episodes"]) for a in line] == [(pointer.current, ["a"]), (pointer.former, [])]
    seen = json.loads(run("lineage", "a", "--policies", policies, "--json"))["seen_by"]
    assert seen == [{"task": TASK, "checkpoint_id": pointer.current, "use": "in use"}]
    assert "learnt from it" in run("lineage", "a", "--policies", policies)
    with pytest.raises(BadInput, match="give --store"):
        run("lineage", "b", "--policies", policies)


def test_forgetting_what_is_deleted_already_tells_who_still_holds_it(pointer: Pointer, tmp_path: Path) -> None:
    arguments = ["--store", tmp_path / "store", "--policies", pointer.folder.parent]
    assert f"{pointer.current} (in use) still holds" in run("forget", "a", *arguments)
    with pytest.raises(BadInput, match="no episode 'b'"):
        run("forget", "b", *arguments)


def test_the_gate_explains_a_refusal(pointer: Pointer) -> None:
    candidate = pointer.add(random_checkpoint("", seed=3, config=TINY))
    arguments = [candidate, "--policies", pointer.folder.parent, "--scenes", 0]
    assert "nothing to judge it by" in run("gate", *arguments, code=1)
    line = json.loads(run("gate", *arguments, "--json", code=1))
    assert (line["decision"], line["candidate"]) == ("refused", candidate.name)
    assert pointer.history()[-1]["event"] == "refused"


def test_a_candidate_that_never_ran_in_the_shadow_is_told_how(pointer: Pointer) -> None:
    with pytest.raises(BadInput, match="never ran in the shadow"):
        run("shadow", "abc", "--policies", pointer.folder.parent, "--task", TASK)


def test_rollback_from_the_command_line(pointer: Pointer) -> None:
    before, former = pointer.current, pointer.former
    line = json.loads(run("rollback", "--policies", pointer.folder.parent, "--task", TASK, "--json"))
    assert line == {"task": TASK, "current": former, "former": before, "encoder": {"id": "", "name": ""}}


def test_learning_begins_with_a_checkpoint_of_ones_own(tmp_path: Path) -> None:
    mine = random_checkpoint("", seed=1, config=TINY)
    folder = Pointer(tmp_path / "elsewhere", TASK).add(mine)
    arguments = ["begin", folder, "--policies", tmp_path / "policies"]
    with pytest.raises(BadInput, match=f"for task '{TASK}', not 'stacking'"):
        run(*arguments, "--task", "stacking")
    line = json.loads(run(*arguments, "--task", TASK, "--json"))
    assert line == {"task": TASK, "current": mine.checkpoint_id, "encoder": {"id": "", "name": ""}}
    with pytest.raises(BadInput, match=f"{mine.checkpoint_id} is in use"):
        run(*arguments)
    assert f"learning begins with {mine.checkpoint_id}" in run("begin", folder, "--policies", tmp_path / "more")
    assert len(Pointer(tmp_path / "policies", TASK).history()) == 1

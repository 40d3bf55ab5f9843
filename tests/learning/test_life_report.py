"""The page of a policy's life tells what was in use when, why, and on which data."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learning.work import TASK, log_episode
from policies.stubs import TINY, random_checkpoint

from embodied_vision.cli.life_report import command
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.life_report import outcomes_of, read_life, read_streams, tasks_of
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.watch import Journal

STREAM: dict[str, Any] = {
    "method": "replay",
    "order": 1,
    "tasks": ["stack-block-pyramid", TASK],
    "success": [[0.9], [0.85, 0.95]],
    "replay_bytes": 2_500_000,
    **{
        name: {"value": value, "low": value - 0.1, "high": value + 0.1}
        for name, value in zip(("fwt", "nbt", "auc"), (0.7, 0.05, 0.8), strict=True)
    },
}


@pytest.fixture
def pointer(tmp_path: Path) -> Pointer:
    """A first policy, one that learnt two episodes of its work, one that was refused, and the first again."""
    pointer = Pointer(tmp_path / "policies", TASK)
    first, second, third = (random_checkpoint("", seed=seed, config=TINY) for seed in (1, 2, 3))
    second = replace(second, training={"episodes": ["e1", "e2"], "parent": first.checkpoint_id, "minutes": 3.25})
    for checkpoint in (first, second, third):
        pointer.add(checkpoint)
    pointer.promote(first.checkpoint_id, "where learning starts")
    pointer.promote(second.checkpoint_id, "better on 100 <scenes>")
    pointer.log("refused", third.checkpoint_id, second.checkpoint_id, "worse by 12.0")
    pointer.rollback("it drops things")
    return pointer


def test_a_life_tells_what_was_in_use_and_what_it_learnt(pointer: Pointer, tmp_path: Path) -> None:
    journal = Journal(pointer.folder)
    journal.fail(journal.begin(["e3"]), "the disk is full")
    store = EpisodeStore(tmp_path / "store")
    first = pointer.current or ""
    for reward in (1.0, 1.0, 0.2):
        log_episode(store, policy_id=first, reward=reward)
    life = read_life(pointer.folder.parent, TASK, outcomes_of(store, TASK))
    assert {event: life.count(event) for event in ("promoted", "refused", "rolled back", "failed")} == {
        "promoted": 2,
        "refused": 1,
        "rolled back": 1,
        "failed": 1,
    }
    stages = {stage.checkpoint: stage for stage in life.stages}
    assert [stage.in_use for stage in life.stages] == [name == first for name in stages]
    assert (stages[first].episodes, stages[first].solved) == (3, 2)
    learnt = stages[pointer.former or ""]
    assert (learnt.new_episodes, learnt.parent, learnt.minutes) == (["e1", "e2"], first, 3.25)


def test_the_page_needs_no_other_file_and_says_why(
    pointer: Pointer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, stream, page = EpisodeStore(tmp_path / "store"), tmp_path / "lifelong.jsonl", tmp_path / "life.html"
    log_episode(store, policy_id=pointer.current or "")
    stream.write_text(json.dumps(STREAM) + "\n", encoding="utf-8")
    command(pointer.folder.parent, page, None, store.path, stream, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["tasks"][TASK]["promoted"] == 2
    text = page.read_text(encoding="utf-8")
    for words in ("it drops things", "worse by 12.0", "better on 100 &lt;scenes&gt;", "1 of 1", "0.700", "2.50 MB"):
        assert words in text, words
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_checkpoint_that_is_gone_does_not_hide_the_rest(pointer: Pointer, tmp_path: Path) -> None:
    (pointer.path(pointer.former or "") / "manifest.json").unlink()
    life = read_life(pointer.folder.parent, TASK, {})
    assert [bool(stage.missing) for stage in life.stages].count(True) == 1
    page = tmp_path / "life.html"
    command(pointer.folder.parent, page, TASK, None, None, as_json=False)
    assert "manifest.json is missing" in page.read_text(encoding="utf-8")


def test_wrong_folders_and_files_are_refused(pointer: Pointer, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no policy; "):
        tasks_of(tmp_path)
    with pytest.raises(BadInput, match="no policy of 'sorting'; there are block-insertion"):
        command(pointer.folder.parent, tmp_path / "life.html", "sorting", None, None, as_json=False)
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"method": "replay"}\n', encoding="utf-8")
    with pytest.raises(BadInput, match="line 1 lacks order, tasks, success"):
        read_streams(wrong)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match="cannot be written"):
        command(pointer.folder.parent, tmp_path / "file" / "life.html", None, None, None, as_json=False)


def test_a_method_that_learns_all_at_once_has_one_row(tmp_path: Path) -> None:
    joint = {key: value for key, value in STREAM.items() if key not in ("fwt", "nbt", "auc")}
    path = tmp_path / "lifelong.jsonl"
    path.write_text(json.dumps({**joint, "method": "joint", "success": [[0.9, 0.8]]}) + "\n", encoding="utf-8")
    assert read_streams(path)[0]["matrix"] == [("all of them", [0.9, 0.8])]

"""A stream of tasks is done cell by cell, each once, and its page says what came of it."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learning.continual.worlds import CONFIG, TINY, dataset

from embodied_vision import locks
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning import json_lines, provenance
from embodied_vision.learning.continual import stream as streams
from embodied_vision.learning.continual.methods import METHODS
from embodied_vision.learning.continual.page import BEGIN, END, write_page
from embodied_vision.learning.continual.stream import Stream, StreamConfig
from embodied_vision.learning.dataset import Dataset
from embodied_vision.learning.scene_results import SceneResult
from embodied_vision.policies import checkpoint as checkpoints

SEEN = 100_000


class Tried:
    """Stands in for simulated scenes: remembers which policies were tried, and solves every other scene."""

    def __init__(self) -> None:
        self.policies: list[str] = []

    def __call__(self, task: str, checkpoint: Path, seeds: Sequence[int], **_: Any) -> list[SceneResult]:
        assert checkpoints.load(checkpoint).task == task
        self.policies.append(f"{checkpoint.parent.parent.name}/{checkpoint.parent.name}/{checkpoint.name}")
        return [SceneResult(seed, float(seed % 2), seed % 2 == 1, 1) for seed in seeds]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    def data(_: Stream, task: str) -> Dataset:
        return dataset(task)

    def seen(_: Stream, tasks: Sequence[str]) -> int:
        return SEEN * len(tasks)

    found = Tried()
    monkeypatch.setattr(streams, "evaluate", found)
    monkeypatch.setattr(provenance, "git_commit", lambda: "commit")  # asks git for every policy
    monkeypatch.setattr(Stream, "_dataset", data)
    monkeypatch.setattr(Stream, "_seen_bytes", seen)
    return found


def config(folder: Path, **changes: Any) -> StreamConfig:
    update = replace(CONFIG, train=replace(CONFIG.train, steps=1))
    usual = StreamConfig(
        work=folder / "work",
        results=folder / "lifelong.jsonl",
        tasks=("insert", "aside"),
        update=replace(update, checkpoints=1),
        network=TINY,
        encoder="none",
        scenes=4,
    )
    return replace(usual, **changes)


def test_every_cell_is_done_once_and_a_stream_goes_on_after_the_last_one(tmp_path: Path, tried: Tried) -> None:
    settings = config(tmp_path)
    stream = Stream(settings)
    first = next(iter(stream.run(METHODS["product"], 0)))  # and then the process dies
    assert first[0].name == "product/0/0-insert"
    assert [fresh for _, _, fresh in Stream(settings).run(METHODS["product"], 0)] == [False, True]
    tries = list(tried.policies)
    assert tries == ["0-insert/during/0", "0-insert/after/insert"] + [
        f"1-aside/{policy}" for policy in ("during/0", "after/insert", "after/aside")
    ]
    assert [fresh for _, _, fresh in Stream(settings).run(METHODS["product"], 0)] == [False, False]
    assert tried.policies == tries
    lines = json_lines.read(settings.results)
    assert [line["cell"] for line in lines] == ["product/0/0-insert", "product/0/1-aside"]
    last = lines[-1]
    assert last["success"] == [[0.5], [0.5, 0.5]]
    assert (last["nbt"]["value"], last["fwt"]["value"], last["auc"]["value"]) == (0.0, 0.5, 0.5)
    assert 0 < last["replay_bytes"] <= settings.update.replay_share * 2 * SEEN
    assert last["replay_bytes"] == (settings.work / "product/0/1-aside/replay.bin").stat().st_size
    assert len(last["train_minutes"]) == 2


def test_a_full_disk_is_told_and_the_same_command_goes_on(
    tmp_path: Path, tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    stream = Stream(config(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(streams.Buffer, "save", full)
        with pytest.raises(RunFailed, match=r"product/0/0-insert stopped at a file in .*No space left"):
            next(iter(stream.run(METHODS["product"], 0)))
    assert next(iter(stream.run(METHODS["product"], 0)))[2]


def test_other_scenes_are_tried_without_learning_again_and_other_settings_are_refused(
    tmp_path: Path, tried: Tried
) -> None:
    settings = config(tmp_path)
    (_, before, _), _ = Stream(settings).run(METHODS["sequential"], 0)
    tries = len(tried.policies)
    (_, after, fresh), _ = Stream(replace(settings, scenes=6)).run(METHODS["sequential"], 0)
    assert (after["checkpoint_id"], after["scenes"], fresh) == (before["checkpoint_id"], 6, True)
    assert len(tried.policies) == 2 * tries
    with pytest.raises(BadInput, match="was learnt with other update"):
        list(Stream(replace(settings, update=replace(settings.update, ewc=3.0))).run(METHODS["sequential"], 0))
    with pytest.raises(BadInput, match="name each once"):
        Stream(replace(settings, tasks=("insert", "insert")))


def test_orders_are_drawn_and_tasks_at_once_are_one_cell(tmp_path: Path, tried: Tried) -> None:
    settings = config(tmp_path)
    many = replace(settings, tasks=tuple("abcdefg"))
    assert many.order(0) == many.tasks
    assert sorted(many.order(1)) == sorted(many.order(2)) == list("abcdefg")
    assert len({many.order(0), many.order(1), many.order(2)}) == 3
    assert many.order(1) == many.order(1)
    ((_, line, _),) = Stream(settings).run(METHODS["multitask"], 0)
    assert line["success"] == [[0.5, 0.5]]
    assert tried.policies == ["1-aside/after/insert", "1-aside/after/aside"]


def test_the_page_has_a_row_for_every_stream_and_its_figure(tmp_path: Path) -> None:
    interval = {"value": 0.25, "low": 0.125, "high": 0.375}
    line = {
        "method": "er",
        "order": 0,
        "tasks": ["insert", "aside"],
        "tasks_in_all": 2,
        "success": [[1.0], [0.5, 0.75]],
        "train_cpu_minutes": [1.0, 2.0],
        "replay_bytes": 777,
        "replay_share": 0.041,
        "scenes": 4,
        "split": "test",
        "seeds": [2000000, 2000003],
        "demos": 2,
        "steps": 1,
        "encoder": "",
        "git_commit": "abc",
        "command": "embodied-vision learn stream run",
        **dict.fromkeys(("fwt", "nbt", "auc", "final"), interval),
    }
    results, page = tmp_path / "lifelong.jsonl", tmp_path / "continual.md"
    json_lines.append(results, {**line, "tasks": ["insert"], "success": [[1.0]], "replay_bytes": 5})
    json_lines.append(results, line)
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    _, figure = write_page(results, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    rows = [row for row in text.splitlines() if row.startswith("| er |")]
    assert rows == [
        "| er | 0 | 2 of 2 | 0.250 (0.125 to 0.375) | 0.250 (0.125 to 0.375) | 0.250 (0.125 to 0.375) | "
        "0.250 (0.125 to 0.375) | 777 (4.1 %) | 1.5 |"
    ]
    assert "| aside | 50 | 75 |" in text
    assert "<svg" in figure.read_text(encoding="utf-8")
    first = page.read_text(encoding="utf-8"), figure.read_bytes()
    write_page(results, page)
    assert (page.read_text(encoding="utf-8"), figure.read_bytes()) == first
    page.write_text("no section", encoding="utf-8")
    with pytest.raises(BadInput, match="no section between"):
        write_page(results, page)
    with pytest.raises(BadInput, match="no results"):
        write_page(tmp_path / "none.jsonl", page)


def test_a_damaged_cell_and_a_second_run_are_told(tmp_path: Path) -> None:
    settings = config(tmp_path)
    stream = Stream(settings)
    cell = stream.cells(METHODS["er"], 0)[0]
    done = settings.work / cell.name / "cell.json"
    done.parent.mkdir(parents=True)
    done.write_text(json.dumps({"settings": 1})[:-3])
    with pytest.raises(BadInput, match="cannot be read"):
        list(stream.run(METHODS["er"], 0))
    with locks.exclusive(settings.work / "lock", "test"), pytest.raises(RunFailed, match="another stream is run in"):
        list(stream.run(METHODS["er"], 0))

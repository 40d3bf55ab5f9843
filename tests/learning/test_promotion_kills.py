"""Killed at any moment, a pointer leads to a whole checkpoint, its history tells of it, and the next one goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from policies.stubs import TINY, random_checkpoint

from embodied_vision.errors import RunFailed
from embodied_vision.learning.promotion import Pointer
from embodied_vision.policies import checkpoint as checkpoints

TASK = "block-insertion"
FIRST, SECOND, THIRD = (random_checkpoint("", seed=seed, config=TINY) for seed in (1, 2, 3))
STEPS = frozenset({"os.rename", "os.symlink", "os.mkdir", "os.rmdir", "os.remove"})


def in_a_child(work: Callable[[], None], at: int) -> bool:
    """Do work in a process that is killed before its `at`-th change of the file system; whether it got to the end."""
    pid = os.fork()
    if pid == 0:
        left = at

        def count(event: str, args: tuple[object, ...]) -> None:
            nonlocal left
            if event in STEPS or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFEXITED(status)


def check(folder: Path, *may_be: str | None) -> None:
    """What must hold whenever a process was killed."""
    pointer = Pointer(folder, TASK)
    assert pointer.current in may_be
    if pointer.current is not None:
        assert checkpoints.load(pointer.path(pointer.current)).checkpoint_id == pointer.current
        assert pointer.history()[-1]["candidate"] == pointer.current
    if (pointer.folder / "current").is_symlink():
        assert checkpoints.load(pointer.folder / "current").checkpoint_id == pointer.current
    if pointer.former is not None:
        checkpoints.load(pointer.path(pointer.former))
    for checkpoint_id in pointer.stored():
        checkpoints.load(pointer.path(checkpoint_id))


def test_killed_before_every_change_of_the_file_system(tmp_path: Path) -> None:
    """A candidate is stored and promoted, then rolled back, then promoted again by the next process."""
    ids = [checkpoint.checkpoint_id for checkpoint in (FIRST, SECOND, THIRD)]
    starts = [tmp_path / "without a former one", tmp_path / "with one"]
    for number, start in enumerate(starts):
        pointer = Pointer(start, TASK)
        for checkpoint in (THIRD, FIRST)[1 - number :]:
            pointer.promote(pointer.add(checkpoint).name, "start")
    for at in range(200):
        folder = tmp_path / str(at)
        shutil.copytree(starts[at % 2], folder, symlinks=True)

        def work(folder: Path = folder) -> None:
            pointer = Pointer(folder, TASK)
            pointer.promote(pointer.add(SECOND).name, "better")
            pointer.rollback("worse")

        ended = in_a_child(work, at)
        check(folder, *ids[:2])
        before = Pointer(folder, TASK).history()
        pointer = Pointer(folder, TASK)
        pointer.promote(pointer.add(SECOND).name, "again")
        check(folder, ids[1])
        lines = [json.loads(line) for line in (folder / TASK / "history.jsonl").read_text().splitlines()]
        assert lines[: len(before)] == before
        assert {line["release"] for line in lines} == {entry.name for entry in (folder / TASK / "releases").iterdir()}
        if ended:
            break
    assert ended
    assert at > 20, "the work has more steps than that"


def test_killed_at_any_time(tmp_path: Path) -> None:
    ids = [checkpoint.checkpoint_id for checkpoint in (FIRST, SECOND)]
    pointer, rng = Pointer(tmp_path, TASK), random.Random(0)
    pointer.add(SECOND)
    pointer.promote(pointer.add(FIRST).name, "start")
    for _ in range(12):
        before = len(pointer.history())
        pid = os.fork()
        if pid == 0:
            while True:
                mine = Pointer(tmp_path, TASK)
                mine.promote(ids[1], "better")
                checkpoints.save(SECOND, mine.path(ids[1]))  # takes the place of its like
                mine.rollback("worse")
        while len(pointer.history()) == before:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.03))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        check(tmp_path, *ids)


def test_a_full_disk_leaves_the_pointer_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pointer = Pointer(tmp_path, TASK)
    first, second = (pointer.add(checkpoint).name for checkpoint in (FIRST, SECOND))
    pointer.promote(first, "start")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("embodied_vision.learning.promotion.os.fsync", full)
    with pytest.raises(RunFailed, match=f"No space left on device.*{first} is in use"):
        pointer.promote(second, "better")
    monkeypatch.undo()
    check(tmp_path, first)
    pointer.promote(second, "better")
    check(tmp_path, second)

"""The pointer always names a whole checkpoint, the former one is kept, and a damaged one is never put to use."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from policies.stubs import TINY, random_checkpoint

from embodied_vision.errors import BadInput, CheckpointError, RunFailed
from embodied_vision.learning.promotion import Pointer
from embodied_vision.policies import checkpoint as checkpoints

TASK = "block-insertion"


def stored(pointer: Pointer, seed: int) -> str:
    return pointer.add(random_checkpoint("", seed=seed, config=TINY)).name


def test_promotion_keeps_the_former_and_rollback_goes_back(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    first, second = stored(pointer, 1), stored(pointer, 2)
    pointer.promote(first, "start")
    assert (pointer.current, pointer.former) == (first, None)
    pointer.promote(second, "better")
    assert (pointer.current, pointer.former) == (second, first)
    assert checkpoints.load(tmp_path / TASK / "current").checkpoint_id == second
    assert pointer.rollback() == first
    assert (pointer.current, pointer.former) == (first, second)
    events = [(line["event"], line["candidate"], line["baseline"]) for line in pointer.history()]
    assert [line["release"] for line in pointer.history()] == [f"{i + 1:04d}-{c}" for i, (_, c, _) in enumerate(events)]
    assert events == [("promoted", first, None), ("promoted", second, first), ("rolled back", first, second)]


def test_a_reader_sees_one_or_the_other_at_any_time(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    both = [stored(pointer, 1), stored(pointer, 2)]
    pointer.promote(both[0], "start")
    seen: set[str] = set()
    failures: list[Exception] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                seen.add(checkpoints.read_manifest(tmp_path / TASK / "current")["checkpoint_id"])
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(20):
        pointer.promote(both[(turn + 1) % 2], "swap")
    over.set()
    reader.join(10)
    assert not failures
    assert seen <= set(both)


def test_a_damaged_candidate_is_not_promoted(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    good, bad = stored(pointer, 1), stored(pointer, 2)
    pointer.promote(good, "start")
    (pointer.path(bad) / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        pointer.promote(bad, "better")
    assert pointer.current == good


def test_rollback_without_a_former_one_is_refused(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    pointer.promote(stored(pointer, 1), "start")
    with pytest.raises(BadInput, match="nothing to roll back to"):
        pointer.rollback()


def test_two_learners_do_not_work_at_once(tmp_path: Path) -> None:
    with Pointer(tmp_path, TASK).locked(), pytest.raises(RunFailed, match="another learner"):
        with Pointer(tmp_path, TASK).locked():
            pass


def test_a_rollback_does_not_wait_for_a_learner(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    first = stored(pointer, 1)
    pointer.promote(first, "start")
    pointer.promote(stored(pointer, 2), "better")
    with pointer.locked():
        assert Pointer(tmp_path, TASK).rollback() == first


def test_thresholds_change_with_the_checkpoint(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    pointer.promote(stored(pointer, 1), "start")
    assert pointer.release["thresholds"] == {}
    pointer.promote(stored(pointer, 2), "better", thresholds={"canary": {"episodes": 5}})
    assert pointer.release["thresholds"] == {"canary": {"episodes": 5}}
    pointer.rollback()
    assert pointer.release["thresholds"] == {}


def test_a_swap_over_another_checkpoint_than_expected_is_refused(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    first, second, third = (stored(pointer, seed) for seed in (1, 2, 3))
    pointer.promote(first, "start")
    pointer.promote(second, "by hand")
    with pytest.raises(RunFailed, match=f"{second} is in use"):
        pointer.promote(third, "better", expected=first)
    with pytest.raises(RunFailed, match="nothing was changed"):
        pointer.rollback(expected=first)
    assert (pointer.current, pointer.former) == (second, first)


def test_links_of_the_earlier_layout_are_taken_over(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    first, second, third = (stored(pointer, seed) for seed in (1, 2, 3))
    for name, target in (("current", second), ("former", first)):
        (pointer.folder / name).symlink_to(Path("checkpoints") / target)
    assert (pointer.current, pointer.former) == (second, first)
    pointer.promote(third, "better")
    assert (pointer.current, pointer.former) == (third, second)
    assert [line["event"] for line in pointer.history()] == ["adopted", "promoted"]
    assert pointer.rollback() == second


def test_a_stored_checkpoint_is_not_written_again(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    checkpoint = random_checkpoint("", seed=1, config=TINY)
    inode = pointer.add(checkpoint).stat().st_ino
    assert pointer.add(checkpoint).stat().st_ino == inode
    (pointer.path(checkpoint.checkpoint_id) / "model.safetensors").write_bytes(b"cut short")
    assert checkpoints.load(pointer.add(checkpoint)).checkpoint_id == checkpoint.checkpoint_id


def test_a_folder_that_is_none_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing to roll back to"):
        Pointer(tmp_path / "typo", TASK).rollback()
    assert not (tmp_path / "typo").exists()
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        Pointer(tmp_path / "file", TASK).log("refused", "", None, "because")


def test_a_damaged_release_leaves_the_way_back_open(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    first, second = stored(pointer, 1), stored(pointer, 2)
    pointer.promote(first, "start")
    pointer.promote(second, "better")
    (pointer.folder / "in_use" / "release.json").write_text('{"time":')
    assert (pointer.current, pointer.release) == (second, {})
    assert pointer.rollback() == first
    assert [line["event"] for line in pointer.history()] == ["promoted", "promoted", "rolled back"]

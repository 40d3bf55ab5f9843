"""A disk that is full, read-only, failing or gone: the caller is told where, and nothing acknowledged is lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.background import BackgroundWriter, Room
from embodied_vision.episodes.journal import JournalWriter
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.space import SpaceWatch, free_bytes
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import EmbodiedVisionError, EpisodeError

from .faults import Call, watched
from .samples import Child, assert_holds, make_camera, make_frame

FRAMES = 3


def write(store: EpisodeStore, frames: int, told: Callable[[], None], close: bool = True) -> None:
    """One episode; `told` is called for every frame that was acknowledged."""
    camera = make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:
        for number in range(frames):
            writer.append_frame(make_frame(camera, number))
            told()
        if close:
            writer.close({"reward": 1.0})


def assert_nothing_is_lost(store: EpisodeStore, acknowledged: int) -> None:
    """`repair` brings one episode with all acknowledged frames, or there was none to bring."""
    assert [r for r in repair(store) if r.state not in ("recovered", "empty")] == []
    assert store.staging_ids() == []
    if acknowledged:
        (episode_id,) = store.ids()
        assert_holds(store.open(episode_id), acknowledged)
    assert all(report.ok for report in verify(store))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_call_names_the_path_and_loses_nothing(tmp_path: Path, number: int) -> None:
    def failed_at(store: EpisodeStore, step: int) -> bool:
        count = acknowledged = 0

        def around(call: Call, do: Callable[[], Any], half: Callable[[], Any]) -> Any:
            nonlocal count
            count += 1
            if count - 1 != step:
                return do()
            if call.name == "write" and number == errno.ENOSPC:
                half()
            raise OSError(number, os.strerror(number), call.paths[0])

        def told() -> None:
            nonlocal acknowledged
            acknowledged += 1

        error: EpisodeError | None = None
        with watched(around):
            try:
                write(store, FRAMES, told)
            except EpisodeError as raised:
                error = raised
        if count > step and error is not None:
            assert str(store.path) in str(error)
            assert os.strerror(number) in str(error)
            assert any(remedy in str(error) for remedy in ("free space", "check the path"))
        if error is None:
            assert acknowledged == FRAMES
        assert_nothing_is_lost(store, acknowledged)
        return count > step

    step = 0
    while failed_at(EpisodeStore(tmp_path / str(step)), step):
        step += 1 if step < 12 else 7
    assert step > 100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB, where this is permitted."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def remount(path: Path, options: str) -> None:
    """Change a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


def test_a_disk_that_is_really_full_keeps_what_it_took(small_disk: Path) -> None:
    store, acknowledged = EpisodeStore(small_disk / "store"), 0

    def told() -> None:
        nonlocal acknowledged
        acknowledged += 1

    with pytest.raises(EpisodeError, match=rf"{store.path}.*No space left on device.*free space"):
        write(store, 100_000, told)
    assert acknowledged > 100
    with pytest.raises(EpisodeError, match=rf"{store.path}.*No space left on device"):
        repair(store)
    assert free_bytes(store.path) < 100_000
    remount(small_disk, "size=64m")
    assert free_bytes(store.path) > 50_000_000
    assert_nothing_is_lost(store, acknowledged)


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    store = EpisodeStore(small_disk / "store")
    write(store, 1, lambda: None)
    remount(small_disk, "ro")
    with pytest.raises(EpisodeError, match=rf"{store.path}.*Read-only file system.*check the path"):
        write(store, 1, lambda: None)
    assert len(store.ids()) == 1
    assert verify(store)[0].ok


def test_a_file_that_may_not_grow_any_more_keeps_what_it_took(tmp_path: Path) -> None:
    """As a quota does. In a process of its own: the limit holds for all its files."""
    store = EpisodeStore(tmp_path)
    reading, writing = os.pipe()

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        with pytest.raises(EpisodeError, match=rf"{store.path}.*File too large"):
            write(store, 1000, lambda: os.write(writing, b"."))

    with Child(work) as child:
        assert child.wait() == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as acknowledged:
        assert_nothing_is_lost(store, len(acknowledged.read()))


def test_a_store_that_is_no_folder_or_whose_parent_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(EpisodeError, match=str(path)):
            write(EpisodeStore(path), 1, lambda: None)


def test_after_a_failed_sync_nothing_is_acknowledged_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports an error of the disk once and then calls the lost pages clean."""
    journal = JournalWriter(tmp_path / "journal", sync_period_s=0.0)
    journal.append({"kind": "note", "name": "x", "value": 1})
    errors = [OSError(errno.EIO, "Input/output error")]

    def fails_once(fd: int) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(os, "fdatasync", fails_once)
    for _ in range(3):
        with pytest.raises(EpisodeError, match=r"journal cannot be written \(Input/output error\)"):
            journal.append({"kind": "note", "name": "x", "value": 1})
    assert errors == []
    journal.release()


def test_a_journal_that_was_removed_takes_nothing(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path / "journal", sync_period_s=0.0)
    journal.append({"kind": "note", "name": "x", "value": 1})
    (tmp_path / "journal").unlink()
    with pytest.raises(EpisodeError, match="removed while it was written"):
        journal.append({"kind": "note", "name": "x", "value": 1})
    journal.release()


def test_whoever_logs_in_the_background_is_told_once_and_may_begin_again(tmp_path: Path) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    errors: list[EmbodiedVisionError] = []
    ended: list[str] = []
    full = threading.Event()
    acknowledged = 0

    def around(call: Call, do: Callable[[], Any], half: Callable[[], Any]) -> Any:
        if call.name == "write" and full.is_set():
            half()
            raise OSError(errno.ENOSPC, "No space left on device")
        return do()

    writer = BackgroundWriter(Room(), errors.append)

    def begin() -> None:
        writer.begin(
            lambda: EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless"),
        )

    with watched(around):
        begin()
        for number in range(5):
            writer.frame(make_frame(camera, number))
        until(lambda: writer.written.frames == 5)
        acknowledged = writer.written.frames
        full.set()
        for number in range(5, 30):
            writer.frame(make_frame(camera, number))
            writer.sample("s", number, [1.0])
        writer.end({}, ended.append)
        until(lambda: errors and writer.load.bytes_waiting == 0)
        full.clear()
        begin()
        writer.frame(make_frame(camera, 0))
        writer.end({}, ended.append)
        writer.close()
    assert len(errors) == 1
    assert str(store.staging_path) in str(errors[0])
    assert len(ended) == 1
    (cut,) = store.staging_ids()
    assert repair(store)[0].state == "recovered"
    assert_holds(store.open(cut), acknowledged)


def until(done: Callable[[], object]) -> None:
    """Wait until `done`, at most 20 s."""
    ended = time.monotonic() + 20
    while not done():
        assert time.monotonic() < ended
        time.sleep(0.001)


def test_a_store_that_is_taken_away_or_replaced_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "store"
    lost: list[EpisodeError] = []
    watch = SpaceWatch(path, lost.append, period_s=0.01)
    try:
        write(EpisodeStore(path), 1, lambda: None)
        watch.remember()
        time_to_look(watch)
        assert lost == []
        path.rename(tmp_path / "elsewhere")
        until(lambda: lost)
        assert f"{path} was taken away or replaced" in str(lost[0])
        shutil.copytree(tmp_path / "elsewhere", path)
        time_to_look(watch)
        count = len(lost)
        path.rename(tmp_path / "third")
        shutil.copytree(tmp_path / "elsewhere", path)
        until(lambda: len(lost) > count)
    finally:
        watch.stop()


def time_to_look(watch: SpaceWatch) -> None:
    """Wait until the watch has looked again."""
    watch.free_bytes = -1
    until(lambda: watch.free_bytes >= 0)
    watch.free_bytes = -1
    until(lambda: watch.free_bytes >= 0)


def test_free_space_of_a_store_that_is_still_to_be_made(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") == pytest.approx(free_bytes(tmp_path), rel=0.05)

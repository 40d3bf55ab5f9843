"""Writers that are killed, and many at once. Real processes, real SIGKILL."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.journal import JournalReader
from embodied_vision.episodes.repair import INTERRUPTED, repair
from embodied_vision.episodes.verify import verify

from .samples import Child, assert_holds, fill, make_action, make_camera, make_frame, write_episode


def write_for_ever(store: EpisodeStore, report: int, frames: int) -> None:
    """Write episodes of `frames` frames; tell of each acknowledged call by one line."""
    camera = make_camera()
    while True:
        writer = EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless")
        os.write(report, f"start {writer.id}\n".encode())
        for number in range(frames):
            writer.append_frame(make_frame(camera, number))
            os.write(report, f"frame {writer.id}\n".encode())
        writer.close({"reward": 1.0})
        os.write(report, f"closed {writer.id}\n".encode())


@pytest.mark.parametrize("seed", range(6))
def test_killed_writer_loses_nothing_that_was_acknowledged(tmp_path, seed: int) -> None:
    store = EpisodeStore(tmp_path)
    rng = random.Random(seed)
    reading, writing = os.pipe()
    with Child(lambda: write_for_ever(store, writing, frames=40)) as child, os.fdopen(reading) as reports:
        lines = [reports.readline() for _ in range(rng.randrange(1, 120))]
        time.sleep(rng.uniform(0, 0.02))  # to be killed anywhere, not just after an acknowledgement
        child.kill()
        os.close(writing)
        lines += reports.readlines()
    frames: dict[str, int] = {}
    closed = set()
    for line in lines:
        if not line.endswith("\n"):
            continue
        what, episode_id = line.split()
        frames[episode_id] = frames.get(episode_id, 0) + (what == "frame")
        if what == "closed":
            closed.add(episode_id)

    assert closed <= set(store.ids())
    repair(store)
    assert store.staging_ids() == []
    assert all(report.ok for report in verify(store))
    assert set(frames) <= set(store.ids())
    for episode_id, count in frames.items():
        episode = store.open(episode_id)
        assert count <= len(episode.frames("camera")) <= count + 1
        assert_holds(episode, len(episode.frames("camera")))
        assert episode.outcome in (INTERRUPTED, {"reward": 1.0})
        if episode_id in closed:
            assert episode.outcome == {"reward": 1.0}


def test_killed_at_any_step_of_closing_the_episode_comes_whole(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill at the n-th system call that changes the disk, for n over all of `close`."""
    camera = make_camera()
    calls = {name: getattr(os, name) for name in ("fsync", "rename", "rmdir", "unlink", "mkdir", "fdatasync")}

    def killed_at(store: EpisodeStore, step: int) -> bool:
        def work() -> None:
            writer = EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless")
            fill(writer, camera, frames=2)
            left = step
            for name, call in calls.items():

                def counted(*args, call=call, **kwargs):
                    nonlocal left
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return call(*args, **kwargs)

                monkeypatch.setattr(os, name, counted)
            writer.close({"reward": 1.0})

        with Child(work) as child:
            code = child.wait()
        assert code in (0, -signal.SIGKILL)
        return code != 0

    step, rounds = 0, 0
    while killed_at(store := EpisodeStore(tmp_path / str(step)), step):
        assert len(repair(store)) <= 1
        (episode_id,) = store.ids()
        assert store.staging_ids() == []
        assert verify(store)[0].ok
        assert_holds(store.open(episode_id), 2)
        assert len(store.open(episode_id).decisions) == 1
        step += 1 if step < 3 else 12
        rounds += 1
    assert rounds > 10


def test_repair_leaves_living_writers_alone(tmp_path) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:
        fill(writer, camera, frames=3)
        assert [result.state for result in repair(store)] == ["writing"]
        writer.append_frame(make_frame(camera, 3))
        writer.close({"reward": 1.0})
    assert_holds(store.open(writer.id), 4)
    assert repair(store) == []


def test_writers_and_repairs_side_by_side_do_not_disturb_each_other(tmp_path) -> None:
    store = EpisodeStore(tmp_path)
    each = 6

    def write() -> None:
        for _ in range(each):
            write_episode(store, frames=3)

    def repair_for_ever() -> None:
        while True:
            repair(store)

    with Child(repair_for_ever), Child(repair_for_ever), Child(write) as first, Child(write) as second:
        assert (first.wait(), second.wait()) == (0, 0)
    assert len(store.ids()) == 2 * each
    assert all(report.ok for report in verify(store))
    for episode_id in store.ids():
        episode = store.open(episode_id)
        assert episode.outcome == {"reward": 1.0, "solved": True}
        assert_holds(episode, 3)


def released(store: EpisodeStore, frames: int = 4) -> Path:
    """The journal of an episode whose writer let go of it."""
    camera = make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:
        for number in range(frames):
            writer.append_frame(make_frame(camera, number))
    return store.staging_path / writer.id / "journal"


def test_episode_that_was_let_go_is_brought_back_as_interrupted(tmp_path) -> None:
    store = EpisodeStore(tmp_path)
    journal = released(store)
    (result,) = repair(store)
    assert (result.id, result.state, result.records) == (journal.parent.name, "recovered", 5)
    assert_holds(store.open(result.id), 4)
    assert store.open(result.id).outcome == {"interrupted": True, "solved": False, "reward": 0.0}
    assert not store.quarantine_path.exists()


@pytest.mark.parametrize("kept", [1, 3, 10, 40, 500, -1])
def test_half_a_record_at_the_end_is_left_out(tmp_path, kept: int) -> None:
    store = EpisodeStore(tmp_path)
    journal = released(store)
    with JournalReader(journal) as reader:
        offset, size = reader.records[-2].blobs[-1]
    data = journal.read_bytes()
    last = data[offset + size :]
    journal.write_bytes(data[: offset + size] + last[:kept])
    assert [result.state for result in repair(store)] == ["recovered"]
    assert_holds(store.open(journal.parent.name), 3)
    assert not store.quarantine_path.exists()


def test_damage_at_the_end_is_no_half_record_and_the_journal_is_kept(tmp_path) -> None:
    store = EpisodeStore(tmp_path)
    journal = released(store)
    data = bytearray(journal.read_bytes())
    data[-10] ^= 1
    journal.write_bytes(data)
    (result,) = repair(store)
    assert "unreadable" in result.detail
    assert_holds(store.open(result.id), 3)
    assert (store.quarantine_path / result.id / "journal").read_bytes() == bytes(data)


def test_damage_in_the_middle_costs_one_record_and_the_journal_is_kept(tmp_path) -> None:
    store = EpisodeStore(tmp_path)
    journal = released(store)
    data = bytearray(journal.read_bytes())
    data[-10] ^= 1  # within the last frame
    camera = make_camera()
    tail = released(EpisodeStore(tmp_path / "other"), frames=1).read_bytes()  # good records after the damage
    journal.write_bytes(damaged := bytes(data) + tail)
    (result,) = repair(store)
    assert result.state == "recovered"
    assert "unreadable" in result.detail
    episode = store.open(result.id)
    assert [frame.stamp_ns for frame in episode.frames("camera")] == [
        make_frame(camera, number).stamp_ns for number in (0, 1, 2, 0)
    ]
    assert (store.quarantine_path / result.id / "journal").read_bytes() == damaged
    assert verify(store)[0].ok


def test_journal_without_a_header_is_kept_in_quarantine(tmp_path) -> None:
    store = EpisodeStore(tmp_path)
    journal = released(store)
    data = bytearray(journal.read_bytes())
    data[20] ^= 1
    journal.write_bytes(data)
    (result,) = repair(store)
    assert result.state == "failed"
    assert "header" in result.detail
    assert store.ids() == []
    assert (store.quarantine_path / result.id / "journal").read_bytes() == bytes(data)


def test_folder_without_a_journal_is_empty_or_left_for_a_person(tmp_path) -> None:
    store = EpisodeStore(tmp_path)
    (store.staging_path / "a").mkdir(parents=True)
    (store.staging_path / "b").mkdir()
    (store.staging_path / "b" / "journal").touch()
    (store.staging_path / "c").mkdir()
    (store.staging_path / "c" / "notes.txt").touch()
    assert [(result.id, result.state) for result in repair(store)] == [("a", "empty"), ("b", "empty"), ("c", "failed")]
    assert store.staging_ids() == ["c"]
    assert repair(EpisodeStore(tmp_path / "nowhere")) == []


def test_decision_without_frames_survives_a_crash(tmp_path) -> None:
    store = EpisodeStore(tmp_path)
    with EpisodeWriter(store, task="t", robot="r", cameras=[]) as writer:
        writer.append_decision(make_action(3), [])
    repair(store)
    assert store.open(writer.id).decisions.action(0).stamp_ns == make_action(3).stamp_ns


def test_threads_may_append_at_once(tmp_path) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:

        def log(part: int) -> None:
            for number in range(part, 80, 4):
                writer.append_frame(make_frame(camera, number))
                writer.append("joint_states", number, [float(number)])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(log, range(4)))
        writer.close({})
    frames = store.open(writer.id).frames("camera")
    assert len(frames) == 80
    for index, number in enumerate(np.argsort(np.argsort(frames.stamps_ns))):
        np.testing.assert_array_equal(frames.color(index), make_frame(camera, int(number)).color)
    stamps, values = store.open(writer.id).stream("joint_states")
    np.testing.assert_array_equal(stamps, values[:, 0])
    assert sorted(stamps) == list(range(80))

"""Whoever logs never waits for the disk, and nothing is lost in silence."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from embodied_vision import geometry
from embodied_vision.episodes.background import BackgroundWriter, Room
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import EmbodiedVisionError, EpisodeError
from embodied_vision.types import RGBD, Camera, PickPlace

CAMERA = Camera("camera", 16, 8, np.eye(3), np.eye(4))


def frame(index: int) -> RGBD:
    color = np.random.default_rng(index).integers(0, 255, (8, 16, 3)).astype(np.uint8)
    return RGBD(color, np.full((8, 16), 1.0, np.float32), CAMERA, 1000 + index)


class Log:
    """A background writer whose disk can be held up."""

    def __init__(self, path: Path, max_frames: int = 100) -> None:
        self.store = EpisodeStore(path)
        self.gate = threading.Event()
        self.gate.set()
        self.errors: list[EmbodiedVisionError] = []
        self.ended: list[str] = []
        self.writer = BackgroundWriter(Room(frames=max_frames), self.errors.append)

    def begin(self, task: str = "t") -> None:
        def make() -> EpisodeWriter:
            assert self.gate.wait(10)
            return EpisodeWriter(self.store, task=task, robot="r", cameras=[CAMERA])

        self.writer.begin(make)


def test_all_that_was_logged_before_an_end_belongs_to_its_episode(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for episode in range(3):
        log.begin(f"task-{episode}")
        for index in range(4 + episode):
            assert log.writer.frame(frame(index))
            log.writer.sample("s", index, [float(index)])
        action = PickPlace(geometry.tool_down(0, 0, 0), geometry.tool_down(0, 0, 0), stamp_ns=1000)
        log.writer.decision(action, [frame(0)], {})
        log.writer.end({"reward": float(episode)}, log.ended.append)
    log.writer.close()
    assert log.store.ids() == log.ended
    for number, episode_id in enumerate(log.ended):
        opened = log.store.open(episode_id)
        assert opened.task == f"task-{number}"
        assert len(opened.frames("camera")) == len(opened.stream("s")[0]) == 4 + number
        assert len(opened.decisions) == 1
    assert log.writer.frames_logged == 4 + 5 + 6
    assert log.errors == []


def test_frames_that_find_no_room_are_refused_and_the_caller_is_told(tmp_path: Path) -> None:
    log = Log(tmp_path, max_frames=5)
    log.gate.clear()
    log.begin()
    taken = [log.writer.frame(frame(index)) for index in range(8)]
    assert taken == [True] * 5 + [False] * 3
    log.writer.sample("s", 1, [1.0])
    log.gate.set()
    log.writer.end({}, log.ended.append)
    log.writer.close()
    opened = log.store.open(log.ended[0])
    assert opened.frames("camera").stamps_ns.tolist() == [1000, 1001, 1002, 1003, 1004]
    assert len(opened.stream("s")[0]) == 1


def test_nothing_is_logged_outside_an_episode(tmp_path: Path) -> None:
    log = Log(tmp_path)
    assert log.writer.frame(frame(0))
    log.writer.end({}, log.ended.append)
    log.begin()
    log.writer.end({}, log.ended.append)
    log.writer.close()
    assert len(log.ended) == 1
    assert len(log.store.open(log.ended[0]).frames("camera")) == 0


def test_a_failing_episode_is_reported_and_what_it_held_stays(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.begin()
    log.writer.frame(frame(0))
    log.writer.sample("s", 1, [1.0])
    log.writer.sample("s", 2, [1.0, 2.0])
    log.writer.end({}, log.ended.append)
    log.begin("next")
    log.writer.end({}, log.ended.append)
    log.writer.close()
    assert len(log.errors) == 1
    assert "'s'" in str(log.errors[0])
    assert len(log.store.staging_ids()) == 1
    assert [log.store.open(i).task for i in log.store.ids()] == ["next"]


def test_a_store_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    log = Log(tmp_path / "file")
    log.begin()
    log.writer.close()
    assert isinstance(log.errors[0], EpisodeError)


def test_an_episode_without_an_end_stays_in_staging(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.begin()
    log.writer.frame(frame(0))
    log.writer.close()
    assert log.store.ids() == []
    assert len(log.store.staging_ids()) == 1


@pytest.mark.parametrize("count", [1, 50])
def test_close_waits_for_the_disk(tmp_path: Path, count: int) -> None:
    log = Log(tmp_path)
    log.begin()
    for index in range(count):
        log.writer.frame(frame(index))
    log.writer.end({}, log.ended.append)
    log.writer.close()
    assert log.writer.written.frames == count

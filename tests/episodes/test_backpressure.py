"""What is given up when the disk or the encoders cannot keep up, and that it is never given up in silence."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_vision import geometry
from embodied_vision.episodes.background import BackgroundWriter, Room
from embodied_vision.episodes.backpressure import MARKS, RUNGS, SPANS_KEPT, Degradation, Ladder, describe
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import EmbodiedVisionError
from embodied_vision.types import RGBD, Camera, PickPlace

from .samples import Child

LEFT, RIGHT = (Camera(name, 64, 48, np.eye(3), np.eye(4)) for name in ("left", "right"))
FRAME_BYTES = 64 * 48 * (3 + 4)


def frame(index: int, camera: Camera = LEFT) -> RGBD:
    color = np.random.default_rng(index).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    return RGBD(color, np.full((48, 64), 1.0, np.float32), camera, 1000 + index)


def until(done: Callable[[], object]) -> None:
    """Wait until `done`, at most 20 s."""
    ended = time.monotonic() + 20
    while not done():
        assert time.monotonic() < ended
        time.sleep(0.001)


class Disk:
    """Makes every write to a journal wait while it stands still."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._goes = threading.Event()
        self._goes.set()
        self.waiting = 0
        for name in ("write", "fdatasync"):
            patch.setattr(os, name, self._held(getattr(os, name)))

    def _held(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def held(*arguments: Any) -> Any:
            if threading.current_thread().name == "episode writer":
                self.waiting += 1
                assert self._goes.wait(60)
                self.waiting -= 1
            return call(*arguments)

        return held

    def stop(self) -> None:
        """Let it stand still."""
        self._goes.clear()

    def go(self) -> None:
        """Let it go on."""
        self._goes.set()


class Log:
    """A background writer on a store, and what it said."""

    def __init__(self, path: Path, room: Room) -> None:
        self.store = EpisodeStore(path)
        self.errors: list[EmbodiedVisionError] = []
        self.ended: list[str] = []
        self.writer = BackgroundWriter(room, self.errors.append)

    def begin(self, low_quality: int | None = 40, **more: Any) -> None:
        begun: list[str] = []
        self.writer.begin(
            lambda: EpisodeWriter(self.store, task="t", robot="r", cameras=[LEFT, RIGHT], **more),
            begun.append,
            low_quality=low_quality,
        )
        until(lambda: begun)

    def end(self) -> Any:
        """End the episode, wait for all and open it."""
        self.writer.end({}, self.ended.append)
        self.writer.close()
        assert self.errors == []
        return self.store.open(self.ended[-1])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.go()


def test_the_ladder_is_climbed_at_once_and_left_rung_by_rung_with_hysteresis() -> None:
    ladder, seen = Ladder(), []
    for filled in (0.4, 0.5, 0.3, 0.26, 0.25, 1.2, 0.9, 0.51, 0.5, 0.4, 0.375, 0.3, 0.25, 0.0):
        ladder.look(filled)
        seen.append(ladder.rung)
    assert seen == [0, 1, 1, 1, 0, 3, 3, 3, 2, 2, 1, 1, 0, 0]
    assert len(MARKS) == len(RUNGS)


def test_a_standing_disk_holds_up_no_caller_and_memory_stays_bounded(tmp_path: Path, disk: Disk) -> None:
    room = Room(frames=60, frame_bytes=40 * FRAME_BYTES, others=500, other_bytes=1 << 20)
    log = Log(tmp_path, room)
    log.begin()
    disk.stop()
    log.writer.sample("s", 0, [0.0])
    until(lambda: disk.waiting)
    peak, taken, samples = 0, 0, 0
    times = []
    for index in range(3000):
        begun = time.perf_counter()
        taken += log.writer.frame(frame_of(index))
        samples += log.writer.sample("s", index, [float(index)])
        times.append(time.perf_counter() - begun)
        peak = max(peak, log.writer.load.bytes_waiting)
    assert disk.waiting == 1, "the disk stood still all the time"
    assert np.median(times) < 1e-3
    assert max(times) < 1.0, "the machine may be busy for a moment; the disk stands still for ever"
    assert peak <= 41 * FRAME_BYTES + (1 << 20)
    load = log.writer.load
    assert load.level == "none"
    assert load.frames_waiting == taken <= 60
    assert load.frames_refused == 3000 - taken
    assert load.samples_refused == 3000 - samples > 0
    disk.go()
    until(lambda: log.writer.load.frames_waiting == 0)
    assert log.writer.load.level == "full", "back up again when the queue has drained"
    assert log.writer.frame(frame(5000))
    episode = log.end()
    assert verify(log.store)[0].ok
    assert len(episode.frames("left")) == taken + 1
    assert episode.frames("left").stamps_ns[-1] == 6000
    assert len(episode.stream("s")[0]) == samples + 1
    degraded = episode.attributes["degraded"]
    assert degraded["level"] == "none"
    assert degraded["frames_refused"] == {"left": 3000 - taken}
    assert degraded["samples_refused"] == {"s": 3000 - samples}
    assert "3000" not in describe(degraded)
    assert [span["level"] for span in degraded["spans"]] == ["quality", "half", "none"]
    spans = degraded["spans"]
    assert all(a["to_ns"] < b["from_ns"] for a, b in itertools.pairwise(spans))
    assert spans[-1]["to_ns"] == 3999


FRAMES = [frame(index) for index in range(8)]


def frame_of(index: int) -> RGBD:
    """A frame with its own stamp and pixels of a few."""
    some = FRAMES[index % len(FRAMES)]
    return RGBD(some.color, some.depth, some.camera, 1000 + index)


def test_quality_sinks_first_then_every_second_frame_of_each_camera_goes(tmp_path: Path, disk: Disk) -> None:
    log = Log(tmp_path, Room(frames=100))
    log.begin()
    disk.stop()
    taken: dict[str, list[int]] = {"left": [], "right": []}
    for index in range(100):
        for camera in (LEFT, RIGHT):
            if log.writer.frame(frame(index, camera)):
                taken[camera.name].append(index)
    disk.go()
    episode = log.end()
    full = list(range(37))
    for camera in ("left", "right"):
        assert taken[camera][: len(full)] == full
        rest = taken[camera][len(full) + 1 :]
        assert len(rest) >= 10
        assert set(np.diff(rest)) == {2}
        frames = episode.frames(camera)
        assert [stamp - 1000 for stamp in frames.stamps_ns] == taken[camera]
    near, far = (
        np.abs(episode.frames("left")[i].color.astype(int) - frame(i).color.astype(int)).mean() for i in (2, 30)
    )
    assert far > near + 2, "an image at lower quality differs more from the original"
    images = episode.group()["cameras/left/color"]
    for index in (2, 30):
        np.testing.assert_array_equal(images[index], episode.frames("left")[index].color)
    smaller = episode.attributes["degraded"]["frames_at_lower_quality"]
    assert smaller == {camera: len(taken[camera]) - 25 for camera in taken}


def test_lossless_frames_stay_lossless_to_the_last(tmp_path: Path, disk: Disk) -> None:
    log = Log(tmp_path, Room(frames=20))
    log.begin(low_quality=None, color_codec="lossless")
    disk.stop()
    taken = [index for index in range(40) if log.writer.frame(frame(index))]
    disk.go()
    episode = log.end()
    for number, logged in enumerate(episode.frames("left")):
        np.testing.assert_array_equal(logged.color, frame(taken[number]).color)
    assert episode.attributes["degraded"]["frames_at_lower_quality"] == {}
    assert episode.attributes["degraded"]["level"] == "none"


def test_decisions_have_room_of_their_own_and_are_refused_last(tmp_path: Path, disk: Disk) -> None:
    log = Log(tmp_path, Room(frames=4, other_bytes=3 * FRAME_BYTES + 4000))
    log.begin()
    disk.stop()
    while log.writer.frame(frame(0)):
        pass
    action = PickPlace(geometry.tool_down(0, 0, 0), geometry.tool_down(0, 0, 0), stamp_ns=1000)
    assert [log.writer.decision(action, [frame(0)], {}) for _ in range(5)] == [True] * 3 + [False] * 2
    assert log.writer.load.decisions_refused == 2
    disk.go()
    episode = log.end()
    assert len(episode.decisions) == 3
    assert episode.attributes["degraded"]["decisions_refused"] == 2


def test_an_episode_needs_no_camera(tmp_path: Path) -> None:
    log, begun = Log(tmp_path, Room()), []
    log.writer.begin(lambda: EpisodeWriter(log.store, task="t", robot="r", cameras=[]), begun.append)
    log.writer.sample("s", 1, [1.0])
    episode = log.end()
    assert verify(log.store)[0].ok
    assert episode.stream("s")[1].tolist() == [[1.0]]


def test_an_episode_that_lacks_nothing_says_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path, Room())
    log.begin()
    for index in range(20):
        assert log.writer.frame(frame(index))
    assert "degraded" not in log.end().attributes


def test_what_was_degraded_is_known_after_a_crash(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch)
            log = Log(tmp_path, Room(frames=4))
            log.begin()
            disk.stop()
            for index in range(20):
                log.writer.frame(frame(index))
            disk.go()
            until(lambda: log.writer.load.frames_waiting == 0)
            log.writer.sample("s", 1, [1.0])
            until(lambda: log.writer.written.samples)
            os._exit(0)

    with Child(work) as child:
        assert child.wait() == 0
    (repaired,) = repair(store)
    assert repaired.state == "recovered"
    degraded = store.open(repaired.id).attributes["degraded"]
    assert degraded["level"] == "none"
    assert degraded["frames_refused"]["left"] >= 1


def test_an_episode_is_written_while_the_one_before_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, go_on = threading.Event(), threading.Event()
    close = EpisodeWriter.close

    def slow(writer: EpisodeWriter, outcome: Any) -> str:
        closing.set()
        assert go_on.wait(20)
        return close(writer, outcome)

    monkeypatch.setattr(EpisodeWriter, "close", slow)
    log = Log(tmp_path, Room(frames=4))
    log.begin()
    log.writer.end({}, log.ended.append)
    assert closing.wait(20)
    log.begin()
    for index in range(40):
        assert log.writer.frame(frame(index))
        until(lambda count=index + 1: log.writer.written.frames == count)
    go_on.set()
    assert len(log.end().frames("left")) == 40
    assert log.store.ids() == log.ended


@pytest.mark.parametrize("encoders", [1, 4])
def test_frames_are_on_file_in_the_order_of_the_calls(tmp_path: Path, encoders: int) -> None:
    errors: list[EmbodiedVisionError] = []
    ended: list[str] = []
    writer = BackgroundWriter(Room(), errors.append, encoders)
    store = EpisodeStore(tmp_path)
    writer.begin(lambda: EpisodeWriter(store, task="t", robot="r", cameras=[LEFT, RIGHT]))
    for index in range(120):
        writer.frame(frame_of(index))
    writer.end({}, ended.append)
    writer.close()
    assert errors == []
    assert store.open(ended[0]).frames("left").stamps_ns.tolist() == [1000 + index for index in range(120)]


def test_the_account_of_a_flickering_episode_stays_short() -> None:
    account = Degradation()
    for stamp in range(10_000):
        account.frame("c", stamp, stamp % 3, taken=True, smaller=bool(stamp % 3))
    described = account.to_dict()
    assert len(described["spans"]) == SPANS_KEPT
    assert described["spans"][-1]["to_ns"] == 9998
    assert described["frames_at_lower_quality"] == {"c": 6666}

"""The power goes at any moment: what was forced to the disk by then is enough. On a model of a disk, see `power`.

`EPISODE_CUTS=all` tries every moment; without it they are thinned out.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter, journal
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import EpisodeError

from .power import Disk, Luck, recorded
from .samples import START_NS, make_action, make_camera, make_frame

STEP_S = 0.3
FRAMES = 9
MOST_LOST_S = 2.0


def live(store: EpisodeStore, disk: Disk, now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write two episodes, one call every `STEP_S` by a clock of their own; mark what is acknowledged, and when."""
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    camera = make_camera()
    for _ in range(2):
        writer = EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless")
        for number in range(FRAMES):
            now[0] += STEP_S
            writer.append_frame(make_frame(camera, number))
            disk.mark(f"frame {writer.id} {now[0]}")
            writer.append("joint_states", START_NS + number, [float(number)])
        writer.append_decision(make_action(), [make_frame(camera, 0)])
        writer.close({"reward": 1.0})
        disk.mark(f"closed {writer.id} {now[0]}")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    root = tmp_path_factory.mktemp("disk")
    with pytest.MonkeyPatch.context() as monkeypatch, recorded(root) as recording:
        live(EpisodeStore(root / "new" / "store"), recording, [1000.0], monkeypatch)
    return recording


@pytest.mark.parametrize("luck", Luck)
def test_power_cut(disk: Disk, tmp_path: Path, luck: Luck, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(luck.value)
    moments = disk.forcing
    if os.environ.get("EPISODE_CUTS") != "all":
        closed = [at for at, line in disk.marks if line.startswith("closed")]
        moments = sorted({*moments[rng.randrange(8) :: 8], *closed})
    for moment in moments:
        root = tmp_path / str(moment)
        disk.restore(moment, luck, root, rng)
        check(EpisodeStore(root / "new" / "store"), disk, moment)
    with capsys.disabled():
        print(f"\n{len(moments)} power cuts: {luck.value}")
    assert len(moments) > 10


def check(store: EpisodeStore, disk: Disk, moment: int) -> None:
    """After repair acknowledged episodes are whole, and the open one lacks at most the last moments."""
    said = [line.split() for at, line in disk.marks if at <= moment]
    closed = {episode_id for what, episode_id, _ in said if what == "closed"}
    now = max((float(when) for _, _, when in said), default=0.0)
    assert closed <= set(store.ids())
    for result in repair(store):
        assert result.state in ("recovered", "empty", "failed"), result
    assert {report.id for report in verify(store) if report.ok} == set(store.ids())
    for episode_id in {episode_id for _, episode_id, _ in said}:
        promised = [
            what for what, which, when in said if which == episode_id and float(when) <= now - MOST_LOST_S
        ].count("frame")
        if episode_id not in store.ids():
            assert promised == 0
            continue
        frames = store.open(episode_id).frames("camera")
        assert len(frames) >= (FRAMES if episode_id in closed else promised)
        for number, frame in enumerate(frames):
            wanted = make_frame(make_camera(), number)
            assert frame.stamp_ns == wanted.stamp_ns
            np.testing.assert_array_equal(frame.color, wanted.color)
            np.testing.assert_array_equal(frame.depth, wanted.depth)


def test_what_comes_before_a_pause_is_forced_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced = []
    monkeypatch.setattr(os, "fdatasync", forced.append)
    writer = journal.JournalWriter(tmp_path / "journal", sync_period_s=0.05)
    writer.append({"kind": "note", "name": "x", "value": 1})
    deadline = time.monotonic() + 10
    while not forced:
        assert time.monotonic() < deadline
    writer.append({"kind": "note", "name": "x", "value": 1})
    writer.release()
    assert len(forced) == 2


def test_failed_sync_is_told_by_the_next_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    writer = journal.JournalWriter(tmp_path / "journal", sync_period_s=0.01)
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(EpisodeError, match="Input/output error"):
        _append_for(writer, seconds=10)
    writer.release()


def _append_for(writer: journal.JournalWriter, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        writer.append({"kind": "note", "name": "x", "value": 1})

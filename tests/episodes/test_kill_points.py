"""SIGKILL at every call that changes the disk, over the whole life of episodes, and at random times.

`EPISODE_KILLS=all` visits every point; without it the points are thinned out to some 160.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.commit import JOURNAL
from embodied_vision.episodes.repair import INTERRUPTED, repair
from embodied_vision.episodes.verify import verify

from .faults import How, Notes, kill_points, killed_at, trace
from .samples import START_NS, Child, make_action, make_camera, make_frame

_EVERYTHING = os.environ.get("EPISODE_KILLS") == "all"
_OUTCOME = {"reward": 1.0}


def live(store: EpisodeStore, notes: Notes, episodes: int, frames: int = 3) -> None:
    """Write episodes; say each acknowledged call."""
    camera = make_camera()
    for _ in range(episodes):
        writer = EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless")
        notes.say(f"begun {writer.id}")
        for number in range(frames):
            writer.append_frame(make_frame(camera, number))
            notes.say(f"frame {writer.id}")
            writer.append("joint_states", START_NS + number, np.arange(7.0) + number)
            notes.say(f"sample {writer.id}")
        writer.append_decision(make_action(), [make_frame(camera, 0)], {"checkpoint": "abc"})
        notes.say(f"decision {writer.id}")
        writer.close(_OUTCOME)
        notes.say(f"closed {writer.id}")


def check(store: EpisodeStore, notes: Notes, frames: int = 3) -> None:
    """Repair, then: everything that was acknowledged is there, once, and equals what was written."""
    said = notes.lines()
    acknowledged: dict[str, list[str]] = {}
    for line in said:
        what, episode_id = line.split()
        acknowledged.setdefault(episode_id, []).append(what)
    closed = {episode_id for episode_id, what in acknowledged.items() if "closed" in what}
    assert closed <= set(store.ids())  # already, before anybody repairs; repair leaves them alone
    for result in repair(store):
        assert result.state in ("recovered", "empty"), result
        assert not result.detail
        if result.state == "empty":
            assert result.id in store.ids() or result.id not in acknowledged  # the last folder of a closed one
    assert store.staging_ids() == []
    assert not store.quarantine_path.exists()
    assert set(acknowledged) <= set(store.ids())
    assert all(report.ok for report in verify(store))
    for episode_id in store.ids():
        what = acknowledged.get(episode_id, [])
        _holds(store, episode_id, {kind: what.count(kind) for kind in ("frame", "sample", "decision")})
        outcome = store.open(episode_id).outcome
        assert outcome == _OUTCOME if episode_id in closed else outcome in (_OUTCOME, INTERRUPTED)


def _holds(store: EpisodeStore, episode_id: str, least: dict[str, int]) -> None:
    """At least what was acknowledged, at most the one call more that was going on, all of it right."""
    episode, camera = store.open(episode_id), make_camera()
    frames, decisions = episode.frames("camera"), episode.decisions
    samples = episode.stream("joint_states") if "joint_states" in episode.streams else (np.zeros(0), np.zeros((0, 7)))
    found = {"frame": len(frames), "sample": len(samples[0]), "decision": len(decisions)}
    assert all(least[kind] <= found[kind] for kind in least)
    assert sum(found.values()) <= sum(least.values()) + 1
    for number, frame in enumerate(frames):
        _same_frame(frame, make_frame(camera, number))
    for number, (stamp, row) in enumerate(zip(*samples, strict=True)):
        assert stamp == START_NS + number
        np.testing.assert_array_equal(row, np.arange(7.0) + number)
    for decision in decisions:
        np.testing.assert_array_equal(decision.action.pick, make_action().pick)
        np.testing.assert_array_equal(decision.action.place, make_action().place)
        assert decision.action.scores == make_action().scores
        assert decision.info == {"checkpoint": "abc"}
        _same_frame(decision.frames[0], make_frame(camera, 0))


def _same_frame(frame, wanted) -> None:
    assert frame.stamp_ns == wanted.stamp_ns
    np.testing.assert_array_equal(frame.color, wanted.color)
    np.testing.assert_array_equal(frame.depth, wanted.depth)


def thinned(points: list[tuple[int, How]], count: int) -> list[tuple[int, How]]:
    """`count` of the points, evenly spread, or all of them where everything was asked for."""
    if _EVERYTHING or len(points) <= count:
        return points
    return [points[int(at)] for at in np.linspace(0, len(points) - 1, count)]


def stores(folder: Path) -> Iterator[EpisodeStore]:
    """Fresh stores, each removed when the next one is asked for."""
    for number in range(10**6):
        store = EpisodeStore(folder / str(number))
        yield store
        shutil.rmtree(store.path, ignore_errors=True)


def test_killed_at_any_call_of_two_episodes_lives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = stores(tmp_path)
    first = next(fresh)
    points = kill_points(trace(lambda: live(first, Notes(), 2)))
    visited = thinned(points, 100)
    for number, how in visited:
        store, notes = next(fresh), Notes()
        assert killed_at(lambda store=store, notes=notes: live(store, notes, 2), number, how)
        check(store, notes)
    with capsys.disabled():
        print(f"\n{len(visited)} of {len(points)} kill points of writing visited")
    assert len(visited) >= 100


def test_repair_killed_at_any_call_can_be_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, notes = EpisodeStore(tmp_path / "before"), Notes()

    def die() -> None:
        live(before, notes, 1, frames=2)

    calls = trace(lambda: live(EpisodeStore(tmp_path / "whole"), Notes(), 1, frames=2))
    assert killed_at(die, calls.index("fdatasync"), "after")  # all is logged, nothing is built
    fresh = stores(tmp_path / "copies")

    def copied() -> EpisodeStore:
        store = next(fresh)
        shutil.copytree(before.path, store.path)
        return store

    first = copied()
    points = kill_points(trace(lambda: repair(first)))
    visited = thinned(points, 45)
    for number, how in visited:
        store = copied()
        assert killed_at(lambda store=store: repair(store), number, how)
        check(store, notes, frames=2)
        assert repair(store) == []
    with capsys.disabled():
        print(f"\n{len(visited)} of {len(points)} kill points of repairing visited")
    assert len(visited) >= 45


def test_repair_of_a_damaged_journal_killed_at_any_call_keeps_the_journal(tmp_path: Path) -> None:
    before = EpisodeStore(tmp_path / "before")
    camera = make_camera()
    with EpisodeWriter(before, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:
        for number in range(3):
            writer.append_frame(make_frame(camera, number))
    data = bytearray((before.staging_path / writer.id / JOURNAL).read_bytes())
    data[len(data) // 2] ^= 1  # in the second frame
    (before.staging_path / writer.id / JOURNAL).write_bytes(data)
    fresh = stores(tmp_path / "copies")

    def copied() -> EpisodeStore:
        store = next(fresh)
        shutil.copytree(before.path, store.path)
        return store

    first = copied()
    points = kill_points(trace(lambda: repair(first)))
    for number, how in points if _EVERYTHING else [*points[:: len(points) // 12], *points[-4:]]:
        store = copied()
        assert killed_at(lambda store=store: repair(store), number, how)
        repair(store)
        assert store.staging_ids() == []
        assert [(report.id, report.ok) for report in verify(store)] == [(writer.id, True)]
        assert [f.stamp_ns for f in store.open(writer.id).frames("camera")] == [
            make_frame(camera, number).stamp_ns for number in (0, 2)
        ]
        assert (store.quarantine_path / writer.id / JOURNAL).read_bytes() == bytes(data)


def test_killed_at_fifty_random_times(tmp_path: Path) -> None:
    fresh, rng = stores(tmp_path), random.Random(6)
    for _ in range(50 if not _EVERYTHING else 500):
        store, notes = next(fresh), Notes()
        with Child(lambda store=store, notes=notes: live(store, notes, 1000)) as child:
            wanted = rng.randrange(0, 24)
            deadline = time.monotonic() + 30
            while len(notes.lines()) < wanted:
                assert time.monotonic() < deadline
            until = time.perf_counter() + rng.uniform(0, 0.01)
            while time.perf_counter() < until:
                pass  # to be killed anywhere, not just after an acknowledgement
            child.kill()
        check(store, notes)

"""What is forced to the disk, and when: an acknowledged episode must survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.journal import JournalWriter

from .samples import fill, make_camera


def test_every_file_and_folder_is_on_disk_before_the_episode_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    events: list[str] = []
    rename = os.rename

    def fsync(fd: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{fd}"))

    def renamed(source: Path, target: Path) -> None:
        events.append("appears")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera]) as writer:
        fill(writer, camera)
        writer.close({})

    before, after = events[: events.index("appears")], events[events.index("appears") + 1 :]
    build = str(store.staging_path / writer.id / "build" / writer.id)
    written = {path.removeprefix(build) for path in before if path.startswith(build)}
    episode = store.episodes_path / writer.id
    assert {str(path).removeprefix(str(episode)) for path in [episode, *episode.rglob("*")]} <= written
    manifest = before.index(f"{build}/manifest.json")
    assert all(path in (build, f"{build}/manifest.json") for path in before[manifest:])
    assert str(store.episodes_path) in after


def test_journal_is_synced_once_a_period(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    often = JournalWriter(tmp_path / "often", sync_period_s=0.0)
    seldom = JournalWriter(tmp_path / "seldom", sync_period_s=3600.0)
    for _ in range(3):
        often.append({"kind": "note", "name": "x", "value": 1})
        seldom.append({"kind": "note", "name": "x", "value": 1})
    assert len(synced) == 3
    often.release()
    seldom.release()

"""Training views out of logged episodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.encoders.compact import Architecture
from embodied_vision.encoders.logged import logged_views
from embodied_vision.encoders.pretrain import Pretraining, PretrainSettings
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.types import RGBD

from .conftest import make_view_set

SMALL = Architecture(stem=4, fine=4, middle=8, coarse=8, blocks=(1, 1, 1), dimension=6)
SECOND = 1_000_000_000


def _log(path: Path, cameras: int, frames: int) -> EpisodeStore:
    """One episode of a still scene: `frames` a camera, 10 a second, the second camera 20 ms late."""
    store = EpisodeStore(path)
    shots = [
        replace(f, camera=replace(f.camera, name=f"camera{i}")) for i, f in enumerate(make_view_set(0, cameras).frames)
    ]
    with EpisodeWriter(store, task="t", robot="r", cameras=[f.camera for f in shots], color_codec="lossless") as log:
        for k in range(frames):
            for i, shot in enumerate(shots):
                log.append_frame(RGBD(shot.color, shot.depth, shot.camera, k * SECOND // 10 + i * 20_000_000))
        log.close({"reward": 1.0, "solved": True})
    return store


def test_cameras_are_put_together_by_their_stamps(tmp_path: Path) -> None:
    store = _log(tmp_path / "store", cameras=2, frames=20)
    sets = list(logged_views((store.open(name) for name in store.ids()), moments=4))
    assert len(sets) == 4
    for views in sets:
        assert [f.camera.name for f in views.frames] == ["camera0", "camera1"]
        assert views.frames[1].stamp_ns - views.frames[0].stamp_ns == 20_000_000
        assert views.bodies is None
    assert sets[0].frames[0].stamp_ns == 0
    assert sets[-1].frames[0].stamp_ns == 19 * SECOND // 10


def test_a_lone_camera_is_seen_at_neighbouring_moments(tmp_path: Path) -> None:
    store = _log(tmp_path / "store", cameras=1, frames=20)
    first, *_, last = logged_views((store.open(name) for name in store.ids()), moments=3, neighbours=3)
    assert [f.stamp_ns for f in first.frames] == [0, SECOND // 2, SECOND]
    assert [f.stamp_ns for f in last.frames] == [19 * SECOND // 10]  # nothing comes after the last moment


def test_one_frame_is_enough_to_train_on(tmp_path: Path) -> None:
    store = _log(tmp_path / "store", cameras=1, frames=1)
    sets = list(logged_views(store.open(name) for name in store.ids()))
    assert len(sets) == 1
    run = Pretraining(PretrainSettings(steps=2, pairs=1, crop_px=48, points=32), sets, SMALL)
    assert all(np.isfinite(figures["loss"]) for figures in run.advance())


def test_an_episode_without_frames_gives_nothing() -> None:
    class Empty:
        cameras: dict[str, object] = {}  # noqa: RUF012

        def frames(self, camera: str) -> list[RGBD]:
            pytest.fail(f"asked for {camera}")

    assert list(logged_views([Empty()])) == []  # type: ignore[list-item]

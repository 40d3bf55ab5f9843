"""`embodied-vision episodes features`."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from episodes.samples import make_camera, make_frame

from embodied_vision.cli.episodes import app
from embodied_vision.encoders import load_encoder
from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.features import FeatureCache
from embodied_vision.errors import BadInput
from tests.command_line import call

run = partial(call, app, "features")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EpisodeStore:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # do not wait for the disk
    store = EpisodeStore(tmp_path / "store")
    cameras = [make_camera("front", 32, 32), make_camera("side", 32, 48)]
    for task in ("one", "two"):
        with EpisodeWriter(store, task=task, robot="robot", cameras=cameras) as writer:
            for number in range(3):
                for camera in cameras:
                    writer.append_frame(make_frame(camera, number))
            writer.close({"solved": True})
    return store


def test_features_are_filled_pruned_and_cleared(store: EpisodeStore) -> None:
    encoder = load_encoder()
    cache = FeatureCache.of(store, encoder.encoder_id)
    counts = {"encoder_id": encoder.encoder_id, "episodes": 1, "computed": 1, "there": 0}
    assert json.loads(run(store.path, "--task", "two", "--camera", "side", "--json").stdout) == counts
    counts |= {"episodes": 2, "computed": 3, "there": 1}
    assert json.loads(run(store.path, "--json").stdout) == counts
    assert "those of 4 were there" in run(store.path, "--check").stdout.replace("\n", " ")
    first, last = map(store.open, store.ids())
    frame = last.frames("side").color(2)
    np.testing.assert_array_equal(cache.open(last, "side").grids([2])[0], encoder.encode(frame).grid.astype(np.float16))
    (first.path / "manifest.json").unlink()
    assert json.loads(run(store.path, "--prune", "--json").stdout)["deleted"] == 2
    assert cache.holds(last, "front")
    assert "2 cameras" in run(store.path, "--clear").stdout
    assert not cache.holds(last, "front")


@pytest.mark.parametrize(
    "arguments", [("--task", "three"), ("--camera", "back"), ("--clear", "--prune"), ("nobody",), ("--encoder", "none")]
)
def test_what_cannot_be_done_is_bad_input(store: EpisodeStore, arguments: tuple[str, ...]) -> None:
    assert isinstance(run(store.path, *arguments).exception, BadInput)


def test_a_store_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    assert isinstance(run(tmp_path / "nowhere").exception, BadInput)

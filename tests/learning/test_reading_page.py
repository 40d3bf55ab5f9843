"""The examples of docs/reading.md do what the page says."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from episodes.samples import make_action, make_camera

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.types import RGBD

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reading.md"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with runs/episodes: images whose brightness is the first command."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # do not wait for the disk
    monkeypatch.chdir(tmp_path)
    camera = make_camera("front", 48, 64)
    for _ in range(2):
        with EpisodeWriter(
            EpisodeStore("runs/episodes"), task="block-insertion", robot="panda_suction", cameras=[camera]
        ) as writer:
            for number in range(20):
                stamp_ns = 1_700_000_000_000_000_000 + number * 33_333_333
                image = np.full((48, 64, 3), 10 * number, np.uint8)
                frame = RGBD(image, np.ones((48, 64), np.float32), camera, stamp_ns)
                writer.append_frame(frame)
                writer.append("joint_states", stamp_ns - 2_000_000, np.arange(7.0))
                writer.append("commands", stamp_ns + 2_000_000, np.full(7, number / 20))
                if number == 5:
                    writer.append_decision(make_action(), [frame])
            writer.close({"solved": True})


@pytest.mark.usefixtures("here")
def test_the_examples_of_the_page_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)  # noqa: S102
    assert names["colors"].shape == (16, 48, 64, 3)
    assert names["window"].values.shape == (16, 7)
    assert names["window"].padded.tolist() == [True] * 8 + [False] * 8
    assert names["loader"].sampler.epoch == 2
    assert names["state"]["epoch"] == 2
    assert names["loss"].item() < 1
    assert names["sample"]["cameras/front/features"].shape == (2, 6, 8, names["encoder"].dimension)

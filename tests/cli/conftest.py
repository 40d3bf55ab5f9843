"""Demonstrations that cost nothing to make, and a network that costs nothing to train."""

from __future__ import annotations

from pathlib import Path

import pytest
from policies.stubs import frame

from embodied_vision import geometry
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.types import PickPlace

TINY = "network: {coarse_widths: [8, 8], embedding: 4, fine_widths: [8, 8], fine_channels: 3}\n"


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    """A store with one demonstration."""
    shot = frame(3)
    writer = EpisodeWriter(
        EpisodeStore(tmp_path / "demos"),
        task="block-insertion",
        robot="panda_suction",
        cameras=[shot.camera],
        attributes={"seed": 3},
    )
    action = PickPlace(
        geometry.tool_down(0.5, 0.1, 0.05), geometry.tool_down(0.45, -0.2, 0.06, 0.4), stamp_ns=shot.stamp_ns
    )
    writer.append_decision(action, [shot])
    writer.close({"reward": 1.0, "solved": True})
    return tmp_path / "demos"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A configuration file with a tiny network and few steps."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY + "train: {steps: 2, batch: 2, tried: 6}\n", encoding="utf-8")
    return path

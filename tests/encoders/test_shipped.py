"""The encoder that ships: whole, small, quick to ask for, and better than its random twin on the cell's scenes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embodied_vision.encoders import load_encoder
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.encoders.probe import probe, random_twin
from embodied_vision.encoders.simulated import simulated_views
from embodied_vision.errors import BadInput
from embodied_vision.learning.environments import make_env
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.paths import shipped


def test_default_is_the_shipped_folder_and_small() -> None:
    folder = shipped("encoder")
    encoder = load_encoder()
    assert isinstance(encoder, CompactEncoder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["encoder_id"] == encoder.encoder_id
    assert manifest["outputs"][0]["shape"][2] == encoder.dimension
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12_000_000
    card = (folder / "card.md").read_text()
    assert encoder.encoder_id in card
    assert manifest["training"]["command"] in card


def test_cell_camera_gives_the_documented_grid() -> None:
    features = load_encoder().encode(np.zeros((240, 424, 3), np.uint8), stamp_ns=5)
    assert features.grid.shape == (30, 53, 32)
    assert features.stride == (8.0, 8.0)
    assert features.stamp_ns == 5


def test_what_does_not_ship_is_named() -> None:
    with pytest.raises(BadInput, match=r"no checkpoint 'nothing'.*encoder"):
        shipped("nothing")


def test_shipped_encoder_beats_its_random_twin_on_unseen_scenes() -> None:
    tasks = ("block-insertion", "place-red-in-green")
    environments = [make_env(task, renderer="software") for task in tasks]
    try:
        seeds = [scene_seed("validation", 900_000 + i) for i in range(12)]
        sets = list(simulated_views(environments, seeds, domes=1))
    finally:
        for environment in environments:
            environment.close()
    fit, held_out = sets[:6], sets[6:]
    encoder = load_encoder()
    assert isinstance(encoder, CompactEncoder)
    report = probe(
        {"shipped": encoder, "twin": random_twin(encoder.architecture, 0, fit)}, fit, held_out, resamples=200
    )
    gains = report.gains["twin"]
    for figure in ("identity", "offset"):
        assert gains[figure].low > 0.05, report.to_dict()
    assert gains["height"].value > 0

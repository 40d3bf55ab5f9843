"""Pretraining: exact resumption, loss that falls, and features that tell things apart better than random ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embodied_vision.encoders.compact import Architecture
from embodied_vision.encoders.contrast import correspondence_loss
from embodied_vision.encoders.pretrain import OBJECTIVES, Pretraining, PretrainSettings
from embodied_vision.encoders.probe import MeanColor, probe, random_twin
from embodied_vision.errors import EncoderError

from .conftest import MakeSets

SMALL = Architecture(stem=6, fine=8, middle=12, coarse=16, blocks=(1, 1, 1), dimension=12)
QUICK = PretrainSettings(steps=6, pairs=2, crop_px=48, points=32)
EVERYTHING = replace(QUICK, appearance="strong", objectives=dict.fromkeys(OBJECTIVES, 0.5))


@pytest.mark.parametrize("settings", [QUICK, EVERYTHING], ids=["usual", "everything"])
def test_stopping_and_going_on_gives_the_same_encoder_bit_for_bit(
    make_sets: MakeSets, tmp_path: Path, settings: PretrainSettings
) -> None:
    sets = make_sets(4)
    whole = Pretraining(settings, sets, SMALL)
    losses = [figures["loss"] for figures in whole.advance()]

    first = Pretraining(settings, sets, SMALL)
    before = [figures["loss"] for figures in first.advance(until=2)]
    first.save(tmp_path / "state.safetensors")
    second = Pretraining(settings, sets, SMALL)
    second.restore(tmp_path / "state.safetensors")
    assert second.step == 2
    after = [figures["loss"] for figures in second.advance()]

    assert before + after == losses
    assert second.encoder().encoder_id == whole.encoder().encoder_id
    for name, value in whole.weights().items():
        assert value.tobytes() == second.weights()[name].tobytes(), name


def test_seed_decides_everything_and_the_global_generators_nothing(make_sets: MakeSets) -> None:
    def train(seed: int) -> str:
        run = Pretraining(replace(QUICK, steps=2, seed=seed), make_sets(2), SMALL)
        for _ in run.advance():
            torch.rand(3)
            np.random.default_rng().random()
        return run.encoder().encoder_id

    assert train(1) == train(1)
    assert train(1) != train(2)


def test_state_of_a_run_with_other_settings_is_refused(make_sets: MakeSets, tmp_path: Path) -> None:
    run = Pretraining(QUICK, make_sets(2), SMALL)
    run.save(tmp_path / "state.safetensors")
    with pytest.raises(EncoderError, match="settings"):
        Pretraining(replace(QUICK, steps=7), make_sets(2), SMALL).restore(tmp_path / "state.safetensors")
    with pytest.raises(EncoderError, match="scenes 2, this one has 3"):
        Pretraining(QUICK, make_sets(3), SMALL).restore(tmp_path / "state.safetensors")


def test_missing_and_damaged_states_are_named(make_sets: MakeSets, tmp_path: Path) -> None:
    run = Pretraining(QUICK, make_sets(1), SMALL)
    with pytest.raises(EncoderError, match="no training state"):
        run.restore(tmp_path / "nothing")
    run.save(tmp_path / "state")
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-50])
    with pytest.raises(EncoderError, match="cannot be read"):
        run.restore(tmp_path / "state")


def test_no_frames_and_impossible_settings_are_refused(make_sets: MakeSets) -> None:
    with pytest.raises(EncoderError, match="no frames"):
        Pretraining(QUICK, [], SMALL)
    with pytest.raises(EncoderError, match="multiple of 16"):
        Pretraining(replace(QUICK, crop_px=50), make_sets(1), SMALL)


def test_loss_is_least_where_the_same_points_match() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, 8, generator=generator)
    points = torch.rand(20, 3, generator=generator)
    settings = {"temperature": QUICK.temperature, "same_point_m": QUICK.same_point_m}
    matched = correspondence_loss(features, features, points, **settings)
    shuffled = correspondence_loss(features, features.roll(1, 0), points, **settings)
    assert matched < 0.5 < shuffled


def test_training_beats_the_random_twin_on_unseen_scenes(make_sets: MakeSets) -> None:
    settings = PretrainSettings(steps=60, pairs=3, crop_px=64, points=64)
    run = Pretraining(settings, make_sets(16), SMALL)
    losses = [figures["match"] for figures in run.advance()]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.3
    fit, held_out = make_sets(10, first=100), make_sets(10, first=200)
    encoders = {"trained": run.encoder(), "random": random_twin(SMALL, 0, fit), "color": MeanColor()}
    report = probe(encoders, fit, held_out, resamples=200)
    assert report.gains["random"]["offset"].low > 0, report.to_dict()
    assert report.figures["trained"]["offset"].value > 0.2, report.to_dict()

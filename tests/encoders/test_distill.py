"""Distillation: the teacher's features kept on disk, and a student that comes to tell them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embodied_vision.encoders.compact import Architecture
from embodied_vision.encoders.pretrain import Pretraining, PretrainSettings
from embodied_vision.encoders.probe import MeanColor
from embodied_vision.encoders.teacher import TeacherFeatures
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import sample_grid
from embodied_vision.types import Features

from .conftest import MakeSets

SMALL = Architecture(stem=6, fine=8, middle=12, coarse=16, blocks=(1, 1, 1), dimension=12)
QUICK = PretrainSettings(steps=4, pairs=2, crop_px=48, points=32, objectives={"teacher": 1.0})


class Counting:
    """The mean color, scaled channel by channel, that counts how often it was asked."""

    artefact_id = "numpy"
    dimension = 3

    def __init__(self, name: str = "counting", scale: tuple[float, float, float] = (1.0, 100.0, 0.01)) -> None:
        self.encoder_id, self.scale, self.asked = name, np.array(scale, np.float32), 0

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        self.asked += 1
        plain = MeanColor().encode(color)
        return replace(plain, grid=plain.grid * self.scale, encoder_id=self.encoder_id)


def _taught(folder: Path, teacher: Counting, sets: list) -> TeacherFeatures:  # type: ignore[type-arg]
    features = TeacherFeatures(folder, teacher, sets)
    assert list(features.fill()) == list(range(1, len(sets) + 1))
    return features


def test_each_frame_is_encoded_once_and_by_each_teacher(make_sets: MakeSets, tmp_path: Path) -> None:
    sets, teacher = make_sets(3), Counting()
    features = _taught(tmp_path, teacher, sets)
    assert teacher.asked == 9
    _taught(tmp_path, teacher, sets)
    assert teacher.asked == 9
    other = Counting("other")
    _taught(tmp_path, other, sets)
    assert other.asked == 9
    assert {path.name for path in tmp_path.iterdir()} == {"counting", "other"}

    pixels = np.array([(10.0, 20.0), (100.0, 50.0)])
    direct = sample_grid(teacher.encode(sets[1].frames[2].color), pixels)
    np.testing.assert_allclose(features.at(1, 2, pixels), direct, rtol=2e-3)


def test_a_broken_off_encoding_goes_on_and_damage_is_named(make_sets: MakeSets, tmp_path: Path) -> None:
    sets, teacher = make_sets(2), Counting()
    features = _taught(tmp_path, teacher, sets)
    second = tmp_path / "counting" / "000001.safetensors"
    os.truncate(second, second.stat().st_size // 2)
    with pytest.raises(EncoderError, match=r"000001\.safetensors cannot be read .* delete it to make it again"):
        features.at(1, 0, np.zeros((1, 2)))
    second.rename(second.with_suffix(".part"))  # as kill -9 leaves it
    _taught(tmp_path, teacher, sets)
    assert teacher.asked == 9
    assert features.at(1, 0, np.zeros((1, 2))).shape == (1, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_features_that_cannot_be_kept_are_refused(make_sets: MakeSets, tmp_path: Path, value: float) -> None:
    features = TeacherFeatures(tmp_path, Counting(scale=(1.0, value, 1.0)), make_sets(1))
    with pytest.raises(EncoderError, match="teacher counting gives values that are not finite, or beyond 65504"):
        list(features.fill())
    assert list((tmp_path / "counting").iterdir()) == []


def test_channels_are_scaled_alike_however_large(make_sets: MakeSets, tmp_path: Path) -> None:
    sets = make_sets(4)
    mean, deviation = _taught(tmp_path, Counting(scale=(1.0, 100.0, 0.0)), sets).statistics()
    plain = np.concatenate([MeanColor().encode(f.color).grid.reshape(-1, 3) for s in sets for f in s.frames])
    np.testing.assert_allclose(mean[:2], plain.mean(0)[:2] * [1, 100], rtol=2e-3)
    np.testing.assert_allclose(deviation[:2], plain.std(0)[:2] * [1, 100], rtol=1e-2)
    assert deviation[2] == 1.0  # a channel that never changes divides by nothing


def test_the_student_comes_to_tell_the_teachers_features(make_sets: MakeSets, tmp_path: Path) -> None:
    sets = make_sets(3)
    run = Pretraining(replace(QUICK, steps=40), sets, SMALL, _taught(tmp_path, Counting(), sets))
    cosines = [figures["teacher_cosine"] for figures in run.advance()]
    assert np.mean(cosines[-10:]) > np.mean(cosines[:10]) + 0.15, cosines


def test_stopping_and_going_on_is_exact_and_bound_to_the_teacher(make_sets: MakeSets, tmp_path: Path) -> None:
    sets, state = make_sets(3), tmp_path / "state.safetensors"
    settings = replace(QUICK, objectives={"teacher": 1.0, "match": 0.5})
    teacher = _taught(tmp_path, Counting(), sets)
    whole = Pretraining(settings, sets, SMALL, teacher)
    losses = [figures["loss"] for figures in whole.advance()]
    first = Pretraining(settings, sets, SMALL, teacher)
    before = [figures["loss"] for figures in first.advance(until=2)]
    first.save(state)
    second = Pretraining(settings, sets, SMALL, teacher)
    second.restore(state)
    assert before + [figures["loss"] for figures in second.advance()] == losses
    assert second.encoder().encoder_id == whole.encoder().encoder_id

    other = Pretraining(settings, sets, SMALL, _taught(tmp_path, Counting("other"), sets))
    with pytest.raises(EncoderError, match="run with teacher counting, this one has other"):
        other.restore(state)

"""Stability under another look, and the pictures of features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embodied_vision.encoders.board import EncoderBoard, feature_picture
from embodied_vision.encoders.probe import MeanColor
from embodied_vision.encoders.stability import stability
from embodied_vision.encoders.views import ViewSet
from embodied_vision.errors import EncoderError
from embodied_vision.types import Features

from .conftest import MakeSets


class Hue(MeanColor):
    """The mean color less its brightness."""

    encoder_id = "hue"

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        plain = super().encode(color, stamp_ns)
        return replace(plain, grid=plain.grid / np.maximum(plain.grid.sum(2, keepdims=True), 1e-3))


def _in_two_lights(sets: list[ViewSet]) -> list[ViewSet]:
    out = []
    for i, views in enumerate(sets):
        factor = (0.5, 0.6, 0.7, 0.8)[i % 4]
        dark = [replace(f, color=(f.color * factor).astype(np.uint8)) for f in views.frames]
        out.append(ViewSet((*views.frames, *dark)))
    return out


def test_features_without_brightness_bear_another_light(make_sets: MakeSets) -> None:
    sets = _in_two_lights(make_sets(4))
    report = stability({"color": MeanColor(), "hue": Hue()}, sets, resamples=200)
    assert report["hue"].cosine > report["color"].cosine + 0.1
    assert report["hue"].scenes == 4
    for each in report.values():
        assert each.low <= each.found <= each.high


def test_the_same_look_twice_is_found_again_wherever_features_differ(make_sets: MakeSets) -> None:
    sets = [ViewSet((*views.frames, *views.frames)) for views in make_sets(2)]
    report = stability({"hue": Hue()}, sets, resamples=50)["hue"]
    assert report.cosine > 0.999
    assert report.found > 0.95


def test_one_look_alone_is_refused(make_sets: MakeSets) -> None:
    with pytest.raises(EncoderError, match="in two looks"):
        stability({"hue": Hue()}, make_sets(2))


def test_pictures_show_images_above_their_features(make_sets: MakeSets, tmp_path: Path) -> None:
    frames = make_sets(1)[0].frames
    rows, columns = frames[0].color.shape[:2]
    picture = feature_picture(MeanColor(), frames)
    assert picture.shape == (2 * rows, len(frames) * columns, 3)
    np.testing.assert_array_equal(picture[:rows, :columns], frames[0].color)
    assert picture[rows:].std() > 20

    board = EncoderBoard(tmp_path, make_sets(2), steps=20)
    assert [step for step in range(1, 21) if board.wants_picture(step)] == [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    board.report(10, {"loss": 1.0})
    board.show(10, MeanColor())
    board.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(tmp_path))
    log.Reload()
    assert log.Tags()["scalars"] == ["loss"]
    assert log.Tags()["images"] == ["features/0", "features/1"]

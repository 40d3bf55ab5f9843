"""The probe measures what it says, on features whose content is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodied_vision.encoders.compact import Architecture, CompactEncoder
from embodied_vision.encoders.probe import (
    MeanColor,
    collect_patches,
    probe,
    random_twin,
)
from embodied_vision.encoders.probe_points import kind_of
from embodied_vision.encoders.readouts import ridge
from embodied_vision.encoders.views import ViewSet
from embodied_vision.errors import EncoderError
from embodied_vision.types import Features

from .conftest import MakeSets

SMALL = Architecture(stem=4, fine=4, middle=8, coarse=8, blocks=(1, 1, 1), dimension=6)


class Oracle:
    """Features that hold one hot the body and nothing else, found by the image that it is asked about."""

    encoder_id, artefact_id, dimension = "oracle", "test", 4

    def __init__(self, sets: list[ViewSet]) -> None:
        self._bodies = {
            f.color.tobytes(): b for views in sets for f, b in zip(views.frames, views.bodies or (), strict=True)
        }

    def encode(self, color: np.ndarray, stamp_ns: int = 0) -> Features:
        bodies = self._bodies[color.tobytes()]
        tiles = bodies.reshape(bodies.shape[0] // 8, 8, bodies.shape[1] // 8, 8)
        grid = np.stack([(tiles == k).mean((1, 3)) for k in range(4)], axis=-1).astype(np.float32)
        return Features(grid, (8.0, 8.0), self.encoder_id, self.artefact_id, stamp_ns)


def test_kind_drops_the_number_alone() -> None:
    assert [kind_of(n) for n in ("red block 12", "table", "level 2 shelf")] == ["red block", "table", "level 2 shelf"]


def test_ridge_finds_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) * (1, 10, 0.1) + (5, 0, -2)
    y = x @ [[1.0, 0], [0.2, -1], [3, 4]] + [7, -7]
    slope, bias = ridge(x, y)
    np.testing.assert_allclose(x @ slope + bias, y, atol=0.05)


def test_perfect_features_reach_one_and_blind_ones_do_not(make_sets: MakeSets) -> None:
    fit, held_out = make_sets(6), make_sets(6, first=50)
    report = probe({"oracle": Oracle(fit + held_out), "color": MeanColor()}, fit, held_out, resamples=100)
    assert report.kinds == ("blue block", "green block", "red block", "table")
    identity = report.figures["oracle"]["identity"]
    assert identity.value > 0.99
    assert identity.low <= identity.value <= identity.high
    # which body it is says nothing about where in the body a patch lies, nor does its color
    assert abs(report.figures["oracle"]["offset"].value) < 0.15
    gain = report.gains["color"]["identity"]
    assert gain.value == pytest.approx(identity.value - report.figures["color"]["identity"].value)
    assert set(report.to_dict()["figures"]) == {"oracle", "color"}


def test_labels_are_those_of_the_scene(make_sets: MakeSets) -> None:
    patches = collect_patches({"color": MeanColor()}, make_sets(3), seed=0)
    assert np.abs(patches.height_m[patches.kind == "table"]).max() < 0.003
    assert patches.height_m[patches.kind == "red block"].max() == pytest.approx(0.05, abs=0.003)
    known = np.isfinite(patches.offset_m).all(1)
    assert not known[patches.kind == "table"].any()
    assert np.linalg.norm(patches.offset_m[known], axis=1).max() < 0.08
    assert np.abs(patches.offset_m[known].mean(0)).max() < 0.01


def test_probe_is_repeatable(make_sets: MakeSets) -> None:
    fit, held_out = make_sets(3), make_sets(3, first=50)
    first, again = (
        probe({"random": random_twin(SMALL, 0, fit), "color": MeanColor()}, fit, held_out, resamples=20)
        for _ in range(2)
    )
    assert first.to_dict() == again.to_dict()


def test_twin_has_random_weights_but_knows_the_images(make_sets: MakeSets) -> None:
    plain = CompactEncoder.random(0, SMALL)
    twin = random_twin(SMALL, 0, make_sets(4))
    assert twin.encoder_id != plain.encoder_id
    color = make_sets(1)[0].frames[0].color
    spread = twin.encode(color).grid.std((0, 1)).mean()
    assert spread > plain.encode(color).grid.std((0, 1)).mean()


def test_frames_without_labels_are_refused(make_sets: MakeSets) -> None:
    sets = [replace(views, bodies=None) for views in make_sets(1)]
    with pytest.raises(EncoderError, match="probe on simulated scenes"):
        collect_patches({"color": MeanColor()}, sets, seed=0)

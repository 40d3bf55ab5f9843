"""Corruptions do what their names say, more with every severity, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.encoders.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from embodied_vision.errors import BadInput
from embodied_vision.types import RGBD

from .conftest import make_view_set

FRAME = make_view_set(3).frames[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_changes_more_and_the_same_each_time(name: str) -> None:
    changes = []
    for severity in range(1, SEVERITIES + 1):
        color = corrupted(FRAME, name, severity, seed=5)
        assert (color.dtype, color.shape) == (np.uint8, FRAME.color.shape)
        np.testing.assert_array_equal(color, corrupted(FRAME, name, severity, seed=5))
        changes.append(float(np.sqrt(np.square(color.astype(float) - FRAME.color).mean())))
    assert (np.diff(changes) > 0).all()


def test_fog_hides_what_is_far() -> None:
    depth = np.full(FRAME.depth.shape, 0.3, np.float32)
    depth[:, 64:] = 3.0
    black = RGBD(np.zeros_like(FRAME.color), depth, FRAME.camera, 0)
    fogged = corrupted(black, "fog", 2, seed=0)
    assert fogged[:, 64:].min() > 1.5 * fogged[:, :64].max()
    unknown = RGBD(black.color, np.zeros_like(depth), FRAME.camera, 0)
    assert corrupted(unknown, "fog", 2, seed=0).mean() > fogged[:, :64].mean()


def test_low_light_is_dark_and_noisy() -> None:
    grey = RGBD(np.full_like(FRAME.color, 128), FRAME.depth, FRAME.camera, 0)
    dark, less = corrupted(grey, "low light", 5, seed=0), corrupted(grey, "low light", 1, seed=0)
    assert dark.mean() < less.mean() < 128
    assert dark.std() / dark.mean() > 2 * less.std() / less.mean()


def test_blur_takes_detail_and_leaves_the_mean() -> None:
    blurred = corrupted(FRAME, "blur", 4, seed=0).astype(float)
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.5 * np.abs(np.diff(FRAME.color.astype(float), axis=1)).mean()
    assert blurred.mean() == pytest.approx(FRAME.color.mean(), abs=1)


def test_frames_have_noise_of_their_own() -> None:
    assert (corrupted(FRAME, "noise", 3, seed=0) != corrupted(FRAME, "noise", 3, seed=1)).mean() > 0.8


@pytest.mark.parametrize(("name", "severity"), [("snow", 1), ("fog", 0), ("fog", 6)])
def test_what_is_unknown_is_refused(name: str, severity: int) -> None:
    with pytest.raises(BadInput, match="is unknown"):
        corrupted(FRAME, name, severity, seed=0)

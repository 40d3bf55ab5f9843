"""Features are computed again where an image changed, and never older than was said."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from embodied_vision.encoders import load_encoder
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.encoders.export import parity, sample_images
from embodied_vision.encoders.region import RegionEncoder
from embodied_vision.encoders.reuse import ReusingEncoder
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import look_at
from embodied_vision.types import Camera, Features

S = 1_000_000_000
K = np.array([[200.0, 0, 79.5], [0, 200.0, 63.5], [0, 0, 1]])


def camera(name: str = "camera", x: float = 0.5) -> Camera:
    return Camera(name, 160, 128, K, look_at((x, 0.01, 1.0), (0.5, 0, 0)))


class Counting:
    """Patch means of 8 x 8 px, and how often they were computed."""

    encoder_id, artefact_id, dimension = "counting-1", "numpy", 3

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        self.calls += 1
        rows, columns = color.shape[0] // 8, color.shape[1] // 8
        grid = color.reshape(rows, 8, columns, 8, 3).mean((1, 3)).astype(np.float32)
        return Features(grid, (8.0, 8.0), self.encoder_id, self.artefact_id, stamp_ns)


def image(seed: int = 0) -> NDArray[np.uint8]:
    return sample_images((128, 160), 1, seed=seed)[0]


def noisy(color: NDArray[np.uint8], seed: int, sigma: float = 1.5) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, sigma, color.shape)
    return np.clip(color + noise, 0, 255).round().astype(np.uint8)


def test_the_same_image_has_the_same_features_under_its_own_stamp() -> None:
    inner = Counting()
    encoder = ReusingEncoder(inner)
    assert encoder.encoder_id == inner.encoder_id, "nothing else is ever given"
    first = encoder.encode(image(), 5)
    first.grid[:] = -1  # what was given out is the caller's
    again = encoder.encode(image(), 6)
    np.testing.assert_array_equal(again.grid, inner.encode(image()).grid)
    again.grid[:] = -1
    third = encoder.encode(image(), 7)
    np.testing.assert_array_equal(third.grid, inner.encode(image()).grid)
    assert (again.stamp_ns, third.stamp_ns) == (6, 7)
    assert (encoder.counts.all, encoder.counts.nothing, encoder.counts.part) == (1, 2, 0)


def test_one_value_of_one_pixel_is_a_change() -> None:
    encoder, other = ReusingEncoder(Counting()), image()
    encoder.encode(image(), 1)
    other[100, 31, 2] ^= 1
    np.testing.assert_array_equal(encoder.encode(other, 2).grid, Counting().encode(other).grid)
    assert encoder.counts.all == 2


@pytest.mark.parametrize("levels", [0.0, 4.0])
def test_the_callers_buffer_may_be_written_over(levels: float) -> None:
    """A driver that uses one buffer for all its images."""
    encoder, buffer = ReusingEncoder(Counting(), levels), image()
    encoder.encode(buffer, 1)
    buffer[:] = image(1)
    np.testing.assert_array_equal(encoder.encode(buffer, 2).grid, Counting().encode(image(1)).grid)


def test_all_is_computed_again_in_time() -> None:
    inner = Counting()
    encoder = ReusingEncoder(inner, 4.0, most_age_s=0.5)
    for stamp in (0, S // 4, S // 2):
        encoder.encode(noisy(image(), stamp), stamp)
    assert inner.calls == 1
    encoder.encode(image(), S // 2 + 1)
    assert inner.calls == 2
    encoder.encode(image(), S)
    assert inner.calls == 2, "the age counts from when all was computed"
    encoder.encode(image(), 0)
    assert inner.calls == 3, "a clock that went back"


def test_noise_is_no_change_and_a_thing_that_moved_is() -> None:
    encoder = ReusingEncoder(Counting(), 4.0)
    assert encoder.encoder_id == "counting-1-reuse4"
    for seed in range(5):
        features = encoder.encode(noisy(image(), seed), seed)
        assert features.encoder_id == encoder.encoder_id
    assert encoder.counts.nothing == 4
    moved = image()
    moved[40:48, 40:44] = 255 - moved[40:48, 40:44]
    assert parity(encoder.encode(moved, 9).grid, Counting().encode(moved).grid).max_error == 0
    assert encoder.counts.all == 2


def test_small_changes_do_not_add_up_unseen() -> None:
    """A light that dims by a level an image: never more than the bound away from what was encoded."""
    encoder, color = ReusingEncoder(Counting(), 4.0, most_age_s=100.0), np.full((128, 160, 3), 200, np.uint8)
    for step in range(60):
        now = color - np.uint8(step)
        features = encoder.encode(now, step)
        assert np.abs(features.grid - now[::8, ::8]).max() <= 4.0
    assert encoder.counts.all == 12


def test_a_network_that_sees_near_computes_the_part_that_changed() -> None:
    inner = load_encoder()
    encoder = ReusingEncoder(inner, 3.0)
    encoder.encode(image(), 0)
    moved = image()
    moved[8:24, 8:24] = 255 - moved[8:24, 8:24]
    features = encoder.encode(moved, 1)
    assert (encoder.counts.part, encoder.counts.all) == (1, 1)
    exact = inner.encode(moved)
    assert parity(features.grid, exact.grid).cosine > 0.97
    assert parity(features.grid[:3, :3], exact.grid[:3, :3]).cosine > 0.995
    far = np.s_[12:, 14:]
    np.testing.assert_array_equal(features.grid[far], inner.encode(image()).grid[far])
    back = encoder.encode(image(), 2)
    assert encoder.counts.part == 2, "what was computed in part is compared with what it came from"
    assert parity(back.grid[:3, :3], inner.encode(image()).grid[:3, :3]).cosine > 0.995
    encoder.encode(image(5), 3)
    assert encoder.counts.all == 2, "more than half of it changed"


def test_every_camera_has_a_memory_of_its_own() -> None:
    inner = Counting()
    encoder = ReusingEncoder(inner)
    for stamp in range(3):
        for name, seed in (("left", 0), ("right", 1)):
            features = encoder.encode_seen(image(seed), camera(name), stamp)
            np.testing.assert_array_equal(features.grid, Counting().encode(image(seed)).grid)
    assert inner.calls == 2
    encoder.encode_seen(image(), camera("left", x=0.51), 3)
    assert inner.calls == 3, "a camera that was moved"
    encoder.encode_seen(image()[:64], None, 3)
    encoder.encode_seen(image(), None, 3)
    assert inner.calls == 5, "another size"
    encoder.forget()
    encoder.encode_seen(image(1), camera("right"), 4)
    assert inner.calls == 6


def test_changes_outside_the_region_are_none() -> None:
    encoder = load_encoder("default+region=0.45:0.55,-0.05:0.05,-0.01:0.05+margin=0+reuse=3")
    assert isinstance(encoder, ReusingEncoder)
    inner = encoder._inner
    assert isinstance(inner, RegionEncoder)
    first = encoder.encode_seen(image(), camera(), 0)
    moved = image()
    moved[:8, :8] = 255 - moved[:8, :8]
    again = encoder.encode_seen(moved, camera(), 1)
    assert encoder.counts.nothing == 1
    np.testing.assert_array_equal(first.grid, again.grid)
    moved[60:68, 76:84] = 255 - moved[60:68, 76:84]
    seen = encoder.encode_seen(moved, camera(), 2)
    assert encoder.counts.all == 2
    np.testing.assert_array_equal(seen.grid, inner.encode_seen(moved, camera()).grid)


def test_an_image_that_cannot_be_encoded_leaves_no_features_behind() -> None:
    encoder = ReusingEncoder(CompactEncoder.random(0))
    encoder.encode(image(), 0)
    for bad in (image().astype(np.float32), image()[..., :2], np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(EncoderError):
            encoder.encode(bad, 1)  # type: ignore[arg-type]
    encoder.encode(image(), 2)
    assert encoder.counts.nothing == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("default+reuse=-1", "-1 levels"),
        ("default+reuse=nan", "nan levels"),
        ("default+reuse=exact+age=0", "0 s"),
        ("default+reuse=some", "reuse=some is not understood"),
        ("default+age=1", "takes no option age"),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, words: str) -> None:
    with pytest.raises(EncoderError, match=words):
        load_encoder(name)

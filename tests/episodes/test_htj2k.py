"""HTJ2K images: small at the same error, and nothing that is not one of ours gets to the decoder."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.codecs import JpegChunks
from embodied_vision.episodes.htj2k import Htj2kChunks
from embodied_vision.types import RGBD

from .samples import make_camera

U1 = np.dtype(np.uint8)


def noisy_scene(height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Texture under the noise of a sensor, (1, H, W, 3)."""
    rng = np.random.default_rng(3)
    texture = 60 * gaussian_filter(rng.normal(size=(height, width, 3)), (3, 3, 0))
    noise = rng.normal(0, 2.5, (height, width, 1)) + gaussian_filter(rng.normal(0, 2, (height, width, 3)), (1, 1, 0))
    return np.clip(120 + 10 * texture + noise, 0, 255).astype(np.uint8)[None]


def psnr(codec: JpegChunks | Htj2kChunks, image: NDArray[np.uint8]) -> tuple[float, int]:
    """dB, and bytes of the encoded image."""
    data = codec.encode(image)
    error = codec.decode(data, image.shape, U1).astype(float) - image
    return float(10 * np.log10(255**2 / np.mean(error**2))), len(data)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (12, 16), (33, 65), (7, 400)])
def test_images_of_any_size_come_back(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), np.uint8)
    out = np.empty_like(image)
    data = Htj2kChunks(100).encode(image)
    assert Htj2kChunks().decode(data, image.shape, U1, out) is out, "the quality is in the image"
    assert np.abs(out.astype(int) - image).mean() < 4


def test_at_the_same_quality_it_is_smaller_than_jpeg_and_as_good() -> None:
    image = noisy_scene()
    for quality in (60, 75, 90, 95):
        (ours, size), (theirs, jpeg_size) = psnr(Htj2kChunks(quality), image), psnr(JpegChunks(quality), image)
        assert size < 0.8 * jpeg_size, quality
        assert theirs - 0.5 < ours < theirs + 2.5, quality


def test_a_frame_may_be_of_lower_quality_than_its_episode(tmp_path) -> None:
    image, store = noisy_scene()[0], EpisodeStore(tmp_path)
    camera = make_camera(height=image.shape[0], width=image.shape[1])
    frame = RGBD(image, np.zeros(image.shape[:2], np.float32), camera, 0)
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="htj2k") as writer:
        for quality in (None, 40, 100):
            writer.append_encoded(writer.encode(frame, quality))
        writer.close({})
    frames = store.open(writer.id).frames("camera")
    full, low, as_asked = (frames.color(index) for index in range(3))
    np.testing.assert_array_equal(full, as_asked)
    assert np.abs(low.astype(int) - image).mean() > 1.2 * np.abs(full.astype(int) - image).mean()
    assert len(frames.encoded_color(1)) < len(frames.encoded_color(0)) / 2


def test_another_image_is_not_decoded() -> None:
    image = noisy_scene()
    data, shape = Htj2kChunks().encode(image), image.shape
    others = {
        "of another size": Htj2kChunks().encode(image[:, :90]),
        "of 16 gigapixels": data[:8] + (1 << 17).to_bytes(4, "big") * 2 + data[16:],
        "in tiles": bytes(imagecodecs.htj2k_encode(image[0], reversible=False, planar=False, tile=(32, 32))),
        "lossless": bytes(imagecodecs.htj2k_encode(image[0], reversible=True, planar=False)),
        "of the older coder": bytes(imagecodecs.jpeg2k_encode(image[0], level=40, codecformat="j2k")),
        "cut short": data[:-100],
        "without an end": data[:-2] + b"\0\0",
        "longer": data + b"\0",
        "its header alone": data[:80],
        "nothing": b"",
    }
    for other in others.values():
        with pytest.raises(ValueError, match="HTJ2K"):
            Htj2kChunks().decode(other, shape, U1)


def test_a_damaged_image_ends_in_an_error_or_in_pixels() -> None:
    """Both within the time and memory of a whole one; which of both, the seal of the chunk decides before."""
    image = noisy_scene()
    data, shape = Htj2kChunks().encode(image), image.shape
    refused = 0
    for seed in range(600):
        rng, damaged = np.random.default_rng(seed), bytearray(data)
        for at in rng.integers(0, len(data), 1 + seed % 7):
            damaged[at] ^= 1 << rng.integers(0, 8)
        try:
            assert Htj2kChunks().decode(bytes(damaged), shape, U1).shape == shape
        except ValueError:
            refused += 1
    assert refused > 300

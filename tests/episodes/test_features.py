"""Cached features are those that the encoder makes, of the images as they are now, or none."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.episodes.arrays import read_attributes, write_group
from embodied_vision.episodes.features import FeatureCache
from embodied_vision.episodes.manifest import MANIFEST, write_manifest
from embodied_vision.episodes.windows import Sampling, Windows
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.types import Features
from episodes.samples import Child, make_camera, make_frame


class Means:
    """Mean colors of 4 × 4 px patches, times a factor."""

    artefact_id = "numpy"
    dimension = 3

    def __init__(self, encoder_id: str = "means", factor: float = 1.0) -> None:
        self.encoder_id = encoder_id
        self._factor = factor
        self.calls = 0

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        self.calls += 1
        rows, columns, _ = color.shape
        grid = color.reshape(rows // 4, 4, columns // 4, 4, 3).mean((1, 3)).astype(np.float32) * self._factor
        return Features(grid, (4.0, 4.0), self.encoder_id, self.artefact_id, stamp_ns)


def write(store: EpisodeStore, numbers: range = range(6)) -> Episode:
    cameras = [make_camera("front"), make_camera("off")]
    with EpisodeWriter(store, task="task", robot="robot", cameras=cameras) as writer:
        for number in numbers:
            writer.append_frame(make_frame(cameras[0], number))
        return store.open(writer.close({}))


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "store")


def expected(episode: Episode) -> NDArray[np.float16]:
    return np.stack([Means().encode(frame.color).grid for frame in episode.frames("front")]).astype(np.float16)


def folder_of(cache: FeatureCache) -> Path:
    (folder,) = (path for path in cache.folder.glob("*/*/front-*"))
    return folder


def test_features_are_computed_once_and_come_back(store: EpisodeStore) -> None:
    episode, encoder = write(store), Means()
    cache = FeatureCache.of(store, encoder.encoder_id)
    with pytest.raises(BadInput, match="episodes features"):
        cache.open(episode, "front")
    frames: list[int] = []
    assert cache.fill(episode, "front", encoder, lambda: frames.append(1))
    assert not cache.fill(episode, "front", encoder)
    assert len(frames) == encoder.calls == 6
    found = cache.open(episode, "front")
    assert (found.item, found.stride, found.artefact_id, len(found)) == ((3, 4, 3), (4.0, 4.0), "numpy", 6)
    np.testing.assert_array_equal(found.grids([4, 0, -1, 4]), expected(episode)[[4, 0, -1, 4]])
    np.testing.assert_array_equal(zarr.open_array(folder_of(cache) / "grid", mode="r")[:], expected(episode))


def test_windows_of_features_align_like_images(store: EpisodeStore) -> None:
    episode, encoder = write(store), Means()
    cache = FeatureCache.of(store, encoder.encoder_id)
    cache.fill(episode, "front", encoder)
    cache.fill(episode, "off", encoder)
    samplings = {"cameras/front/features": Sampling.at(-1e-9, 0), "cameras/off/features": Sampling.at(0)}
    windows = Windows(episode, samplings, features=cache.open)
    window = windows[2]["cameras/front/features"]
    np.testing.assert_array_equal(window.values, expected(episode)[1:3])
    assert windows[0]["cameras/front/features"].padded.tolist() == [True, False]
    assert windows[0]["cameras/off/features"].padded.all()


def test_features_of_images_that_were_changed_are_not_found(store: EpisodeStore) -> None:
    episode, encoder = write(store), Means()
    cache = FeatureCache.of(store, encoder.encoder_id)
    cache.fill(episode, "front", encoder)
    other = write(store, range(10, 16))
    image = "data.zarr/cameras/front/color/c.0.0.0.0"
    shutil.copy(other.path / image, episode.path / image)
    (episode.path / MANIFEST).unlink()
    write_manifest(episode.path, episode.id)
    changed = store.open(episode.id)
    assert not cache.holds(changed, "front")
    assert cache.fill(changed, "front", encoder)
    np.testing.assert_array_equal(cache.open(changed, "front").grids(range(6)), expected(other))
    assert cache.prune(store) == 1
    assert cache.holds(changed, "front")


def test_features_outlive_a_change_of_the_outcome_alone(store: EpisodeStore) -> None:
    episode, encoder = write(store), Means()
    cache = FeatureCache.of(store, encoder.encoder_id)
    cache.fill(episode, "front", encoder)
    attributes = episode.path / "data.zarr" / "streams" / "zarr.json"
    attributes.unlink()
    write_group(attributes.parent, {"note": "changed"})
    (episode.path / MANIFEST).unlink()
    write_manifest(episode.path, episode.id)
    assert cache.holds(store.open(episode.id), "front")
    assert cache.prune(store) == 0


def test_another_encoder_has_features_of_its_own(store: EpisodeStore) -> None:
    episode = write(store)
    one, other = Means(), Means("../of/another", 2.0)
    caches = [FeatureCache.of(store, encoder.encoder_id) for encoder in (one, other)]
    for cache, encoder in zip(caches, (one, other), strict=True):
        cache.fill(episode, "front", encoder)
    np.testing.assert_array_equal(
        2 * caches[0].open(episode, "front").grids([1]), caches[1].open(episode, "front").grids([1])
    )
    with pytest.raises(BadInput, match="means"):
        caches[0].fill(episode, "front", other)
    assert caches[1].clear() == 1
    assert caches[0].holds(episode, "front")
    assert {path.name for path in store.path.iterdir()} <= {"episodes", "staging", "features"}


def test_damaged_features_are_noticed_and_computed_again(store: EpisodeStore) -> None:
    episode, encoder = write(store), Means()
    cache = FeatureCache.of(store, encoder.encoder_id)
    cache.fill(episode, "front", encoder)
    shard = folder_of(cache) / "grid" / "c.0.0.0.0"
    data = bytearray(shard.read_bytes())
    data[40] ^= 4
    shard.write_bytes(data)
    with pytest.raises(EpisodeError, match="fill the cache"):
        cache.open(episode, "front").grids(range(6))
    assert not cache.fill(episode, "front", encoder)
    assert cache.fill(episode, "front", encoder, check=True)
    np.testing.assert_array_equal(cache.open(episode, "front").grids(range(6)), expected(episode))
    attributes = read_attributes(folder_of(cache))
    for damaged in ({**attributes, "stride": [4.0]}, {**attributes, "length": 7}, {"stride": 1}, {}):
        (folder_of(cache) / "zarr.json").unlink()
        write_group(folder_of(cache), damaged)
        assert not cache.holds(episode, "front")
    (folder_of(cache) / "zarr.json").write_bytes(b"")
    assert cache.fill(episode, "front", encoder)
    shutil.rmtree(cache.folder)
    assert cache.fill(episode, "front", encoder)


def test_what_a_killed_builder_left_is_no_features_and_is_pruned(store: EpisodeStore) -> None:
    episode = write(store)

    class Killed(Means):
        def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().encode(color, stamp_ns)

    cache = FeatureCache.of(store, "means")
    with pytest.raises(KeyboardInterrupt):
        cache.fill(episode, "front", Killed())
    assert not cache.holds(episode, "front")
    left = cache.folder / "means" / episode.id / ".building-1"
    left.mkdir()
    assert cache.prune(store) == 0  # somebody may be building
    os.utime(left, (0, 0))
    assert cache.prune(store) == 1
    assert cache.fill(episode, "front", Means())


def test_two_that_fill_at_once_do_not_disturb_each_other(store: EpisodeStore) -> None:
    episode = write(store)
    cache = FeatureCache.of(store, "means")

    class Overtaken(Means):
        def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
            if self.calls == 3:
                assert cache.fill(episode, "front", Means())
            return super().encode(color, stamp_ns)

    cache.fill(episode, "front", Overtaken())
    np.testing.assert_array_equal(cache.open(episode, "front").grids(range(6)), expected(episode))
    assert len(list((cache.folder / "means" / episode.id).iterdir())) == 1


def test_features_that_float16_cannot_hold_are_refused(store: EpisodeStore) -> None:
    episode = write(store)
    with pytest.raises(BadInput, match="float16"):
        FeatureCache.of(store, "means").fill(episode, "front", Means(factor=1e4))


def test_a_full_disk_is_told_and_leaves_nothing(store: EpisodeStore) -> None:
    episode = write(store)
    cache = FeatureCache.of(store, "means")

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))  # the system refuses to write more, as a full disk does
        with pytest.raises(EpisodeError, match="cannot be written"):
            cache.fill(episode, "front", Means())

    with Child(fill) as child:
        assert child.wait() == 0
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []
    assert cache.fill(episode, "front", Means())


def test_a_place_that_cannot_be_written_is_told(store: EpisodeStore) -> None:
    episode = write(store)
    (store.path / "features").write_text("in the way")
    with pytest.raises(EpisodeError, match="features"):
        FeatureCache.of(store, "means").fill(episode, "front", Means())

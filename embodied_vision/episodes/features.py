"""A cache of what an encoder makes of an episode's frames. May be deleted at any time, whole or in part.

    STORE/features/ENCODER/EPISODE/CAMERA-DIGEST/    a Zarr v3 group with one array, `grid`: float16 (T, h, w, D)

The digest is of the camera's images as the episode's manifest has them, so what was computed from images that were
changed or cut since is not found any more. Chunks carry a crc32c as those of episodes do.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embodied_vision.episodes.arrays import ArrayReader, ArraySpec, read_attributes, write_chunks, write_group
from embodied_vision.episodes.batch import read_chunks, whole_numbers
from embodied_vision.episodes.codecs import BloscChunks, seal
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.schema import folder_name
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError

if TYPE_CHECKING:
    from embodied_vision.encoders.base import Encoder

FOLDER = "features"
_GRID = "grid"
_BUILDING = ".building-"
_ABANDONED_S = 24 * 3600.0
"""After so long nobody is still building."""


class CachedFeatures:
    """Features of all frames of a camera. Holds no file open.

    Attributes:
        path: where they lie.
        stride: patch size (rows, columns) in px of the color image.
        artefact_id: runtime and precision that computed them.
    """

    def __init__(self, path: Path, wanted: dict[str, Any]) -> None:
        attributes = read_attributes(path)
        self.path = path
        self._array = ArrayReader(path / _GRID).expect("float16", axes=3, chunk=1)
        found = {key: attributes.get(key) for key in wanted}
        if found != wanted or self._array.length != wanted["length"]:
            raise EpisodeError(f"{path} holds features of {found}, expected {wanted}; delete it")
        try:
            rows, columns = attributes["stride"]
            self.stride: tuple[float, float] = (float(rows), float(columns))
            self.artefact_id = str(attributes["artefact_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise EpisodeError(f"{path} is damaged ({error!r}); delete it") from error

    def __len__(self) -> int:
        return self._array.length

    @property
    def item(self) -> tuple[int, ...]:
        """Shape (h, w, D) of the features of one frame."""
        return self._array.spec.item

    def grids(self, numbers: ArrayLike, threads: int | None = None) -> NDArray[np.float16]:
        """Features (N, h, w, D) of frames.

        Args:
            numbers: which frames, in any order; negative ones count from the end.
            threads: that decode; None takes the cores that this process may use.

        Raises:
            IndexError: there is no such frame.
            EpisodeError: they are damaged; delete them and fill the cache again.
        """
        try:
            return read_chunks(self._array, whole_numbers(numbers, len(self), "features of frame"), threads)[:, 0]
        except EpisodeError as error:
            raise EpisodeError(f"{error}, or delete {self.path} and fill the cache of features again") from error


@dataclass(frozen=True)
class FeatureCache:
    """Features of one encoder. Holds no state but its path: many processes may read and fill one cache.

    Attributes:
        folder: of the cache.
        encoder_id: whose features.
    """

    folder: Path
    encoder_id: str

    @classmethod
    def of(cls, store: EpisodeStore, encoder_id: str) -> FeatureCache:
        """The cache beside the episodes.

        Raises:
            BadInput: the store is in object storage; give a local folder then.
        """
        return cls(store.path / FOLDER, encoder_id)

    def open(self, episode: Episode, camera: str) -> CachedFeatures:
        """Features of a camera of an episode as its images are now.

        Raises:
            BadInput: they were not computed yet, or are damaged; or there is no such camera.
        """
        path, wanted = self._place(episode, camera)
        try:
            return CachedFeatures(path, wanted)
        except EpisodeError as error:
            raise BadInput(
                f"no features of episode {episode.id}, camera {camera!r}, by encoder {self.encoder_id} ({error}); "
                "compute them: embodied-vision episodes features STORE"
            ) from error

    def holds(self, episode: Episode, camera: str, *, whole: bool = False) -> bool:
        """Whether the features of a camera are there; `whole` reads all of them."""
        path, wanted = self._place(episode, camera)
        try:
            array = CachedFeatures(path, wanted)._array
            for number, sealed in array.sealed(range(array.length)) if whole else ():
                array.decode(number, sealed)
        except EpisodeError:
            return False
        return True

    def fill(
        self,
        episode: Episode,
        camera: str,
        encoder: Encoder,
        on_frame: Callable[[], None] | None = None,
        *,
        check: bool = False,
    ) -> bool:
        """Compute the features of a camera, unless they are there. They appear whole, by one rename.

        Args:
            episode, camera: whose.
            encoder: must be the one that the cache is of.
            on_frame: called after each frame.
            check: read what is there, and compute it again where it is damaged.

        Returns:
            whether anything was computed.

        Raises:
            BadInput: another encoder, or features that float16 cannot hold.
            EpisodeError: the images are damaged, or the cache cannot be written.
        """
        if encoder.encoder_id != self.encoder_id:
            raise BadInput(f"the cache is of encoder {self.encoder_id}, given {encoder.encoder_id}; open another cache")
        if self.holds(episode, camera, whole=check):
            return False
        path, wanted = self._place(episode, camera)
        building = path.parent / f"{_BUILDING}{uuid.uuid4().hex}"
        try:
            building.mkdir(parents=True)
            try:
                _write(building, episode, camera, encoder, wanted, on_frame or (lambda: None))
                if self.holds(episode, camera, whole=check):
                    return False  # somebody else was faster
                shutil.rmtree(path, ignore_errors=True)
                os.rename(building, path)
            finally:
                shutil.rmtree(building, ignore_errors=True)
        except OSError as error:
            if self.holds(episode, camera):
                return False  # somebody else was faster
            raise EpisodeError(
                f"{error.filename or path} cannot be written ({error.strerror}); free space, or delete {self.folder}"
            ) from error
        return True

    def clear(self) -> int:
        """Delete all features of the encoder; how many cameras of episodes they were of."""
        mine = self.folder / _safe(self.encoder_id)
        count = sum(1 for _ in _entries(mine))
        if mine.is_dir() and not mine.is_symlink():
            shutil.rmtree(mine, ignore_errors=True)
        return count

    def prune(self, store: EpisodeStore) -> int:
        """Delete features whose episode is gone or has other images now, and what killed builders left; how many."""
        count = 0
        kept: dict[str, set[str]] = {}
        for entry in _entries(self.folder / _safe(self.encoder_id)):
            episode_id = entry.parent.name
            if episode_id not in kept:
                kept[episode_id] = self._names(store, episode_id)
            if entry.name.startswith(_BUILDING):
                stale = time.time() - entry.stat().st_mtime > _ABANDONED_S
            else:
                stale = entry.name not in kept[episode_id]
            if stale:
                shutil.rmtree(entry, ignore_errors=True)
                count += 1
        return count

    def _names(self, store: EpisodeStore, episode_id: str) -> set[str]:
        try:
            episode = store.open(episode_id)
            return {self._place(episode, camera)[0].name for camera in episode.cameras}
        except EpisodeError:
            return set()

    def _place(self, episode: Episode, camera: str) -> tuple[Path, dict[str, Any]]:
        digest = episode.color_digest(camera)
        identity = {"encoder_id": self.encoder_id, "episode": episode.id, "camera": camera, "color_sha256": digest}
        folder = self.folder / _safe(self.encoder_id) / episode.id
        return folder / f"{folder_name(camera)}-{digest[:16]}", {**identity, "length": len(episode.frames(camera))}


def _write(
    folder: Path,
    episode: Episode,
    camera: str,
    encoder: Encoder,
    wanted: dict[str, Any],
    on_frame: Callable[[], None],
) -> None:
    frames = episode.frames(camera)
    encode = partial(_encode, episode, camera, encoder)
    first, stride = encode(0) if len(frames) else (np.zeros((1, 1, encoder.dimension), np.float16), (1.0, 1.0))
    spec = ArraySpec(first.shape, np.dtype("<f2"), 1, BloscChunks(2))

    def chunks() -> Iterator[bytes]:
        for number in range(len(frames)):
            grid = first if number == 0 else encode(number)[0]
            on_frame()
            yield seal(spec.codec.encode(grid[None]))

    write_chunks(folder / _GRID, spec, len(frames), chunks())
    write_group(folder, {**wanted, "artefact_id": encoder.artefact_id, "stride": list(stride)})


def _encode(
    episode: Episode, camera: str, encoder: Encoder, number: int
) -> tuple[NDArray[np.float16], tuple[float, float]]:
    features = encoder.encode(episode.frames(camera).color(number))
    with np.errstate(over="ignore"):
        grid = features.grid.astype(np.float16)
    if not np.isfinite(grid).all():
        raise BadInput(
            f"encoder {encoder.encoder_id} makes features of episode {episode.id}, camera {camera!r}, frame {number} "
            f"that float16 cannot hold (greatest {np.abs(features.grid).max():.3g}); use them without the cache"
        )
    return grid, features.stride


def _entries(folder: Path) -> Iterator[Path]:
    """Cameras' folders of an encoder, links left out."""
    if folder.is_dir() and not folder.is_symlink():
        for episode in sorted(folder.iterdir()):
            if episode.is_dir() and not episode.is_symlink():
                yield from (entry for entry in sorted(episode.iterdir()) if entry.is_dir() and not entry.is_symlink())


def _safe(encoder_id: str) -> str:
    """A folder's name for an encoder: its id, or a hash of one that names no folder."""
    if re.fullmatch(r"[0-9A-Za-z_-]{1,80}", encoder_id):
        return encoder_id
    return hashlib.sha256(encoder_id.encode()).hexdigest()

"""Bringing episodes of one store into another, by id. May be repeated: what is there already is left out."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embodied_vision.episodes.edit import disk_errors, editing
from embodied_vision.episodes.manifest import MANIFEST, Entry, read_manifest
from embodied_vision.episodes.pin import identity
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.regular import check_own_folders, open_regular
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.swap import appear, locked, take_out
from embodied_vision.episodes.verify import verify_episode
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.syncing import sync, sync_tree

_PIECE = 1 << 20

State = Literal["copied", "moved", "there", "conflict", "damaged"]


@dataclass(frozen=True)
class Merged:
    """What became of one episode.

    Attributes:
        id: of the episode.
        state: "copied", or "moved" and gone from where it was; "there": the very same episode was in the store before;
            "conflict": another one of that id is in the store; "damaged": it is not what was written. Nothing changed
            in the last three cases.
        detail: what is wrong, in the last two cases.
    """

    id: str
    state: State
    detail: str = ""


def merge_one(store: EpisodeStore, source: EpisodeStore, episode_id: str, *, move: bool = False) -> Merged:
    """Bring one closed episode of `source` into `store`; every byte is compared with its manifest on the way.

    Args:
        store: where to; made where it is missing.
        source: where from.
        episode_id: which one.
        move: delete it from `source` once it is in `store`, whole and on the disk.

    Raises:
        BadInput: both are the same store.
        EpisodeError: `source` has no such episode, another process changes it, or a disk is full or fails: the episode
            is still in `source` and not in `store`.
    """
    check_apart(store, source)
    folder = source.folder(episode_id)
    with disk_errors(store, episode_id):
        check_own_folders(source.path)
        with locked(store, episode_id) as edits:
            target = store.episodes_path / episode_id
            if episode_id in store.staging_ids():
                return Merged(
                    episode_id, "conflict", f"{store.staging_path / episode_id} is unfinished; repair it first"
                )
            if target.exists():
                merged = _compare(folder, target)
            else:
                merged = _copy(folder, edits / episode_id)
                if merged.state == "copied":
                    appear(store, edits / episode_id, target)
    if move and merged.state in ("copied", "there"):
        return _take_from(source, store, merged)
    return merged


def check_apart(store: EpisodeStore, source: EpisodeStore) -> None:
    """Raises BadInput where both are the same store."""
    if store.path.exists() and source.path.exists() and store.path.samefile(source.path):
        raise BadInput(f"{source.path} and {store.path} are the same store; give two")


def _compare(folder: Path, target: Path) -> Merged:
    try:
        if read_manifest(folder) == read_manifest(target):
            return Merged(folder.name, "there")
    except EpisodeError as error:
        return Merged(folder.name, "damaged", str(error))
    return Merged(
        folder.name,
        "conflict",
        f"{target} differs from {folder}: one of them was changed; delete the one that is not wanted",
    )


def _copy(folder: Path, build: Path) -> Merged:
    while True:
        before = identity(folder)
        try:
            _copy_checked(folder, build)
            Episode(build)  # of a schema that is known
        except EpisodeError as error:
            shutil.rmtree(build, ignore_errors=True)
            if identity(folder) != before:
                continue  # it was changed meanwhile
            return Merged(folder.name, "damaged", str(error))
        sync_tree(build)
        sync(build)
        return Merged(folder.name, "copied")


def _copy_checked(folder: Path, build: Path) -> None:
    build.mkdir()
    read_manifest(folder)
    with open(open_regular(folder / MANIFEST), "rb") as reading, open(build / MANIFEST, "xb") as writing:
        shutil.copyfileobj(reading, writing)
    for name, entry in read_manifest(build).items():
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        _copy_file(folder / name, build / name, entry)


def _copy_file(source: Path, target: Path, entry: Entry) -> None:
    try:
        fd = open_regular(source)
    except OSError as error:
        raise EpisodeError(f"{source} cannot be read ({error.strerror}); restore it from a copy") from error
    digest, size = hashlib.sha256(), 0
    with open(fd, "rb") as reading, open(target, "xb") as writing:
        while size <= entry.size and (piece := reading.read(_PIECE)):
            digest.update(piece)
            size += len(piece)
            writing.write(piece)
    if (size, digest.hexdigest()) != (entry.size, entry.sha256):
        raise EpisodeError(f"{source} is not what was written (size or sha256); restore it from a copy")


def _take_from(source: EpisodeStore, store: EpisodeStore, merged: Merged) -> Merged:
    """Delete the source's episode, if it is still the one that `store` holds whole."""
    report = verify_episode(store, merged.id)
    if not report.ok:
        return Merged(merged.id, "damaged", f"that of {store.path}: {report.problems[0]}; not moved")
    with editing(source, merged.id) as edit:
        if read_manifest(edit.source) != read_manifest(store.folder(merged.id)):
            return Merged(merged.id, "conflict", f"{edit.source} was changed while it was copied; not moved")
        take_out(source, merged.id)
    return Merged(merged.id, "moved")

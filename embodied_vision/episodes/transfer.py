"""Finished episodes to object storage and back; an episode is there whole, or not at all.

REMOTE/episodes/ID/data.zarr/...      as in a local store
REMOTE/episodes/ID/manifest.json      uploaded last: without it there is no episode
REMOTE/staging/ID/push.json           there while an upload is under way, or was cut off: what it uploads
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embodied_vision.episodes.files import file_sha256
from embodied_vision.episodes.manifest import MANIFEST, Entry, check_sizes, read_manifest
from embodied_vision.episodes.remote import RemotePath, in_parallel
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.swap import appear, locked
from embodied_vision.episodes.verify import verify_folder
from embodied_vision.errors import BadInput, EpisodeError, RunFailed
from embodied_vision.syncing import sync

MARKER = "push.json"

Progress = Callable[[int], None]
"""Told how many more bytes are there."""


@dataclass(frozen=True)
class Transferred:
    """What became of one episode.

    Attributes:
        id: of the episode.
        state: "copied", or "there" before, byte for byte.
        files: how many went over the line; fewer than the episode has where an earlier attempt was cut off.
        size: bytes of those.
    """

    id: str
    state: Literal["copied", "there"]
    files: int = 0
    size: int = 0


def push(
    store: EpisodeStore,
    remote: EpisodeStore,
    episode_id: str,
    *,
    verify: bool = False,
    progress: Progress | None = None,
) -> Transferred:
    """Upload a closed episode; may be repeated, also after it was cut off at any point.

    Every file is compared with the manifest on its way, so that nothing damaged is uploaded, and the server's list
    before the manifest follows.

    Args:
        store: local store.
        remote: store in object storage.
        episode_id: of an episode in `store`.
        verify: read everything back and compare it before the episode appears, also where it was there already.
        progress: told of bytes that are there.

    Raises:
        EpisodeError: the episode is missing or damaged here, a different one of its id is there, or the object storage
            cannot be used; what is there remains consistent.
        RunFailed: what was read back differs.
    """
    root = remote_root(remote)
    source, target, marker = store.folder(episode_id), root / "episodes" / episode_id, root / "staging" / episode_id
    with _errors(root):
        content = (source / MANIFEST).read_bytes()
        files = read_manifest(source)
        if (target / MANIFEST).is_file():
            return _there(target, content, verify)
        return _upload(source, target, marker / MARKER, content, files, verify, progress or (lambda _: None))


def _there(target: RemotePath, content: bytes, verify: bool) -> Transferred:
    if (target / MANIFEST).read_bytes() != content:
        raise EpisodeError(
            f"{target} is there already and differs from the local episode; episodes in object storage are never "
            "replaced: delete it there, or push to another prefix"
        )
    if verify:
        _verify(target)
    return Transferred(target.name, "there")


def _upload(
    source: Path,
    target: RemotePath,
    marker: RemotePath,
    content: bytes,
    files: Mapping[str, Entry],
    verify: bool,
    progress: Progress,
) -> Transferred:
    mine = json.dumps({"manifest_sha256": hashlib.sha256(content).hexdigest()}).encode()
    uploaded: Mapping[str, int] = {}
    if marker.is_file() and marker.read_bytes() == mine:  # then whatever is there whole is of this very episode
        uploaded = target.sizes_under() if target.connection.lists else {}
    else:
        marker.put(mine)
    missing = [name for name, entry in files.items() if uploaded.get(name) != entry.size]
    progress(sum(entry.size for name, entry in files.items() if name not in missing))

    def upload(name: str) -> None:
        path = source / name
        if path.stat().st_size != files[name].size or file_sha256(path) != files[name].sha256:
            raise EpisodeError(f"{path} differs from its manifest, so nothing was pushed; see `episodes verify`")
        (target / name).put(path)
        progress(files[name].size)

    in_parallel(upload, missing)
    there = check_sizes(target, dict(files))
    assert isinstance(there, RemotePath)
    for name in target.sizes_under() if target.connection.lists else ():
        if name not in files and name != MANIFEST:  # of another version whose push was cut off
            (target / name).delete()
    if verify:
        _verify(target, files)
    if not (target / MANIFEST).put_new(content) and (target / MANIFEST).read_bytes() != content:
        raise EpisodeError(f"{target} was pushed by somebody else meanwhile and differs; is the id used twice?")
    marker.delete()
    return Transferred(target.name, "copied", len(missing), sum(files[name].size for name in missing))


def _verify(target: RemotePath, files: Mapping[str, Entry] | None = None) -> None:
    """Compare everything with the manifest, which may not be there yet."""
    if files is None:
        problems = verify_folder(target).problems
    else:
        digests = in_parallel(lambda name: (target / name).sha256(), list(files))
        differing = [name for name, digest in zip(files, digests, strict=True) if digest != files[name].sha256]
        problems = tuple((name, "differs from what was uploaded") for name in differing)
    if problems:
        listed = "; ".join(f"{name}: {problem}" for name, problem in problems)
        raise RunFailed(f"{target} is damaged ({listed}); delete it there and push it again")


def pull(
    remote: EpisodeStore, store: EpisodeStore, episode_id: str, *, progress: Progress | None = None
) -> Transferred:
    """Download an episode; every byte is compared with the manifest before it appears in the local store.

    Args:
        remote: store in object storage.
        store: local store; made where it is missing.
        episode_id: of an episode in `remote`.
        progress: told of bytes that are there.

    Raises:
        EpisodeError: the episode is missing or damaged there, a different one of its id is here, the disk is full, or
            the object storage cannot be used; the local store is as it was.
    """
    remote_root(remote)
    told = progress or (lambda _: None)
    source = remote.open(episode_id).location
    assert isinstance(source, RemotePath)
    target = store.episodes_path / episode_id
    with _errors(store.path):
        content, files = (source / MANIFEST).read_bytes(), read_manifest(source)
        if target.is_dir():
            return _here(target, content, sum(entry.size for entry in files.values()), told)
        store.episodes_path.mkdir(parents=True, exist_ok=True)
        with locked(store, episode_id) as folder:
            size = sum(entry.size for entry in files.values())
            if shutil.disk_usage(folder).free < size:
                raise OSError(errno.ENOSPC, f"{size >> 20} MiB are needed", str(folder))
            build = folder / episode_id
            for name in files:
                _ = source / name  # refuses one that leads elsewhere, before anything is written
                (build / name).parent.mkdir(parents=True, exist_ok=True)
            in_parallel(lambda name: _download(source / name, build / name, files[name], told), list(files))
            _write(build / MANIFEST, content)
            for place, _, _ in os.walk(build, topdown=False):
                sync(Path(place))
            if target.is_dir():  # somebody else was quicker
                return _here(target, content, 0, told)
            appear(store, build, target)
    return Transferred(episode_id, "copied", len(files), size)


def _here(target: Path, content: bytes, size: int, progress: Progress) -> Transferred:
    if (target / MANIFEST).read_bytes() != content:
        raise EpisodeError(f"{target} is there already and differs from the remote episode; pull into another store")
    progress(size)
    return Transferred(target.name, "there")


def _download(source: RemotePath, target: Path, entry: Entry, progress: Progress) -> None:
    digest, size = hashlib.sha256(), 0
    with open(target, "xb") as file:
        for part in source.stream():
            size += len(part)
            if size > entry.size:
                break
            digest.update(part)
            file.write(part)
            progress(len(part))
        file.flush()
        os.fsync(file.fileno())
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise EpisodeError(f"{source} is damaged: it is not what its manifest says; push the episode again")


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remote_root(remote: EpisodeStore) -> RemotePath:
    """Where a store lies in object storage.

    Raises:
        BadInput: it is a folder.
    """
    if not isinstance(remote.location, RemotePath):
        raise BadInput(f"{remote.location} is a folder; give a URL of object storage such as s3://bucket/prefix")
    return remote.location


@contextmanager
def _errors(where: object) -> Iterator[None]:
    """An OSError as an EpisodeError that names the place."""
    try:
        yield
    except OSError as error:
        place = error.filename or where
        raise EpisodeError(
            f"{place}: {error.strerror}; mend that and repeat: what is done is not done again"
        ) from error

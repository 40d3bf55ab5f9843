"""Describing an episode from its manifest and metadata alone, each compared with its sha256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from embodied_vision.episodes import strict
from embodied_vision.episodes.files import Location, read_metadata
from embodied_vision.episodes.manifest import MANIFEST, Entry, read_manifest
from embodied_vision.episodes.pin import identity
from embodied_vision.episodes.schema import GROUP, folder_name
from embodied_vision.episodes.summary import Summary
from embodied_vision.episodes.versions import upgrade
from embodied_vision.errors import EpisodeError

_METADATA = "zarr.json"
_ATTEMPTS = 10


def read_summary(folder: Location) -> Summary:
    """Describe the episode in `folder`, of one version even where it is swapped meanwhile.

    Raises:
        EpisodeError: its manifest or metadata are damaged; with an OSError as its cause where they cannot be read.
    """
    for _ in range(_ATTEMPTS):
        before = identity(folder)
        try:
            summary = _read(folder)
        except EpisodeError:
            if before is None or identity(folder) == before:
                raise
            continue
        if identity(folder) == before:
            return summary
    raise EpisodeError(f"{folder} changes faster than it can be read; who keeps editing it?")


def traces(folder: Path) -> str:
    """Changes whenever one of the files that `read_summary` reads does; without reading them."""
    cameras = folder / GROUP / "cameras"
    paths = [folder, folder / MANIFEST, folder / GROUP, folder / GROUP / _METADATA, cameras]
    with suppress(OSError):  # then that is what is wrong
        paths += [cameras / name / _METADATA for name in sorted(os.listdir(cameras))]
    found: list[tuple[object, ...]] = []
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError as error:
            found.append((path.name, error.errno))
        else:
            found.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _read(folder: Location) -> Summary:
    files = read_manifest(folder)
    root = upgrade(_attributes(folder, f"{GROUP}/{_METADATA}", files), folder)
    try:
        frames = {}
        for camera in strict.items(root.get("cameras"), "cameras"):
            name = strict.text(strict.mapping(camera, "a camera").get("name"), "name of a camera")
            about = _attributes(folder, f"{GROUP}/cameras/{folder_name(name)}/{_METADATA}", files)
            frames[name] = strict.integer(about.get("length"), f"length of camera {name}", 0)
        samples = {}
        for name, about in strict.mapping(root.get("streams"), "streams").items():
            length = strict.mapping(about, f"stream {name}").get("length")
            samples[name] = strict.integer(length, f"length of stream {name}", 0)
        return Summary(
            id=folder.name,
            task=strict.text(root.get("task"), "task"),
            robot=strict.text(root.get("robot"), "robot"),
            encoder_id=strict.text(root.get("encoder_id"), "encoder_id"),
            policy_id=strict.text(root.get("policy_id"), "policy_id"),
            created_ns=strict.integer(root.get("created_ns"), "created_ns", 0),
            closed_ns=strict.integer(root.get("closed_ns"), "closed_ns", 0),
            outcome={**strict.mapping(root.get("outcome"), "outcome")},
            tags=tuple(strict.text(tag, "a tag") for tag in strict.items(root.get("tags"), "tags")),
            frames=frames,
            samples=samples,
            decisions=strict.integer(root.get("decisions"), "decisions", 0),
            size_bytes=strict.integer(sum(entry.size for entry in files.values()), "size of all files", 0),
        )
    except ValueError as error:
        if isinstance(error, EpisodeError):
            raise
        raise EpisodeError(f"{folder / GROUP} is no group of an episode ({error}); restore it from a copy") from error


def _attributes(folder: Location, name: str, files: Mapping[str, Entry]) -> Mapping[str, Any]:
    path = folder / name
    try:
        data = read_metadata(path)
        if name not in files or hashlib.sha256(data).hexdigest() != files[name].sha256:
            raise EpisodeError(f"{path}: contents differ from what was written (sha256); restore it from a copy")
        return strict.mapping(strict.mapping(strict.parse(data), "a group").get("attributes"), "its attributes")
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read ({error.strerror}); restore it from a copy") from error
    except ValueError as error:
        if isinstance(error, EpisodeError):
            raise
        raise EpisodeError(f"{path} is no group of an episode ({error}); restore it from a copy") from error

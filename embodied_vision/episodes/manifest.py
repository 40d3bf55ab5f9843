"""The manifest of an episode: size and sha256 of every file, and of itself. Written last."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_vision.episodes import strict
from embodied_vision.episodes.files import (
    METADATA_CAP,
    Location,
    file_sha256,
    file_size,
    read_metadata,
    sizes_of,
    sizes_under,
)
from embodied_vision.episodes.regular import check_folder
from embodied_vision.episodes.remote import READ_CAP, RemotePath
from embodied_vision.errors import EpisodeError

MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}(/[A-Za-z0-9_.-]{1,255})*")
_MISSING = "missing"
_DIFFERS = "contents differ from what was written (sha256)"


@dataclass(frozen=True)
class Entry:
    """Size in bytes and sha256 of one file."""

    size: int
    sha256: str


def write_manifest(folder: Path, episode_id: str, known: Mapping[str, Entry] | None = None) -> None:
    """Describe every file under `folder` in its manifest.

    Args:
        folder: of the episode.
        episode_id: its id.
        known: files that some manifest described already. They are not read again, so that damage they took since
            is still told from what was written.
    """
    entries = {
        name: (known or {}).get(name) or Entry((folder / name).stat().st_size, file_sha256(folder / name))
        for name in files_under(folder)
    }
    files = {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in entries.items()}
    content: dict[str, Any] = {"schema": 1, "id": episode_id, "files": files}
    content["sha256"] = _own_sha256(content)
    with open(folder / MANIFEST, "x", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def read_manifest(folder: Location) -> dict[str, Entry]:
    """Files of an episode by their path relative to `folder`.

    Raises:
        EpisodeError: the manifest is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        content = dict(strict.mapping(strict.parse(read_metadata(path)), "the manifest"))
        digest = content.pop("sha256", None)
        intact = digest == _own_sha256(content) and content.get("id") == folder.name
        files = _entries(content)
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read ({error.strerror}); restore it from a copy") from error
    except ValueError as error:
        raise EpisodeError(f"{path} is damaged ({error}); restore it from a copy") from error
    if not intact:
        raise EpisodeError(f"{path} is damaged: it does not match its own sha256 and folder; restore it from a copy")
    return files


def _entries(content: Mapping[str, Any]) -> dict[str, Entry]:
    files = {}
    for name, data in strict.mapping(content.get("files"), "files").items():
        if not _NAME.fullmatch(name) or {".", ".."} & set(name.split("/")):
            raise ValueError(f"it names {name!r:.80}, which is no file below the episode's folder")
        entry = strict.mapping(data, f"what it says of {name}")
        size = strict.integer(entry.get("size"), f"size of {name}", 0)
        files[name] = Entry(size, strict.text(entry.get("sha256"), f"sha256 of {name}"))
    return files


def check_sizes(folder: Location, files: dict[str, Entry]) -> Location:
    """Every file is there and whole in length, and metadata are as written; other contents are checked when read.

    Returns:
        the folder to read from; in object storage one that has the metadata at hand.

    Raises:
        EpisodeError: the first file that is not.
    """
    metadata = {name: entry.sha256 for name, entry in files.items() if name.endswith("zarr.json")}
    if isinstance(folder, RemotePath):
        return _check_remote(folder, files, metadata)
    root = str(folder)  # joining paths as objects takes a third of the time of opening an episode
    for name, problem in folder_problems(folder, files):
        _refuse(f"{root}/{name}", problem)
    for name in metadata:
        _refuse(f"{root}/{name}", f"{files[name].size} bytes" if files[name].size > METADATA_CAP else None)
    for name, entry in files.items():
        _refuse(f"{root}/{name}", file_problem(f"{root}/{name}", entry, contents=name in metadata))
    return folder


def folder_problems(folder: Path, files: Iterable[str]) -> list[tuple[str, str]]:
    """Folders that should hold the files and are none but, for instance, links; by their name relative to `folder`."""
    parents = {"", *(name.rpartition("/")[0] for name in files)}
    parents |= {"/".join(parent.split("/")[:depth]) for parent in parents for depth in range(1, parent.count("/") + 1)}
    problems = []
    for name in sorted(parents):
        try:
            check_folder(f"{folder}/{name}" if name else folder)  # a / at its end would follow a link
        except FileNotFoundError:
            continue  # its files are missing
        except OSError as error:
            problems.append((name or ".", str(error.strerror)))
    return problems


def _check_remote(folder: RemotePath, files: dict[str, Entry], metadata: dict[str, str]) -> RemotePath:
    """In few requests: one listing, and the metadata side by side."""
    try:
        folder = folder.pinned()
        sizes = sizes_of(folder, list(files))
        for name, entry in files.items():
            _refuse(folder / name, _size_problem(sizes.get(name), entry))
        held = sum(files[name].size for name in metadata)
        _refuse(folder, f"{held} bytes of metadata" if held > READ_CAP else None)
        folder.prefetch(metadata)
    except OSError as error:
        raise EpisodeError(f"{error.filename or folder} cannot be read ({error.strerror})") from error
    for name in metadata:
        _refuse(folder / name, None if folder.holds(name) else _DIFFERS)
    return folder


def _refuse(path: Location | str, problem: str | None) -> None:
    if problem:
        raise EpisodeError(f"{path}: {problem}; restore it from a copy")


def file_problem(path: Location | str, entry: Entry, *, contents: bool) -> str | None:
    """What is wrong with a file, or None; `contents` reads it whole and compares its sha256."""
    try:
        problem = _size_problem(file_size(path), entry)
        if problem is None and contents and file_sha256(path) != entry.sha256:
            return _DIFFERS
    except FileNotFoundError:
        return _MISSING
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return problem


def _size_problem(size: int | None, entry: Entry) -> str | None:
    if size is None:
        return _MISSING
    return None if size == entry.size else f"{size} bytes, the manifest says {entry.size}"


def files_under(folder: Location) -> list[str]:
    """All files of an episode but its manifest, relative to `folder`, sorted."""
    return sorted(set(sizes_under(folder)) - {MANIFEST})


def _own_sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

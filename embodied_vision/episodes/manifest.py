"""The manifest of an episode: size and sha256 of every file, and of itself. Written last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_vision.errors import EpisodeError

MANIFEST = "manifest.json"


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
        name: (known or {}).get(name) or Entry((folder / name).stat().st_size, _sha256(folder / name))
        for name in files_under(folder)
    }
    files = {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in entries.items()}
    content: dict[str, Any] = {"schema": 1, "id": episode_id, "files": files}
    content["sha256"] = _own_sha256(content)
    with open(folder / MANIFEST, "x", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Files of an episode by their path relative to `folder`.

    Raises:
        EpisodeError: the manifest is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        digest = content.pop("sha256")
        files = {name: Entry(int(entry["size"]), str(entry["sha256"])) for name, entry in content["files"].items()}
        intact = digest == _own_sha256(content) and content["id"] == folder.name
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read ({error.strerror}); restore it from a copy") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EpisodeError(f"{path} is damaged ({error!r}); restore it from a copy") from error
    if not intact:
        raise EpisodeError(f"{path} is damaged: it does not match its own sha256 and folder; restore it from a copy")
    return files


def check_sizes(folder: Path, files: dict[str, Entry]) -> None:
    """Every file is there and whole in length; contents are checked as they are read.

    Raises:
        EpisodeError: the first file that is not.
    """
    for name, entry in files.items():
        problem = file_problem(folder / name, entry, contents=name.endswith("zarr.json"))
        if problem:
            raise EpisodeError(f"{folder / name}: {problem}; restore it from a copy")


def file_problem(path: Path, entry: Entry, *, contents: bool) -> str | None:
    """What is wrong with a file, or None; `contents` reads it whole and compares its sha256."""
    try:
        size = path.stat().st_size
        if size != entry.size:
            return f"{size} bytes, the manifest says {entry.size}"
        if contents and _sha256(path) != entry.sha256:
            return "contents differ from what was written (sha256)"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def files_under(folder: Path) -> list[str]:
    """All files of an episode but its manifest, relative to `folder`, sorted."""
    found = []
    for root, _, names in os.walk(folder):
        found += [str((Path(root) / name).relative_to(folder)) for name in names]
    return sorted(set(found) - {MANIFEST})


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

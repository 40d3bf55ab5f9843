"""Is every byte of an episode what was written?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embodied_vision.episodes.files import Location, each
from embodied_vision.episodes.manifest import MANIFEST, file_problem, files_under, folder_problems, read_manifest
from embodied_vision.episodes.pin import identity
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import EpisodeError


@dataclass(frozen=True)
class Report:
    """What was found in one episode.

    Attributes:
        id: of the episode.
        ok: nothing is wrong with it.
        problems: (file relative to the episode's folder, what is wrong with it).
    """

    id: str
    ok: bool
    problems: tuple[tuple[str, str], ...]


def verify(store: EpisodeStore, ids: Sequence[str] | None = None) -> list[Report]:
    """Compare every file of every episode, or of those in `ids`, with the manifest.

    Raises:
        EpisodeError: an id is not in the store.
    """
    known = set(store.ids())
    unknown = sorted(set(ids or ()) - known)
    if unknown:
        where = store.location
        raise EpisodeError(f"no episodes {unknown} in {where}; see `embodied-vision episodes list {where}`")
    return [verify_episode(store, episode_id) for episode_id in (sorted(known) if ids is None else ids)]


def verify_episode(store: EpisodeStore, episode_id: str) -> Report:
    """Compare every file of one episode with its manifest; again, where it is edited meanwhile."""
    folder = store.location / "episodes" / episode_id
    while True:
        before = identity(folder)
        report = verify_folder(folder)
        if report.ok or identity(folder) == before:
            return report


def verify_folder(folder: Location) -> Report:
    """Compare every file of an episode's folder, wherever it lies, with the manifest."""
    episode_id = folder.name
    try:
        files = read_manifest(folder)
    except EpisodeError as error:
        return Report(episode_id, False, ((MANIFEST, str(error)),))
    if isinstance(folder, Path) and (wrong := folder_problems(folder, files)):
        return Report(episode_id, False, tuple(wrong))
    found_problems = each(folder, lambda name: file_problem(folder / name, files[name], contents=True), list(files))
    problems = list(zip(files, found_problems, strict=True))
    problems += [(name, "not in the manifest") for name in _names(folder) if name not in files]
    found = tuple((name, problem) for name, problem in problems if problem)
    return Report(episode_id, not found, found)


def _names(folder: Location) -> list[str]:
    try:
        return files_under(folder)
    except OSError as error:
        raise EpisodeError(f"{error.filename or folder} cannot be listed ({error.strerror})") from error

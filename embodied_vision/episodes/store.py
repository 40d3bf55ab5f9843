"""A folder of episodes.

STORE/episodes/ID/manifest.json   sha256 of every file
STORE/episodes/ID/data.zarr/      the Zarr v3 group
STORE/staging/ID/                 episodes being written, or left behind by a writer that died
STORE/edits/ID/                   an episode's next version being built, see `swap`
STORE/trash/ID/                   deleted, but kept
STORE/quarantine/ID/              what `repair` could not read whole; nothing is thrown away
STORE/locks/                      who collects demonstrations at the moment
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied_vision.episodes.files import Location, folders_in, location
from embodied_vision.episodes.filters import Filter, When, to_ns
from embodied_vision.episodes.manifest import MANIFEST
from embodied_vision.episodes.remote import RemotePath, in_parallel
from embodied_vision.errors import BadInput, EpisodeError

if TYPE_CHECKING:
    from embodied_vision.episodes.reader import Episode

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,199}")


def is_id(name: str) -> bool:
    """Whether a folder of this name may be an episode."""
    return _ID.fullmatch(name) is not None


class EpisodeStore:
    """Finds episodes by their id. Holds no state but its path; many processes may use one store.

    Args:
        path: folder of the store; the first writer makes it. Or a URL of object storage, for reading: there an
            episode lies as in a folder, and something is under `staging/ID` while `push` uploads it.

    Raises:
        BadInput: a URL that is none of object storage.

    Attributes:
        location: folder or place in object storage.
    """

    def __init__(self, path: str | PathLike[str] | RemotePath) -> None:
        self.location: Location = location(path)

    def __repr__(self) -> str:
        return f"EpisodeStore({str(self.location)!r})"

    @property
    def path(self) -> Path:
        """Folder of the store.

        Raises:
            BadInput: it lies in object storage.
        """
        if isinstance(self.location, RemotePath):
            raise BadInput(
                f"{self.location} is object storage, which is only read; work on a local store, and `embodied-vision "
                "episodes push` what is finished, or `pull` first"
            )
        return self.location

    @property
    def episodes_path(self) -> Path:
        """Where closed episodes lie."""
        return self.path / "episodes"

    @property
    def staging_path(self) -> Path:
        """Where episodes are written."""
        return self.path / "staging"

    @property
    def quarantine_path(self) -> Path:
        """Where `repair` puts what it could not read whole."""
        return self.path / "quarantine"

    @property
    def edits_path(self) -> Path:
        """Where changed versions of closed episodes are built."""
        return self.path / "edits"

    @property
    def trash_path(self) -> Path:
        """Where deleted episodes lie that are to be kept."""
        return self.path / "trash"

    @property
    def can_list(self) -> bool:
        """Whether the ids can be asked for; a plain HTTP server does not know what it holds."""
        return not isinstance(self.location, RemotePath) or self.location.connection.lists

    def exists(self) -> bool:
        """Whether anything was ever written here; as far as it can be told."""
        if isinstance(self.location, RemotePath):
            if not self.can_list:
                return True
            try:
                return self.location.any_under()
            except OSError as error:
                raise EpisodeError(f"{self.location} cannot be listed ({error.strerror})") from error
        return self.episodes_path.is_dir() or self.staging_path.is_dir()

    def ids(self) -> list[str]:
        """Ids of the closed episodes, oldest first; damaged ones as well."""
        found = _folders(self.location / "episodes")
        if not isinstance(self.location, RemotePath):
            return found
        partial = set(self._without_manifest(self.staging_ids()))
        return [episode_id for episode_id in found if episode_id not in partial]

    def _without_manifest(self, ids: list[str]) -> list[str]:
        assert isinstance(self.location, RemotePath)
        manifests = [self.location / f"episodes/{episode_id}/{MANIFEST}" for episode_id in ids]
        try:
            there = in_parallel(RemotePath.is_file, manifests)
        except OSError as error:
            raise EpisodeError(f"{error.filename} cannot be read ({error.strerror})") from error
        return [episode_id for episode_id, is_there in zip(ids, there, strict=True) if not is_there]

    def staging_ids(self) -> list[str]:
        """Ids of episodes that are being written or that a writer left behind."""
        return _folders(self.location / "staging")

    def edit_ids(self) -> list[str]:
        """Ids of episodes that are being changed, or that a dead process was changing."""
        return _folders(self.edits_path)

    def open(self, episode_id: str) -> Episode:
        """Open a closed episode.

        Raises:
            EpisodeError: there is none of that id, or it is damaged.
        """
        from embodied_vision.episodes.reader import Episode

        if isinstance(self.location, RemotePath):
            return self._open_remote(self.location, episode_id)
        return Episode(self.folder(episode_id))

    def _open_remote(self, root: RemotePath, episode_id: str) -> Episode:
        from embodied_vision.episodes.reader import Episode

        missing = f"no episode {episode_id!r} in {root}; see `embodied-vision episodes list {root}`"
        if not _ID.fullmatch(episode_id):
            raise EpisodeError(missing)
        path = root / "episodes" / episode_id
        try:
            return Episode(path)
        except EpisodeError as error:
            cause = error.__cause__
            if isinstance(cause, FileNotFoundError) and cause.filename == str(path / MANIFEST):
                raise EpisodeError(missing) from error
            raise

    def folder(self, episode_id: str) -> Path:
        """Folder of a closed episode, which may be damaged.

        Raises:
            EpisodeError: there is none of that id.
        """
        path = self.episodes_path / episode_id
        if not _ID.fullmatch(episode_id) or not path.is_dir():
            state = " yet (it is in staging; close or repair it)" if episode_id in self.staging_ids() else ""
            raise EpisodeError(
                f"no episode {episode_id!r} in {self.path}{state}; see `embodied-vision episodes list {self.path}`"
            )
        return path

    def select(
        self,
        task: str | None = None,
        outcome: Mapping[str, Any] | None = None,
        *,
        policy_id: str | None = None,
        encoder_id: str | None = None,
        robot: str | None = None,
        tags: Collection[str] = (),
        since: When | None = None,
        until: When | None = None,
        after: str = "",
        on_damaged: Callable[[EpisodeError], None] | None = None,
    ) -> Iterator[Episode]:
        """Episodes that match, oldest first. The catalogue tells which to open; each is compared once it is.

        Args:
            task: name of the task, any when None.
            outcome: entries that the outcome must hold, such as `{"solved": True}`.
            policy_id, encoder_id: who acted, any when None.
            robot: name of the robot, any when None.
            tags: labels that it must bear, all of them.
            since, until: begun then or later, begun before; ns since 1970 or datetimes, UTC where they name no zone.
            after: only episodes with a later id than this.
            on_damaged: told of each damaged episode, which is then left out; without it the error is raised.

        Raises:
            EpisodeError: an episode that matches is damaged and `on_damaged` is None.
            BadInput: a time that is none.
        """
        if isinstance(tags, str):
            raise BadInput(f"tags is the text {tags!r}; give a list of them")
        wanted = Filter(
            task=task,
            robot=robot,
            policy_id=policy_id,
            encoder_id=encoder_id,
            outcome=outcome or {},
            tags=tuple(tags),
            since_ns=to_ns(since),
            until_ns=to_ns(until),
        )
        return self.matching(wanted, after=after, on_damaged=on_damaged)

    def matching(
        self, wanted: Filter, *, after: str = "", on_damaged: Callable[[EpisodeError], None] | None = None
    ) -> Iterator[Episode]:
        """`select` by a filter."""
        for episode_id in self._candidates(wanted, after):
            try:
                episode = self.open(episode_id)
            except EpisodeError as error:
                if isinstance(self.location, Path) and not (self.location / "episodes" / episode_id).is_dir():
                    continue  # deleted since the ids were listed
                if on_damaged is None:
                    raise
                on_damaged(error)
                continue
            if wanted.accepts(episode):
                yield episode

    def _candidates(self, wanted: Filter, after: str) -> list[str]:
        """Ids of the episodes that may match, oldest first; damaged ones as well."""
        if wanted.is_empty or isinstance(self.location, RemotePath):
            return [episode_id for episode_id in self.ids() if episode_id > after]
        from embodied_vision.episodes.catalogue import Catalogue

        with Catalogue(self.location) as catalogue:
            return catalogue.ids(wanted, after)


def _folders(path: Location) -> list[str]:
    try:
        return sorted(name for name in folders_in(path) if _ID.fullmatch(name))
    except OSError as error:
        raise EpisodeError(f"{path} cannot be listed ({error.strerror}); check its permissions") from error

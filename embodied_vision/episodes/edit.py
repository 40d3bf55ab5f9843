"""Changing closed episodes: outcome, tags, attributes, schema, deletion. What is cut out of the data is in `trim`.

Each change is safe against a crash at any point: the episode is there whole as it was, or whole as it is to be. It is
noted in the episode's `history` with what there was before.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_vision.episodes.arrays import read_attributes, write_group
from embodied_vision.episodes.manifest import MANIFEST, Entry, read_manifest, write_manifest
from embodied_vision.episodes.repair import repair_one
from embodied_vision.episodes.schema import GROUP, SCHEMA, plain
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.swap import locked, swap, take_out
from embodied_vision.episodes.versions import upgrade
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.syncing import sync, sync_tree

_ROOT = f"{GROUP}/zarr.json"
_TAG = re.compile(r"[\w.:/+-]([\w.:/+ -]{0,62}[\w.:/+-])?")
_CANNOT_LINK = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)

Root = dict[str, Any]
"""Attributes of an episode's group."""


@dataclass(frozen=True)
class Edit:
    """A change of an episode under way; nobody else changes it meanwhile.

    Attributes:
        store: where it lies.
        id: of the episode.
        source: the episode as it is.
        target: folder for the episode as it is to be; made by whoever writes into it.
    """

    store: EpisodeStore
    id: str
    source: Path
    target: Path

    def root(self) -> Root:
        """Attributes of the episode as the newest schema has them, to be changed and written to the target."""
        return upgrade(read_attributes(self.source / GROUP), self.source)

    def finish(self, known: Mapping[str, Entry] | None = None) -> None:
        """Force the target to the disk and let it take the episode's place.

        Args:
            known: files that are the source's, as its manifest describes them.
        """
        sync_tree(self.target)
        write_manifest(self.target, self.id, known)
        sync(self.target / MANIFEST)
        sync(self.target)
        swap(self.store, self.id)


@contextmanager
def editing(store: EpisodeStore, episode_id: str) -> Iterator[Edit]:
    """Change an episode: write `target` whole, then `finish`. Without `finish` nothing changes.

    Raises:
        EpisodeError: there is no such episode; another process closes or changes it; or the disk is full or fails, and
            the episode is as it was.
    """
    store.folder(episode_id)
    with disk_errors(store, episode_id), locked(store, episode_id) as folder:
        source = store.folder(episode_id)
        if episode_id in store.staging_ids() and repair_one(store, episode_id).state == "writing":
            raise EpisodeError(f"episode {episode_id} is just being closed by another process; try again")
        yield Edit(store, episode_id, source, folder / episode_id)


def relabel(store: EpisodeStore, episode_id: str, outcome: Mapping[str, Any], remove: Sequence[str] = ()) -> bool:
    """Set entries of the outcome and take others out; the rest stays, and the history keeps the former outcome.

    Args:
        store: where the episode lies.
        episode_id: whose outcome it is.
        outcome: JSON, such as `{"solved": True}`.
        remove: names of entries that are to go; those that it lacks anyway are no error.

    Returns:
        whether anything is different now.

    Raises:
        BadInput: something that JSON cannot hold, or an entry that is to be set and removed.
        EpisodeError: as `editing`.
    """
    entries = plain(outcome, "outcome")
    if both := sorted({*entries} & {*remove}):
        raise BadInput(f"entries {both} of the outcome are to be set and removed; say which")

    def change(root: Root) -> Root | None:
        former = root["outcome"]
        wanted = {key: value for key, value in {**former, **entries}.items() if key not in remove}
        if _same(wanted, former):
            return None
        return {**root, "outcome": wanted, "history": noted(root, "outcome", former)}

    return _change_root(store, episode_id, change)


def tag(store: EpisodeStore, episode_id: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> bool:
    """Put tags on an episode and take others off; those that it lacks anyway are no error.

    Returns:
        whether anything is different now.

    Raises:
        BadInput: a text that cannot be a tag, or one that is to be added and removed.
        EpisodeError: as `editing`.
    """
    for name in add:
        if not _TAG.fullmatch(name):
            raise BadInput(f"{name!r} cannot be a tag; give 1 to 64 letters, digits or _ . : / + - and blanks between")
    if both := sorted({*add} & {*remove}):
        raise BadInput(f"tags {both} are to be added and removed; say which")

    def change(root: Root) -> Root | None:
        wanted = sorted(({*root["tags"]} | {*add}) - {*remove})
        if wanted == root["tags"]:
            return None
        return {**root, "tags": wanted, "history": noted(root, "tags", root["tags"])}

    return _change_root(store, episode_id, change)


def change_attribute(store: EpisodeStore, episode_id: str, name: str, change: Callable[[Any], Any]) -> bool:
    """Change one of the attributes that the writer was given, or add one; the history keeps the former value.

    Args:
        store: where the episode lies.
        episode_id: whose attribute it is.
        name: of the attribute.
        change: from the value there is, None where there is none, to the new one, JSON; nobody else changes the
            episode meanwhile.

    Returns:
        whether anything is different now.

    Raises:
        BadInput: something that JSON cannot hold.
        EpisodeError: as `editing`.
    """

    def changed(root: Root) -> Root | None:
        former = root["attributes"].get(name)
        wanted = plain(change(former), name)
        if _same(wanted, former):
            return None
        history = noted(root, f"attribute {name}", former)
        return {**root, "attributes": {**root["attributes"], name: wanted}, "history": history}

    return _change_root(store, episode_id, changed)


def migrate(store: EpisodeStore, episode_id: str) -> bool:
    """Write an episode of an earlier schema as the newest one has it.

    Returns:
        whether it was of an earlier schema.

    Raises:
        EpisodeError: as `editing`, or the schema is newer than this software.
    """

    def change(root: Root) -> Root | None:
        stored = stored_schema(store, episode_id)
        return None if stored == SCHEMA else {**root, "history": noted(root, "schema", stored)}

    return _change_root(store, episode_id, change)


def stored_schema(store: EpisodeStore, episode_id: str) -> int:
    """Schema that an episode is written in.

    Raises:
        EpisodeError: there is no such episode, it is damaged, or its schema is newer than this software.
    """
    episode = store.open(episode_id)
    return int(read_attributes(episode.path / GROUP)["schema"])


def delete(store: EpisodeStore, episode_id: str, *, keep: bool = False) -> None:
    """Delete an episode; a damaged one as well.

    Args:
        store: where it lies.
        episode_id: which one.
        keep: move it to STORE/trash/ID instead. Moving the folder back to STORE/episodes brings it back.

    Raises:
        EpisodeError: as `editing`, or the trash holds an episode of that id already.
    """
    kept = store.trash_path / episode_id if keep else None
    with editing(store, episode_id):
        if kept is not None and kept.exists():
            raise EpisodeError(f"{kept} is there already; remove it or move it away")
        take_out(store, episode_id, kept)


def noted(root: Root, what: str, former: Any) -> list[Any]:
    """The history with one more change; `former` is what there was before."""
    return [*root["history"], {"what": what, "when_ns": time.time_ns(), "from": former}]


def link_or_copy(source: Path, target: Path, names: Sequence[str]) -> None:
    """Let files of one version be files of the other, by hard links where the file system has them."""
    linked = True
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if linked:
            try:
                os.link(source / name, target / name, follow_symlinks=False)
                continue
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
                linked = False
        shutil.copyfile(source / name, target / name, follow_symlinks=False)


@contextmanager
def disk_errors(store: EpisodeStore, episode_id: str) -> Iterator[None]:
    """Tell an OSError as an EpisodeError that names the place."""
    try:
        yield
    except OSError as error:
        raise EpisodeError(
            f"{error.filename or store.edits_path} cannot be written ({error.strerror}); episode {episode_id} of "
            f"{store.path} is not half changed: free space, or fix the disk or its permissions, and try again"
        ) from error


def _change_root(store: EpisodeStore, episode_id: str, change: Callable[[Root], Root | None]) -> bool:
    with editing(store, episode_id) as edit:
        files = read_manifest(edit.source)
        store.open(episode_id)  # whole, as far as is seen without reading all of it
        changed = change(edit.root())
        if changed is None:
            return False
        known = {name: entry for name, entry in files.items() if name != _ROOT}
        link_or_copy(edit.source, edit.target, sorted(known))
        write_group(edit.target / GROUP, changed)
        edit.finish(known)
        return True


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: True is not 1."""
    return repr(one) == repr(other)

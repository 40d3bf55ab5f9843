"""From what a user types to an episode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import EpisodeError

if TYPE_CHECKING:
    from embodied_vision.episodes.reader import Episode

LATEST = "latest"


def find_episode(store: EpisodeStore, wanted: str = LATEST) -> Episode:
    """The episode that `find_id` names.

    Raises:
        EpisodeError: there is none, more than one, or it is damaged.
    """
    return store.open(find_id(store, wanted))


def find_id(store: EpisodeStore, wanted: str = LATEST) -> str:
    """The episode with this id, with an id that begins so, or the latest; it may be damaged.

    Raises:
        EpisodeError: there is none, or more than one.
    """
    ids = store.ids()
    if not ids:
        raise EpisodeError(f"{store.location} holds no episodes; give the folder of an episode store")
    if wanted == LATEST:
        return ids[-1]
    if wanted in ids:
        return wanted
    matches = [episode_id for episode_id in ids if wanted and episode_id.startswith(wanted)]
    if len(matches) > 1:
        raise EpisodeError(f"{wanted!r} begins {len(matches)} episodes of {store.location}: {', '.join(matches)}")
    if not matches:
        raise EpisodeError(
            f"no episode {wanted!r} in {store.location}; see `embodied-vision episodes list {store.location}`"
        )
    return matches[0]

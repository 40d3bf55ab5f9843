"""From what a user types to an episode."""

from __future__ import annotations

from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import EpisodeError

LATEST = "latest"


def find_episode(store: EpisodeStore, wanted: str = LATEST) -> Episode:
    """The episode with this id, with an id that begins so, or the latest.

    Raises:
        EpisodeError: there is none, more than one, or it is damaged.
    """
    ids = store.ids()
    if not ids:
        raise EpisodeError(f"{store.path} holds no episodes; give the folder of an episode store")
    if wanted == LATEST:
        return store.open(ids[-1])
    if wanted in ids:
        return store.open(wanted)
    matches = [episode_id for episode_id in ids if wanted and episode_id.startswith(wanted)]
    if len(matches) > 1:
        raise EpisodeError(f"{wanted!r} begins {len(matches)} episodes of {store.path}: {', '.join(matches)}")
    return store.open(matches[0] if matches else wanted)

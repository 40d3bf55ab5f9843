"""Which logged episodes nobody ever learns from, so that candidates can be tried on them."""

from __future__ import annotations

import hashlib

from embodied_vision.errors import BadInput

SHARE = 0.2


def is_held_out(episode_id: str, share: float = SHARE) -> bool:
    """Whether an episode is held out: told by its id alone, so the same in every round and on every machine.

    Args:
        episode_id: of the episode.
        share: of all episodes, in [0, 1); those of a smaller share are held out at any larger one as well.

    Raises:
        BadInput: a share outside its range.
    """
    if not 0 <= share < 1:
        raise BadInput(f"share {share:g} of held-out episodes lies outside [0, 1); give such as {SHARE:g}")
    return int.from_bytes(hashlib.sha256(episode_id.encode()).digest()[:4]) < share * 2**32

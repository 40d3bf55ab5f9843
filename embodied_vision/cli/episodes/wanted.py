"""Which episodes a verb works on: by id, or by what they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import typer

from embodied_vision.episodes.filters import Filter, to_ns
from embodied_vision.episodes.select import find_id
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput

TASK = typer.Option(None, help="Only episodes of this task.", show_default="any")
POLICY = typer.Option(
    None, "--policy", "--policy-id", help="Only episodes in which the policy of this id acted.", show_default="any"
)
ENCODER = typer.Option(None, "--encoder", help="Only episodes with the encoder of this id.", show_default="any")
ROBOT = typer.Option(None, help="Only episodes of this robot.", show_default="any")
SOLVED = typer.Option(None, "--solved/--failed", help="Only episodes that ended so.", show_default="any")
TAG = typer.Option(None, "--tag", help="Only episodes that bear this tag; may be repeated.", show_default="any")
SINCE = typer.Option(None, help="Only episodes that began then or later, UTC.", show_default="any")
UNTIL = typer.Option(None, help="Only episodes that began before, UTC.", show_default="any")


def filter_of(
    *,
    task: str | None = None,
    policy_id: str | None = None,
    encoder_id: str | None = None,
    robot: str | None = None,
    solved: bool | None = None,
    tags: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Filter:
    """The filter that the options above say."""
    outcome: dict[str, Any] = {} if solved is None else {"solved": solved}
    return Filter(
        task=task,
        policy_id=policy_id,
        encoder_id=encoder_id,
        robot=robot,
        outcome=outcome,
        tags=tuple(tags or ()),
        since_ns=to_ns(since),
        until_ns=to_ns(until),
    )


def wanted_ids(store: EpisodeStore, ids: Sequence[str] | None, wanted: Filter) -> list[str]:
    """Ids, oldest first: those that `ids` names, or all, as far as the filter accepts them.

    Raises:
        BadInput: none is left.
        EpisodeError: an id names none or several episodes, or an episode that is to be looked at is damaged.
    """
    if ids:
        named = sorted({find_id(store, episode_id) for episode_id in ids})
        chosen = named if wanted.is_empty else [i for i in named if wanted.accepts(store.open(i))]
    else:
        chosen = store.ids() if wanted.is_empty else [episode.id for episode in store.matching(wanted)]
    if not chosen:
        what = "episodes" if wanted.is_empty else "episodes that meet the conditions"
        raise BadInput(f"{store.location} holds no {what}; see `embodied-vision episodes list {store.location}`")
    return chosen

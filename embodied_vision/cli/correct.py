"""`embodied-vision episodes correct`: what an operator would have done instead of a logged decision."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import typer

from embodied_vision.cli.episodes.common import JSON, STORE, open_store, time_of
from embodied_vision.episodes.correction_page import correction_page
from embodied_vision.episodes.corrections import Target, correct, corrections
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.select import find_episode
from embodied_vision.errors import BadInput


def command(
    store: Path = STORE,
    episode_id: str = typer.Argument(..., metavar="ID", help="Id, the beginning of one, or 'latest'."),
    decision: str | None = typer.Argument(
        None, help="Number of the decision, from 1, or its id; left out, the corrections there are get listed."
    ),
    pick: str | None = typer.Option(
        None,
        metavar="X,Y,YAW[,Z]",
        help="Where it should have picked: m, degrees. Without Z the height follows from what is seen there.",
    ),
    place: str | None = typer.Option(None, metavar="X,Y,YAW[,Z]", help="Where it should have let go."),
    by: str | None = typer.Option(None, "--by", help="Who says so.", show_default="the user's name"),
    note: str = typer.Option("", help="In words."),
    page: Path | None = typer.Option(
        None, help="Write a page, .html, to click the poses on; it shows the command that keeps them."
    ),
    as_json: bool = JSON,
) -> None:
    """Say what a logged decision should have been: it teaches like a demonstration. The decision stays as it was made.

    The object's turn is the yaw of the place less that of the pick. Of several corrections the last counts.
    """
    opened = open_store(store)
    episode = find_episode(opened, episode_id)
    if decision is None:
        if pick or place or page:
            raise BadInput(f"which of the {len(episode.decisions)} decisions? give its number, from 1, or its id")
        _list(episode, as_json)
        return
    number = _number(episode, decision)
    if page is not None:
        page.write_text(correction_page(episode, number, store), encoding="utf-8")
        if not (pick or place):
            typer.echo(json.dumps({"page": str(page)}) if as_json else f"open {page} in a browser")
            return
    kept = correct(
        opened,
        episode.id,
        number,
        Target.parse(pick, "--pick") if pick else None,
        Target.parse(place, "--place") if place else None,
        who=by if by is not None else getpass.getuser(),
        note=note,
    )
    if as_json:
        typer.echo(json.dumps({"id": episode.id, "decision": number + 1, **kept.to_dict()}))
    else:
        typer.echo(
            f"decision {number + 1} of {episode.id} is corrected by {kept.who}; it counts when a policy learns next"
        )


def _number(episode: Episode, decision: str) -> int:
    ids = [episode.decisions.action(number).decision_id for number in range(len(episode.decisions))]
    if decision in ids:
        return ids.index(decision)
    if not decision.isdigit() or not 1 <= int(decision) <= len(ids):
        raise BadInput(
            f"episode {episode.id} has no decision {decision!r}; give a number from 1 to {len(ids)}, or an id"
        )
    return int(decision) - 1


def _list(episode: Episode, as_json: bool) -> None:
    found = corrections(episode)
    if as_json:
        rows = [{"decision": number + 1, **each.to_dict()} for number, each in sorted(found.items())]
        typer.echo(json.dumps({"id": episode.id, "corrections": rows}))
        return
    for number, each in sorted(found.items()):
        typer.echo(f"decision {number + 1}: by {each.who}, {time_of(each.when_ns)} {each.note}".rstrip())
    if not found:
        typer.echo(f"none of the {len(episode.decisions)} decisions of {episode.id} is corrected")

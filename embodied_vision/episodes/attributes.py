"""What the attributes of an episode's groups must be, before anybody relies on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embodied_vision.episodes import strict
from embodied_vision.episodes.records import check_cameras
from embodied_vision.episodes.schema import folder_name
from embodied_vision.errors import EpisodeError


def check_root(root: Mapping[str, Any], where: object) -> None:
    """Check the root attributes of an episode, as the newest schema has them.

    Raises:
        EpisodeError: a writer would not write them.
    """
    try:
        for name in ("task", "robot", "encoder_id", "policy_id"):
            strict.text(root.get(name), name)
        for name in ("outcome", "attributes"):
            strict.mapping(root.get(name), name)
        for name in ("created_ns", "closed_ns"):
            strict.integer(root.get(name), name)
        for tag in strict.items(root.get("tags"), "tags"):
            strict.text(tag, "tag")
        for edit in strict.items(root.get("history"), "history"):
            strict.mapping(edit, "an edit of the history")
        for name in strict.mapping(root.get("streams"), "streams"):
            folder_name(name)
        check_cameras(root.get("cameras"))
    except ValueError as error:
        raise EpisodeError(f"{where} has damaged attributes ({error}); restore it from a copy") from error


def check_decisions(attributes: Mapping[str, Any], lengths: Mapping[str, int], where: object) -> list[dict[str, Any]]:
    """The records of the decisions.

    Args:
        attributes: of the group of decisions.
        lengths: frames kept with decisions, by camera.
        where: the group lies, for errors.

    Raises:
        EpisodeError: a writer would not write them.
    """
    try:
        records = strict.items(attributes.get("records"), "records")
        for record in records:
            strict.mapping(record, "a record")
            for name in ("primitive", "decision_id"):
                strict.text(record.get(name), name)
            for name, score in strict.mapping(record.get("scores"), "scores").items():
                check_score(score, name)
            strict.mapping(record.get("info"), "info")
            for entry in strict.items(record.get("frames"), "frames"):
                if not isinstance(entry, list) or len(entry) != 2 or entry[0] not in lengths:
                    raise ValueError(f"frames hold {strict.shortened(entry)}, not pairs of camera and number")
                strict.integer(entry[1], "number of a frame", 0, lengths[entry[0]] - 1)
    except (ValueError, TypeError) as error:
        raise EpisodeError(f"{where} has damaged records ({error}); restore it from a copy") from error
    return records


def check_score(score: Any, name: str) -> None:
    """Raises ValueError where `score` is neither a number nor the text of one that is not finite."""
    if score not in ("NaN", "Infinity", "-Infinity"):
        strict.number(score, f"score {name!r:.80}")

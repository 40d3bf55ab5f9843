"""Schema versions of an episode: what was written by any earlier one is read as the newest, for ever.

The root attributes of an episode's group and the header of its journal share their keys, so one chain of pure
functions brings both up to date in memory. Nothing on the disk changes but by an edit, see `edit.migrate`.

| schema | what changed |
| --- | --- |
| 1 | |
| 2 | `tags`, `history`: a closed episode may be edited, and tells how |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from embodied_vision.episodes.schema import SCHEMA
from embodied_vision.errors import EpisodeError

Upgrade = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From the attributes of one schema to those of the next."""


def _from_1(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {**attributes, "schema": 2, "tags": [], "history": []}


UPGRADES: Mapping[int, Upgrade] = {1: _from_1}
"""By the schema that they start from."""


def upgrade(attributes: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Root attributes or a journal's header as the newest schema has them; `where` they were found, for errors.

    Raises:
        EpisodeError: the schema is newer than this software, or none at all.
    """
    schema = attributes.get("schema")
    if type(schema) is not int or not (schema == SCHEMA or schema in UPGRADES):
        raise EpisodeError(f"{where} has schema {schema}, this software knows 1 to {SCHEMA}; update it")
    newest = dict(attributes)
    while newest["schema"] != SCHEMA:
        newest = UPGRADES[newest["schema"]](newest)
    return newest

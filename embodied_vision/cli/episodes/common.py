"""What the verbs of `embodied-vision episodes` share: arguments, how a store is opened, columns."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.table import Column

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput

STORE = typer.Argument(..., help="Folder of the episode store, or its URL in object storage.", show_default=False)
JSON = typer.Option(False, "--json", help="Print JSON for scripts.")


def open_store(path: Path | str) -> EpisodeStore:
    """The store at `path`, a folder or a URL such as s3://bucket/prefix, also where a `Path` made its `//` one `/`.

    Raises:
        BadInput: there is none.
        EpisodeError: the object storage cannot be read.
    """
    store = EpisodeStore(path)
    if not store.exists():
        raise BadInput(f"no episode store at {store.location}; give the folder that the recorder or `collect` wrote to")
    return store


def time_of(stamp_ns: int) -> str:
    """A stamp as a person reads it."""
    return datetime.fromtimestamp(stamp_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def pairs(values: dict[str, Any]) -> str:
    """A mapping in one line."""
    return ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )


def id_column() -> Column:
    """A column that does not break ids."""
    return Column("id", no_wrap=True, min_width=36)

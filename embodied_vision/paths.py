"""Where the files that ship with the package lie, in a checkout and installed alike."""

from __future__ import annotations

from pathlib import Path

from embodied_vision.errors import BadInput

PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """Path of a shipped checkpoint, such as `encoder` or `block-insertion`.

    Raises:
        BadInput: nothing of that name ships.
    """
    folder = PACKAGE / "checkpoints"
    path = folder / name
    if not path.is_dir():
        there = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        raise BadInput(
            f"no checkpoint {name!r} in {folder}; there are {there or 'none'}. Give the path of a checkpoint folder"
        )
    return path

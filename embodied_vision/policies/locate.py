"""From what a user types to the folder of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from embodied_vision.paths import shipped


def locate(name_or_path: str | Path) -> Path:
    """Folder of a checkpoint: at a path, or of a shipped one by its name.

    Raises:
        BadInput: it is a plain name, and nothing of that name ships.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir() or len(path.parts) > 1:
        return path
    return shipped(str(name_or_path))

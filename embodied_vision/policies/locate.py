"""From what a user types to the folder of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from embodied_vision.paths import shipped


def locate(name_or_path: str | Path) -> Path:
    """Folder of a checkpoint: at a path, or of a shipped one by its name.

    A link, such as the pointer to the promoted checkpoint, is followed here and now: what is read afterwards comes
    from one folder, though the pointer may be swapped meanwhile.

    Raises:
        BadInput: it is a plain name, and nothing of that name ships.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir() or len(path.parts) > 1:
        return path.resolve()
    return shipped(str(name_or_path))

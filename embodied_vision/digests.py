"""Files read only as they were written: every one checked against the sha256 in its folder's manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from embodied_vision.errors import BadInput


def read_verified(folder: Path, hashes: Mapping[str, str], what: str, error: type[BadInput]) -> dict[str, bytes]:
    """Contents of the files that `hashes` names, by name.

    Args:
        hashes: file name → sha256 as a hexadecimal text.
        what: what the folder holds, for messages, such as "encoder".
        error: what to raise when a file is missing or differs from what was written.
    """
    contents: dict[str, bytes] = {}
    for name, expected in hashes.items():
        path = folder / name
        try:
            contents[name] = path.read_bytes()
        except OSError as cause:
            raise error(f"{path} cannot be read ({cause}); copy the whole {what} folder") from cause
        actual = hashlib.sha256(contents[name]).hexdigest()
        if actual != expected:
            raise error(
                f"{path} is damaged: sha256 {actual[:16]}…, its manifest says {str(expected)[:16]}…; copy it again"
            )
    return contents
